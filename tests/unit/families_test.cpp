// Models of other programs: golden ones (tests/golden), and round trips through both kinds of file.
#include <gtest/gtest.h>

#include <cmath>

#include "families/family.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "model/checkpoint.h"
#include "model/export.h"
#include "model/vocabulary.h"
#include "sequence/rope_scaling.h"
#include "support/models.h"
#include "support/temp_folder.h"

namespace sennit::families_test {

namespace fs = std::filesystem;

const fs::path kGolden = SENNIT_GOLDEN;

struct Expected {
  std::vector<int32_t> tokens;
  Tensor logits;
  float loss;
};
Expected expected(const std::string& name) {
  const io::Safetensors file((kGolden / name / "expected.safetensors").string());
  const Tensor t = file.tensor("tokens");
  const auto* ids = reinterpret_cast<const int32_t*>(t.raw());
  return {{ids, ids + t.elements()}, file.tensor("logits"), file.tensor("loss").data()[0]};
}

// The largest difference over the largest number (or over `least`, where all are smaller).
double distance(const Tensor& found, const Tensor& wanted, double least = 0) {
  double off = 0, size = least;
  for (int64_t i = 0; i < wanted.elements(); ++i) {
    off = std::fmax(off, std::fabs(double{found.data()[i]} - wanted.data()[i]));
    size = std::fmax(size, std::fabs(double{wanted.data()[i]}));
  }
  return off / size;
}

Tensor logits_of(Model& model, const std::vector<int32_t>& tokens) {
  const NoGrad off;
  const Context context;
  const Segment whole[] = {{0, std::ssize(tokens), 0, nullptr}};
  return model.logits(model.hidden(tokens, {whole, &context}), context).value();
}

class Golden : public testing::TestWithParam<std::string> {
 protected:
  std::string folder() const { return (kGolden / GetParam()).string(); }
};

TEST_P(Golden, LogitsAndGradientsAreTheReferences) {
  const Expected e = expected(GetParam());
  const auto model = make_model(read_stored_model(folder()));
  EXPECT_LT(distance(logits_of(*model, e.tokens), e.logits), 3e-6);
  const Context context;
  const Segment whole[] = {{0, std::ssize(e.tokens), 0, nullptr}};
  std::vector<int32_t> targets(e.tokens.begin() + 1, e.tokens.end());
  targets.push_back(-1);
  const Var loss = model->loss(model->hidden(e.tokens, {whole, &context}), targets, context);
  EXPECT_NEAR(loss.value().data()[0], e.loss, 2e-6 * e.loss);
  backward(loss);
  const StoredModel gradients = read_stored_model(folder() + "/gradients");
  int compared = 0;
  double largest = 0;
  for (const auto& [name, t] : gradients.tensors)
    for (const float g : io::decoded(t).span()) largest = std::fmax(largest, std::fabs(double{g}));
  model->parameters([&](const std::string& name, Parameter& p) {
    EXPECT_LT(distance(p.var.grad(), io::decoded(gradients.tensors.at(name)), largest / 100), 2e-5) << name;
    ++compared;
  });
  EXPECT_EQ(compared, std::ssize(gradients.tensors));
}

// Computing blocks again in backward changes neither the loss nor a gradient.
TEST_P(Golden, CheckpointingChangesNothing) {
  const Expected e = expected(GetParam());
  const auto model = make_model(read_stored_model(folder()));
  const Context context;
  const Segment whole[] = {{0, std::ssize(e.tokens), 0, nullptr}};
  std::vector<float> gradients;
  for (const bool checkpointed : {false, true}) {
    clear_gradients(*model);
    backward(model->loss(model->hidden(e.tokens, {whole, &context}, checkpointed), e.tokens, context));
    if (checkpointed) {
      EXPECT_TRUE(same_bits(all_of(*model, true), gradients));
    }
    gradients = all_of(*model, true);
  }
}

// A text cut into pieces with a state, or read beside another, gives the same logits to the bit.
TEST_P(Golden, CutsAndCompanyChangeNothing) {
  const Expected e = expected(GetParam());
  const auto model = make_model(read_stored_model(folder()));
  const NoGrad off;
  Context context;
  context.exact = true;
  const int64_t n = std::ssize(e.tokens);
  const Segment whole[] = {{0, n, 0, nullptr}};
  const Tensor wanted = model->logits(model->hidden(e.tokens, {whole, &context}), context).value();
  std::vector<int32_t> two = {3, 1, 2, 2, 5};
  two.insert(two.end(), e.tokens.begin(), e.tokens.end());
  const Segment beside[] = {{0, 5, 0, nullptr}, {5, n, 0, nullptr}};
  const Var both = model->hidden(two, {beside, &context});
  EXPECT_TRUE(same_bits(model->logits(both, context).value().slice(5, n).span(), wanted.span()));
  SequenceState state;
  if (!model->causal()) {
    const Segment kept[] = {{0, n, 0, &state}};
    EXPECT_NE(error_of([&] { model->hidden(e.tokens, {kept, &context}); }).find("reads both ways"), std::string::npos);
    return;
  }
  for (int64_t at = 0, length = 1; at < n; at += length, length = std::min<int64_t>(n - at, 8 - length)) {
    const Segment piece[] = {{0, length, at, &state}};
    const Var h = model->hidden(std::span(e.tokens).subspan(at, length), {piece, &context});
    EXPECT_TRUE(same_bits(model->logits(h, context).value().span(), wanted.slice(at, length).span())) << at;
  }
}

// Hugging Face -> GGUF -> Hugging Face keeps every bit of every tensor, in each float type.
TEST_P(Golden, RoundTripKeepsTheBits) {
  TempFolder dir;
  const io::Safetensors first(folder());
  for (const auto format : {io::BlockFormat::f32, io::BlockFormat::f16, io::BlockFormat::bf16}) {
    const std::string name = io::layout_of(format).name, start = dir / ("start_" + name), gguf = dir / (name + ".gguf"),
                      back = dir / ("back_" + name);
    fs::create_directory(start), fs::create_directory(back);
    export_model(read_stored_model(folder()), start,
                 {.container = Container::huggingface, .weights = format, .vocabulary = io::GgufMetadata()});
    const StoredModel from = read_stored_model(start);
    export_model(from, gguf, {.container = Container::gguf, .weights = {}, .vocabulary = gguf_vocabulary(nullptr, 40)});
    const StoredModel middle = read_stored_model(gguf);
    export_model(middle, back, {.container = Container::huggingface, .weights = {}, .vocabulary = io::GgufMetadata()});
    const io::Safetensors a(start), b(back);
    ASSERT_EQ(a.names(), b.names());
    ASSERT_EQ(a.names(), first.names());
    for (const std::string& tensor : a.names()) {
      const Tensor x = a.tensor(tensor), y = b.tensor(tensor);
      ASSERT_EQ(x.shape(), y.shape()) << tensor;
      if (tensor.ends_with("A_log")) {  // GGUF keeps -exp of it
        for (int64_t i = 0; i < x.elements(); ++i)
          ASSERT_NEAR(x.to(DType::f32).data()[i], y.to(DType::f32).data()[i], 3e-7) << tensor;
        continue;
      }
      ASSERT_EQ(x.dtype(), y.dtype()) << tensor;
      ASSERT_EQ(std::memcmp(x.raw(), y.raw(), x.bytes()), 0) << name << " " << tensor;
    }
    const Expected e = expected(GetParam());
    EXPECT_LT(distance(logits_of(*make_model(middle), e.tokens), logits_of(*make_model(from), e.tokens)), 2e-6);
  }
}

TEST_P(Golden, MissingTensorsAreNamed) {
  TempFolder dir;
  const io::Safetensors all(folder());
  fs::copy_file(folder() + "/config.json", dir / "config.json");
  for (const std::string& missing : {all.names().front(), all.names().back()}) {
    std::vector<io::NamedTensor> rest = {{"nobody.knows.it", Tensor::zeros({2})}};
    for (const std::string& name : all.names())
      if (name != missing) rest.push_back({name, all.tensor(name)});
    io::write_safetensors(dir / "model.safetensors", rest);
    const std::string e = error_of([&] { read_stored_model(dir.path()); });
    EXPECT_NE(e.find("`" + missing + "`"), std::string::npos) << e;
    EXPECT_NE(e.find("unknown `nobody.knows.it`"), std::string::npos) << e;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, Golden,
                         testing::Values("llama3", "llama_linear", "llama_yarn", "llama_longrope", "mistral", "qwen2",
                                         "qwen3", "gpt2", "mamba", "mamba2", "rwkv7", "bert", "bamba", "gla",
                                         "gated_deltanet"),
                         [](const auto& i) { return i.param; });

TEST(Families, AnyModelOfOursGoesThroughGguf) {
  TempFolder dir;
  Model model = hybrid();
  StoredModel stored{.model_file = write_model_spec(model.spec()),
                     .tensors = {},
                     .path = "test",
                     .origin = "",
                     .context_length = 0,
                     .uses = {},
                     .unread = {},
                     .gguf = {}};
  model.parameters([&](const std::string& name, Parameter& p) { stored.tensors[name] = io::stored(p.value()); });
  export_model(stored, dir / "m.gguf",
               {.container = Container::gguf, .weights = {}, .vocabulary = gguf_vocabulary(nullptr, 60)});
  const auto back = make_model(read_stored_model(dir / "m.gguf"));
  const auto tokens = some_tokens(30);
  EXPECT_TRUE(same_bits(logits_of(model, tokens).span(), logits_of(*back, tokens).span()));
  EXPECT_NE(error_of([&] {
              export_model(stored, dir.path(),
                           {.container = Container::huggingface, .weights = {}, .vocabulary = io::GgufMetadata()});
            }).find("family llama"),
            std::string::npos);
}

// A model that fits quantized may not fit as floats.
TEST(Families, QuantizedMatricesAreLoadedWithoutRoomForFloats) {
  const Json file = {{"vocab", 4096}, {"d_model", 256}, {"blocks", {{{"mixer", "softmax"}, {"channel", "swiglu"}}}}};
  StoredModel stored{.model_file = write_model_spec(read_model_spec(file, "test")),
                     .tensors = {},
                     .path = "test",
                     .origin = "",
                     .uses = {},
                     .unread = {},
                     .gguf = {}};
  int64_t kept = 0;
  {
    Model model(read_model_spec(file, "test"), Rng(1), "test");
    model.parameters([&](const std::string& name, Parameter& p) {
      io::StoredTensor t = io::stored(p.value());
      if (p.quantizable) t = io::encoded(t, io::BlockFormat::q4_0);
      kept += p.quantizable ? p.value().elements() * 5 / 8 : p.value().bytes();
      stored.tensors[name] = t;
    });
  }
  reset_memory_peak();
  const int64_t before = memory_counters().live;
  const auto model = make_model(stored);
  EXPECT_LT(memory_counters().peak - before, kept + kept / 10);
}

TEST(Families, BadConfigsAreOneError) {
  TempFolder dir;
  const auto says = [&](const Json& change, const std::string& words) {
    Json config = io::read_json_file((kGolden / "llama3" / "config.json").string());
    config.update(change);
    io::write_json_file(dir / "config.json", config);
    fs::copy_file(kGolden / "llama3" / "model.safetensors", dir / "model.safetensors",
                  fs::copy_options::overwrite_existing);
    const std::string e = error_of([&] { read_stored_model(dir.path()); });
    EXPECT_NE(e.find(words), std::string::npos) << e;
    EXPECT_NE(e.find(dir.path()), std::string::npos) << e;
  };
  says({{"model_type", "gpt7"}}, "`model_type` to be one of");
  says({{"num_attention_heads", 0}}, "`num_attention_heads` to be at least 1");
  says({{"num_hidden_layers", 1e9}}, "`num_hidden_layers`");
  says({{"num_hidden_layers", -1}}, "`num_hidden_layers`");
  says({{"hidden_act", "swish9"}}, "`hidden_act` to be silu");
  says({{"rope_scaling", {{"rope_type", "spiral"}}}}, "`rope_type` to be default");
  says({{"rope_scaling", {{"rope_type", "linear"}, {"factor", 2}, {"twist", 1}}}}, "`twist` to be absent");
  says({{"hidden_size", 20}}, "tensor");
  says({{"vocab_size", "many"}}, "`vocab_size` to be a whole number");
}

TEST(Families, InfinityIsReadInBothForms) {
  const Json v4 = io::parse_json(R"({"a": Infinity})", "t", {.non_finite = true}),
             v5 = io::parse_json(R"({"a": {"__float__": "Infinity"}})", "t");
  Config first(v4, "t"), second(v5, "t");
  EXPECT_EQ(first.number("a", 0), INFINITY);
  EXPECT_EQ(second.number("a", 0), INFINITY);
}

TEST(RopeScaling, DynamicIsPlainUpToItsLengthAndStretchedBeyond) {
  RopeScaling s{
      .kind = "dynamic", .factor = 4, .original = 100, .length = 100, .short_factors = {}, .long_factors = {}};
  const auto plain = rope_frequencies(8, 10000, {});
  EXPECT_EQ(rope_frequencies(8, 10000, s), plain);
  s.length = 300;
  const double base = 10000 * std::pow(4 * 300.0 / 100 - 3, 8.0 / 6);
  const auto stretched = rope_frequencies(8, 10000, s);
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(stretched[i], std::pow(base, -i / 4.0), 1e-12);
}

TEST(RopeScaling, LongRopeTakesTheFactorsForItsLength) {
  RopeScaling s{
      .kind = "longrope", .factor = 4, .original = 100, .length = 0, .short_factors = {1, 2}, .long_factors = {3, 4}};
  EXPECT_EQ(rope_frequencies(4, 100, s), (std::vector<double>{1, 0.05}));
  s.length = 101;
  EXPECT_EQ(rope_frequencies(4, 100, s)[1], 0.1 / 4);
}

}  // namespace sennit::families_test
