// Low-rank adapters as PEFT lays them out, against weights that plain loops change.
#include "model/adapter.h"

#include <gtest/gtest.h>

#include <cmath>

#include "io/json_file.h"
#include "io/safetensors.h"
#include "support/models.h"
#include "support/temp_folder.h"

namespace sennit::adapter_test {

namespace fs = std::filesystem;

const fs::path kGolden = SENNIT_GOLDEN;
constexpr int64_t kRank = 3;

Tensor random(const Shape& shape, uint64_t seed) {
  Rng rng(seed);
  Tensor t(shape);
  for (float& x : t.span()) x = static_cast<float>(0.3 * rng.normal());
  return t;
}

struct Case {
  std::string family, module;  // the module's name without ".weight"
  bool transposed = false;     // its weight is [in, out]
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.family;
}

struct Adapters : testing::TestWithParam<Case> {
  TempFolder dir;
  std::string base() const { return (kGolden / GetParam().family).string(); }
  std::string adapter = dir / "adapter";
  Tensor a, b;

  // Writes an adapter of the module and, beside it, the model with W + scale B A, row by row of length m if given.
  void write(const Json& settings, double scale, const Tensor& magnitude = {}) {
    const auto& [family, module, transposed] = GetParam();
    const io::Safetensors all(base());
    const std::string name = module + ".weight";
    const Tensor w = all.tensor(name);
    const int64_t out = transposed ? w.row_size() : w.rows(), in = transposed ? w.rows() : w.row_size();
    a = random({kRank, in}, 1), b = random({out, kRank}, 2);
    Tensor changed = w.clone();
    for (int64_t i = 0; i < out; ++i) {
      double squares = 0;
      std::vector<double> row(in);
      for (int64_t j = 0; j < in; ++j) {
        row[j] = transposed ? w.data()[j * out + i] : w.data()[i * in + j];
        for (int64_t r = 0; r < kRank; ++r) row[j] += scale * b.data()[i * kRank + r] * a.data()[r * in + j];
        squares += row[j] * row[j];
      }
      for (int64_t j = 0; j < in; ++j) {
        const double factor = magnitude ? magnitude.data()[i] / std::sqrt(squares) : 1;
        changed.data()[transposed ? j * out + i : i * in + j] = static_cast<float>(row[j] * factor);
      }
    }
    fs::create_directory(adapter), fs::create_directory(dir / "tuned");
    std::vector<io::NamedTensor> tensors;
    for (const std::string& n : all.names()) tensors.push_back({n, n == name ? changed : all.tensor(n)});
    io::write_safetensors(dir / "tuned/model.safetensors", tensors);
    fs::copy_file(base() + "/config.json", dir / "tuned/config.json", fs::copy_options::overwrite_existing);
    const std::string prefix = "base_model.model." + module;
    tensors = {{prefix + ".lora_A.weight", a}, {prefix + ".lora_B.weight", b}};
    if (magnitude) tensors.push_back({prefix + ".lora_magnitude_vector", magnitude});
    io::write_safetensors(adapter + "/adapter_model.safetensors", tensors);
    Json config{{"peft_type", "LORA"}, {"r", kRank}, {"target_modules", {module}}};
    config.update(settings);
    io::write_json_file(adapter + "/adapter_config.json", config);
  }

  void expect_tuned() const {
    StoredModel model = read_stored_model(base());
    EXPECT_EQ(apply_adapter(model, adapter).size(), 1u);
    const StoredModel tuned = read_stored_model(dir / "tuned");
    int changed = 0;
    for (const auto& [name, t] : tuned.tensors) {
      const Tensor wanted = io::decoded(t), found = io::decoded(model.tensors.at(name)),
                   before = io::decoded(read_stored_model(base()).tensors.at(name));
      for (int64_t i = 0; i < wanted.elements(); ++i)
        ASSERT_NEAR(found.data()[i], wanted.data()[i], 1e-6 * std::fmax(1, std::fabs(wanted.data()[i]))) << name;
      changed += !same_bits(found.span(), before.span());
    }
    EXPECT_GE(changed, 1);
  }
};

TEST_P(Adapters, AreAddedToTheWeight) {
  write({{"lora_alpha", 6}}, 6.0 / kRank);
  expect_tuned();
}
TEST_P(Adapters, OfStableRankHaveTheirScale) {
  write({{"lora_alpha", 6}, {"use_rslora", true}}, 6.0 / std::sqrt(kRank));
  expect_tuned();
}
TEST_P(Adapters, HaveScalesByModule) {
  const std::string module = GetParam().module;
  write({{"lora_alpha", 6}, {"alpha_pattern", {{module.substr(module.rfind('.') + 1), 1.5}}}}, 1.5 / kRank);
  expect_tuned();
}
TEST_P(Adapters, WithMagnitudesHaveRowsOfTheirLength) {
  if (GetParam().transposed) GTEST_SKIP() << "written for weights [out, in]";
  const Tensor w = io::Safetensors(base()).tensor(GetParam().module + ".weight");
  Tensor m({w.rows()});
  for (int64_t i = 0; i < w.rows(); ++i) m.data()[i] = 0.5f + 0.1f * static_cast<float>(i);
  write({{"lora_alpha", 6}, {"use_dora", true}}, 6.0 / kRank, m);
  expect_tuned();
}

// What is extracted from two models and added to the first makes the second.
TEST_P(Adapters, ComeBackFromTheDifference) {
  write({{"lora_alpha", 6}}, 6.0 / kRank);
  fs::create_directory(dir / "found");
  const ExtractedAdapter e =
      extract_adapter(read_stored_model(base()), read_stored_model(dir / "tuned"), kRank, dir / "found");
  EXPECT_EQ(e.matrices, 1);
  EXPECT_LT(e.left_out, 1e-4);
  StoredModel model = read_stored_model(base());
  apply_adapter(model, dir / "found");
  const StoredModel tuned = read_stored_model(dir / "tuned");
  for (const auto& [name, t] : tuned.tensors) {
    const Tensor wanted = io::decoded(t), found = io::decoded(model.tensors.at(name));
    for (int64_t i = 0; i < wanted.elements(); ++i)
      ASSERT_NEAR(found.data()[i], wanted.data()[i], 1e-5 * std::fmax(1, std::fabs(wanted.data()[i]))) << name;
  }
  fs::create_directory(dir / "low");
  const double low =
      extract_adapter(read_stored_model(base()), read_stored_model(dir / "tuned"), 1, dir / "low").left_out;
  EXPECT_GT(low, 1e-3) << "one direction holds less than three";
  EXPECT_LT(low, 1);
}

INSTANTIATE_TEST_SUITE_P(Families, Adapters,
                         testing::Values(Case{"llama3", "model.layers.1.self_attn.q_proj"},
                                         Case{"gpt2", "transformer.h.0.attn.c_attn", true},
                                         Case{"mamba2", "backbone.layers.0.mixer.in_proj"},
                                         Case{"rwkv7", "model.layers.1.ffn.key"},
                                         Case{"bamba", "model.layers.1.self_attn.k_proj"},
                                         Case{"gated_deltanet", "model.layers.0.mlp.up_proj"}),
                         [](const auto& i) { return i.param.family; });

TEST(AdapterErrors, NameWhatIsWrong) {
  TempFolder dir;
  const auto says = [&](const Json& config, const std::vector<io::NamedTensor>& tensors, const std::string& words) {
    io::write_json_file(dir / "adapter_config.json", config);
    io::write_safetensors(dir / "adapter_model.safetensors", tensors);
    StoredModel model = read_stored_model((kGolden / "llama3").string());
    const std::string e = error_of([&] { apply_adapter(model, dir.path()); });
    EXPECT_NE(e.find(words), std::string::npos) << e;
    EXPECT_NE(e.find(dir.path()), std::string::npos) << e;
  };
  const Json lora{{"peft_type", "LORA"}, {"lora_alpha", 4}};
  const std::string q = "base_model.model.model.layers.0.self_attn.q_proj.";
  says({{"peft_type", "IA3"}}, {{q + "x", random({2}, 1)}}, "`peft_type` to be LORA");
  says(lora, {{"base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight", random({2, 16}, 1)}},
       "`model.layers.7.self_attn.q_proj.weight`");
  says(lora, {{q + "lora_A.weight", random({2, 16}, 1)}}, "one of them alone");
  says(lora, {{q + "lora_A.weight", random({2, 15}, 1)}, {q + "lora_B.weight", random({16, 2}, 1)}},
       "A [r, in] and B [out, r]");
  says(lora, {{q + "lora_A.weight", random({0, 16}, 1)}, {q + "lora_B.weight", random({16, 0}, 1)}},
       "A [r, in] and B [out, r]");
  says(lora, {{q + "lora_C.weight", random({2, 16}, 1)}}, "lora_C");
  says(lora, {{q + "lora_A.weight", Tensor::zeros({2, 16}, DType::u32)}}, "u32");
  says({{"peft_type", "LORA"}, {"alpha_pattern", {{"^q.*", 3}}}}, {{q + "lora_A.weight", random({2, 16}, 1)}},
       "alpha_pattern");
  EXPECT_NE(error_of([&] {
              extract_adapter(read_stored_model((kGolden / "llama3").string()),
                              read_stored_model((kGolden / "llama3").string()), 2, dir.path());
            }).find("the same numbers"),
            std::string::npos);
}

}  // namespace sennit::adapter_test
