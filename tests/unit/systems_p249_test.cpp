// Linformer (Wang et al., arXiv:2006.04768): keys and values mixed to a few summaries.
#include <gtest/gtest.h>

#include "base/error.h"
#include "blocks/pair.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "support/language.h"
#include "support/mixer_timing.h"

namespace sennit::systems_p249_test {

constexpr Pattern kBoth = Pattern::bidirectional;

TEST(SystemsP249, IdentityMixingIsDenseSoftmax) {
  constexpr int64_t kRows = 40;
  auto linformer = make_mixer({{"name", "linformer"}, {"summaries", kRows}, {"length", kRows}, {"share", "all"}}, 32);
  auto softmax = make_mixer({{"name", "softmax"}, {"position", "none"}}, 32, 2);
  copy_parameters(*linformer, *softmax, {"q.weight", "k.weight", "v.weight", "out.weight"});
  Tensor& e = parameter_of(*linformer, "e").var.value();
  e.fill(0);
  for (int64_t i = 0; i < kRows; ++i) e.data()[i * kRows + i] = 1;
  const Tensor x = normal_rows(kRows, 32, 14);
  EXPECT_LE(most_apart(run_alone(*linformer, x, nullptr, kBoth), run_alone(*softmax, x, nullptr, kBoth)), 1e-6);
}

Model encoder(const Json& mixers, uint64_t seed = 1) {
  Json blocks = Json::array();
  for (const Json& mixer : mixers) blocks.push_back({{"mixer", mixer}, {"channel", "mlp"}});
  const Json file{{"vocab", 30}, {"d_model", 32}, {"pattern", "bidirectional"}, {"blocks", blocks}};
  return Model(read_model_spec(file, "test"), Rng(seed), "test");
}
Json sharing(const char* share, int64_t length = 100) {
  return {{"name", "linformer"}, {"heads", 4}, {"summaries", 8}, {"length", length}, {"share", share}};
}

TEST(SystemsP249, SharingChangesTheCount) {
  constexpr int64_t kHeads = 4, kBlocks = 3, kMatrix = 8 * 100;
  const int64_t rest = encoder(Json::array({"softmax", "softmax", "softmax"})).parameter_count();
  const auto count = [&](const char* share) {
    return encoder(Json::array({sharing(share), sharing(share), sharing(share)})).parameter_count() - rest;
  };
  EXPECT_EQ(count("none"), kMatrix * 2 * kHeads * kBlocks);
  EXPECT_EQ(count("heads"), kMatrix * 2 * kBlocks);
  EXPECT_EQ(count("all"), kMatrix * kBlocks);
  EXPECT_EQ(count("layers"), kMatrix);
}

// One matrix for all blocks is a matrix in each of them, of equal numbers, whose gradients come together.
TEST(SystemsP249, AMatrixOfAllBlocksIsTheSameInEach) {
  Model one = encoder(Json::array({sharing("layers"), sharing("layers")})),
        each = encoder(Json::array({sharing("all"), sharing("all")}), 2);
  std::map<std::string, Parameter*> from, to;
  one.parameters([&](const std::string& name, Parameter& p) { from[name] = &p; });
  each.parameters([&](const std::string& name, Parameter& p) { to[name] = &p; });
  ASSERT_EQ(from.count("blocks.1.mixer.e"), 0u);
  for (auto& [name, p] : to) {
    p->var.value().copy_from((name == "blocks.1.mixer.e" ? from.at("blocks.0.mixer.e") : from.at(name))->value());
    ++p->version;
  }
  std::vector<int32_t> tokens;
  for (int32_t t = 0; t < 60; ++t) tokens.push_back(t * t % 30);
  const Segment whole[] = {{0, 60, 0, nullptr}};
  const Context context;
  const auto loss = [&](Model& m) { return m.loss(m.hidden(tokens, {whole, &context, kBoth}), tokens, context); };
  const Var a = loss(one), b = loss(each);
  EXPECT_EQ(a.value().data()[0], b.value().data()[0]);
  backward(a), backward(b);
  Tensor sum = to.at("blocks.0.mixer.e")->var.grad().clone();
  const Tensor& more = to.at("blocks.1.mixer.e")->var.grad();
  for (int64_t i = 0; i < sum.elements(); ++i) sum.data()[i] += more.data()[i];
  EXPECT_LE(most_apart(from.at("blocks.0.mixer.e")->var.grad(), sum), 1e-5);
}

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}
TEST(SystemsP249, RefusesWhatItCannotDo) {
  auto mixer = make_mixer({{"name", "linformer"}, {"length", 20}}, 32);
  EXPECT_NE(error_of([&] { run_alone(*mixer, normal_rows(5, 32, 15)); }).find("causal"), std::string::npos);
  EXPECT_NE(error_of([&] { run_alone(*mixer, normal_rows(21, 32, 15), nullptr, kBoth); }).find("length = 20"),
            std::string::npos);
  EXPECT_NE(error_of([] {
              encoder(Json::array({sharing("layers"), sharing("layers", 50)}));
            }).find("[8, 100]"),
            std::string::npos);
}

// The eigenvalues of a symmetric matrix [n, n]: to three diagonals by reflections, then by counting sign changes.
std::vector<double> symmetric_eigenvalues(std::vector<double> a, int64_t n) {
  const auto at = [&](int64_t i, int64_t j) -> double& { return a[static_cast<size_t>(i * n + j)]; };
  for (int64_t k = 0; k + 2 < n; ++k) {
    std::vector<double> v(static_cast<size_t>(n)), p(v.size());
    double squares = 0;
    for (int64_t i = k + 1; i < n; ++i) v[i] = at(i, k), squares += v[i] * v[i];
    if (squares == 0) continue;
    v[k + 1] += std::copysign(std::sqrt(squares), v[k + 1]);
    double size = 0, met = 0;
    for (int64_t i = k + 1; i < n; ++i) size += v[i] * v[i];
    for (int64_t i = k; i < n; ++i) {
      for (int64_t j = k + 1; j < n; ++j) p[i] += at(i, j) * v[j];
      p[i] *= 2 / size;
      met += p[i] * v[i];
    }
    for (int64_t i = k; i < n; ++i) p[i] -= met / size * v[i];
    for (int64_t i = k; i < n; ++i)
      for (int64_t j = k; j < n; ++j) at(i, j) -= v[i] * p[j] + p[i] * v[j];
  }
  double most = 0;
  for (int64_t i = 0; i < n; ++i)
    most = std::max(
        most, std::fabs(at(i, i)) + (i ? std::fabs(at(i, i - 1)) : 0) + (i + 1 < n ? std::fabs(at(i + 1, i)) : 0));
  std::vector<double> values;
  for (int64_t wanted = 0; wanted < n; ++wanted) {  // so many are larger
    double low = -most, high = most;
    for (int step = 0; step < 60; ++step) {
      const double middle = (low + high) / 2;
      int64_t larger = 0;
      double pivot = 1;
      for (int64_t i = 0; i < n; ++i) {
        pivot = at(i, i) - middle - (i ? at(i, i - 1) * at(i, i - 1) / pivot : 0);
        if (pivot == 0) pivot = 1e-300;
        larger += pivot > 0;
      }
      (larger > wanted ? low : high) = middle;
    }
    values.push_back((low + high) / 2);
  }
  return values;
}

TEST(SystemsP249, EigenvaluesOfAKnownMatrix) {
  constexpr int64_t kSize = 12;  // second differences: 2 - 2 cos(pi i / (n + 1)), in a turned basis
  std::vector<double> a(kSize * kSize);
  for (int64_t i = 0; i < kSize; ++i)
    for (int64_t j = 0; j < kSize; ++j)
      for (int64_t k = 1; k <= kSize; ++k) {
        const auto wave = [&](int64_t t) {
          return std::sqrt(2.0 / (kSize + 1)) * std::sin(M_PI * static_cast<double>(k * (t + 1)) / (kSize + 1));
        };
        a[i * kSize + j] += static_cast<double>(k) * wave(i) * wave(j);
      }
  const auto values = symmetric_eigenvalues(a, kSize);
  for (int64_t k = 0; k < kSize; ++k) EXPECT_NEAR(values[k], static_cast<double>(kSize - k), 1e-9);
}

// The singular values of a matrix [n, n], falling.
std::vector<double> singular_values(const float* p, int64_t n) {
  std::vector<double> square(static_cast<size_t>(n * n));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t k = 0; k < n; ++k) square[i * n + j] += double{p[i * n + k]} * p[j * n + k];
  std::vector<double> values = symmetric_eigenvalues(std::move(square), n);
  for (double& v : values) v = std::sqrt(std::max(0.0, v));
  return values;
}
// The share of their squares that the first `rank` have.
double energy(const std::vector<double>& values, int64_t rank) {
  double all = 0, first = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    all += values[i] * values[i];
    if (static_cast<int64_t>(i) < rank) first = all;
  }
  return first / all;
}

// Texts of a language of 32 letters, each of 4 letters of its own, in which some letters are hidden and asked.
constexpr int32_t kLetters = 32, kMask = kLetters;
constexpr int64_t kLength = 512, kSummaries = 128;
trained::Rows texts_with_gaps(int64_t count, Rng rng) {
  trained::Rows rows;
  for (int64_t i = 0; i < count; ++i) {
    std::vector<int32_t> own, tokens, targets;
    while (own.size() < 4) own.push_back(static_cast<int32_t>(rng.below(kLetters)));
    for (int64_t t = 0; t < kLength; ++t) {
      const int32_t letter = own[static_cast<size_t>(rng.below(4))];
      const bool hidden = rng.uniform() < 0.15;
      tokens.push_back(hidden ? kMask : letter), targets.push_back(hidden ? letter : data::kIgnored);
    }
    rows.add(tokens, targets);
  }
  return rows;
}

trained::Trainee trained_encoder(const Json& mixer) {
  Json file = trained::two_blocks(mixer, 64);
  file["vocab"] = kLetters + 1, file["pattern"] = "bidirectional", file["learned_positions"] = kLength;
  trained::Trainee trainee(file, {.steps = 300, .rate = 5e-3, .pattern = kBoth});
  trainee.train([&](int64_t, Rng rng) { return texts_with_gaps(4, rng); });
  return trainee;
}

// What the attention of each block is of the first kept text.
std::vector<Tensor> attention_of(Model& model, const trained::Rows& rows) {
  NoGrad off;
  const Context context;
  const Segment whole[] = {{0, kLength, 0, nullptr}};
  std::map<std::string, Tensor> tables;
  model.parameters([&](const std::string& name, Parameter& p) { tables[name] = p.value(); });
  const auto first = std::span(rows.tokens).first(kLength);
  Var x = embedding(Var(tables.at("embedding.weight")), first) + Var(tables.at("positions.weight"));
  std::vector<Tensor> all;
  for (auto& block : model.blocks()) {
    auto& pair = dynamic_cast<blocks::Pair&>(*block);
    all.push_back(pair.mixer->implicit(pair.mixer_norm->forward(x), context)->weights);
    x = block->forward(x, {whole, &context, kBoth});
  }
  return all;
}

// A letter that is hidden is one of the text's four, ln 4 = 1.39 nats, as only the other tokens tell; of all it is one
// of ln 32 = 3.47.
TEST(SystemsP249, TrainedToFillGaps) {
  const trained::Rows kept = texts_with_gaps(16, Rng(9));
  trained::Trainee dense = trained_encoder(trained::kSoftmax);
  const double want = dense.loss(kept);
  trained::Trainee linear = trained_encoder({{"name", "linformer"}, {"summaries", kSummaries}, {"length", kLength}});
  const double loss = linear.loss(kept);
  std::printf("dense attention %.4f nats, linformer %.4f\n", want, loss);
  EXPECT_LE(want, std::log(32.0) - 1);
  EXPECT_LE(loss, want + 0.1);
  for (const Tensor& heads : attention_of(dense.model(), kept))
    for (int64_t h = 0; h < heads.shape(0); ++h) {
      const std::vector<double> values = singular_values(heads.data() + h * kLength * kLength, kLength);
      std::printf("energy of the largest singular values of %d:", static_cast<int>(kLength));
      for (const int64_t rank : {1, 8, 32, 64, 128, 256})
        std::printf(" %d: %.4f", static_cast<int>(rank), energy(values, rank));
      std::printf("\n");
      EXPECT_GE(energy(values, kSummaries), 0.9);
    }
}

TEST(SpeedP249, TimeIsLinearAndATenthOfAttention) {
  constexpr int64_t kLong = 16384;
  const Json linformer{{"name", "linformer"}, {"summaries", 128}, {"length", kLong}};
  const double growth = time_ratio(linformer, 64, kLong, kLong / 4, kBoth),
               share = time_against(linformer, "softmax", 64, kLong, kBoth);
  std::printf("16k tokens take %.2f times 4k, and %.3f of dense attention\n", growth, share);
  EXPECT_GE(growth, 3.6);
  EXPECT_LE(growth, 4.5);
  EXPECT_LE(share, 0.1);
}

}  // namespace sennit::systems_p249_test
