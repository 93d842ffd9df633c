// NPRF-RPE (Luo et al., arXiv:2106.12566): kernel attention with relative positions is the plain one where all biases
// are zero, its biases learn, and its time grows little faster than the sequence.
#include <gtest/gtest.h>

#include "nn/init.h"
#include "ops/arithmetic.h"
#include "ops/products.h"
#include "support/mixer_timing.h"

namespace sennit::systems_p007_test {

constexpr int64_t kDim = 32, kHeads = 4, kHead = kDim / kHeads;

// phi of one map's rows in double, [N, heads features].
std::vector<double> features_of(Mixer& mixer, const Tensor& x, const char* map, const Tensor& directions) {
  const Tensor y = matmul(Var(x), parameter_of(mixer, map), {.transpose_b = true}).value();
  const double r = std::pow(double{kHead}, 0.25);
  std::vector<double> phi;
  for (int64_t i = 0; i < x.rows() * kHeads; ++i) {
    const float* row = y.data() + i * kHead;
    double square = 0;
    for (int64_t c = 0; c < kHead; ++c) square += double{row[c]} * row[c];
    for (int64_t f = 0; f < directions.rows(); ++f) {
      double s = 0;
      for (int64_t c = 0; c < kHead; ++c) s += double{row[c]} * directions.data()[f * kHead + c];
      phi.push_back(std::exp(r * s / std::sqrt(square) - r * r / 2));
    }
  }
  return phi;
}

TEST(SystemsP007, TransformsAreTheSum) {
  NoGrad off;
  auto mixer = make_mixer({{"name", "nprf"}, {"length", 1024}, {"features", 4}}, 32);
  const Tensor x = normal_rows(700, 32, 5);
  const Context fast, exact{.exact = true};
  const Segment whole[] = {{0, 700, 0, nullptr}};
  for (const Pattern p : {Pattern::causal, Pattern::bidirectional})
    EXPECT_LE(most_apart(mixer->forward(Var(x), {whole, &fast, p}).value(),
                         mixer->forward(Var(x), {whole, &exact, p}).value()),
              1e-4);
}

// Weights are non-negative and sum to one, and come nearer to the softmax of unit queries and keys with more features.
TEST(SystemsP007, MoreFeaturesEstimateTheSoftmaxBetter) {
  NoGrad off;
  double wrong[2];
  for (const bool many : {false, true}) {
    std::vector<double> errors;
    for (uint64_t seed = 1; seed <= 6; ++seed) {
      auto mixer = make_mixer({{"name", "nprf"}, {"features", many ? 4096 : 512}}, 32, seed);
      parameter_of(*mixer, "bias").var.value().fill(0);
      const Tensor x = normal_rows(40, 32, 6);
      const auto m = mixer->implicit(Var(x), {});
      const Tensor q = matmul(Var(x), parameter_of(*mixer, "q.weight").var, {.transpose_b = true}).value();
      const Tensor k = matmul(Var(x), parameter_of(*mixer, "k.weight").var, {.transpose_b = true}).value();
      for (int64_t h = 0; h < 4; ++h)
        for (int64_t i = 0; i < 40; ++i) {
          std::vector<double> exact(i + 1);
          double sum = 0, said = 0;
          for (int64_t j = 0; j <= i; ++j) {
            double s = 0, qq = 0, kk = 0;
            for (int64_t c = h * 8; c < h * 8 + 8; ++c) {
              const double a = q.data()[i * 32 + c], b = k.data()[j * 32 + c];
              s += a * b, qq += a * a, kk += b * b;
            }
            sum += exact[j] = std::exp(std::sqrt(8.0) * s / std::sqrt(qq * kk));
          }
          for (int64_t j = 0; j <= i; ++j) {
            const double w = m->weights.data()[(h * 40 + i) * 40 + j];
            ASSERT_GE(w, 0);
            said += w;
            errors.push_back(std::fabs(w * sum / exact[j] - 1));
          }
          ASSERT_NEAR(said, 1, 1e-5);
        }
    }
    std::nth_element(errors.begin(), errors.begin() + std::ssize(errors) / 2, errors.end());
    wrong[many] = errors[errors.size() / 2];
  }
  EXPECT_NEAR(wrong[0] / wrong[1], 2.8, 1);  // sqrt(4096 / 512)
}

TEST(SystemsP007, BiasesOfZeroArePlainKernelAttention) {
  NoGrad off;
  const int64_t n = 200, features = 16;
  auto mixer = make_mixer({{"name", "nprf"}, {"features", features}}, kDim);
  parameter_of(*mixer, "bias").var.value().fill(0);
  const Tensor x = normal_rows(n, kDim, 5), directions = normal_init({features, kHead}, 1, Rng(1).fork("directions"));
  const auto q = features_of(*mixer, x, "q.weight", directions), k = features_of(*mixer, x, "k.weight", directions);
  const Tensor v = matmul(Var(x), parameter_of(*mixer, "v.weight"), {.transpose_b = true}).value();
  for (const Pattern pattern : {Pattern::causal, Pattern::bidirectional}) {
    Tensor core({n, kDim});
    for (int64_t i = 0; i < n; ++i)
      for (int64_t h = 0; h < kHeads; ++h) {
        double total = 0, sums[kHead] = {};
        for (int64_t j = 0; j < (pattern == Pattern::causal ? i + 1 : n); ++j) {
          double weight = 0;
          for (int64_t f = 0; f < features; ++f)
            weight += q[static_cast<size_t>((i * kHeads + h) * features + f)] *
                      k[static_cast<size_t>((j * kHeads + h) * features + f)];
          total += weight;
          for (int64_t c = 0; c < kHead; ++c) sums[c] += weight * v.data()[j * kDim + h * kHead + c];
        }
        for (int64_t c = 0; c < kHead; ++c) core.data()[i * kDim + h * kHead + c] = static_cast<float>(sums[c] / total);
      }
    EXPECT_LE(most_apart(run_alone(*mixer, x, nullptr, pattern), mixer->output(Var(x), Var(core), {}).value()), 1e-5);
  }
}

TEST(SystemsP007, BiasesHaveTheGradientsOfFiniteDifferences) {
  const int64_t n = 40, length = 24;
  auto mixer = make_mixer({{"name", "nprf"}, {"length", length}}, kDim);
  const Tensor x = normal_rows(n, kDim, 6), dy = normal_rows(n, kDim, 7);
  const Context context;
  const Segment whole[] = {{0, n, 0, nullptr}};
  const Batch batch{whole, &context, Pattern::bidirectional};
  backward(mixer->forward(Var(x), batch), dy);
  Parameter& bias = parameter_of(*mixer, "bias");
  const Tensor slope = bias.var.grad().clone();
  const auto value = [&] {
    NoGrad off;
    const Tensor y = mixer->forward(Var(x), batch).value();
    double sum = 0;
    for (int64_t i = 0; i < y.elements(); ++i) sum += double{y.data()[i]} * dy.data()[i];
    return sum;
  };
  double largest = 0;
  for (const float g : slope.span()) largest = std::max(largest, std::fabs(double{g}));
  for (int64_t i = 0; i < slope.elements(); i += 5) {
    float& b = bias.var.value().data()[i];
    const float before = b, step = 0.02f;
    b = before + step;
    const double above = value();
    b = before - step;
    const double below = value();
    b = before;
    EXPECT_NEAR((above - below) / (2 * step), slope.data()[i], 1e-3 * largest) << i;
  }
}

// The sum as it stands, 512 queries at a time: two products of matrices, and the weights of distances between them.
void explicit_sum(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<float>& weight) {
  constexpr int64_t kBlock = 512;
  for (int64_t from = 0; from < q.rows(); from += kBlock) {
    const int64_t seen = from + kBlock;
    Tensor scores = matmul(Var(q.slice(from, kBlock)), Var(k.slice(0, seen)), {.transpose_b = true}).value();
    for (int64_t i = 0; i < kBlock; ++i) {
      float* row = scores.data() + i * seen;
      const float* w = weight.data() + (q.rows() - 1 - from - i);
      for (int64_t j = 0; j <= from + i; ++j) row[j] *= w[j];
      std::fill(row + from + i + 1, row + seen, 0.0f);
    }
    matmul(Var(scores), Var(v.slice(0, seen)));
  }
}

// One head of 64 numbers and 64 features.
TEST(SpeedP007, TimeGrowsLittleFasterThanTheSequence) {
  NoGrad off;
  constexpr int64_t kWide = 64, kShort = 4096, kLong = 32768;
  auto mixer = make_mixer({{"name", "nprf"}, {"heads", 1}, {"features", kWide}, {"length", kLong}}, kWide);
  const auto transforms = [&](int64_t n) { return [&, x = normal_rows(n, kWide, 1)] { run_alone(*mixer, x); }; };
  const double growth = processor_ratio(1, transforms(kLong), transforms(kShort));
  const auto sums = [&](int64_t n) {
    return [q = normal_rows(n, kWide, 2), k = normal_rows(n, kWide, 3), v = normal_rows(n, kWide + 1, 4),
            weight = std::vector<float>(static_cast<size_t>(n), 1.01f)] { explicit_sum(q, k, v, weight); };
  };
  const double plain_growth = processor_ratio(1, sums(kLong), sums(kShort)),
               apart = processor_ratio(1, transforms(kLong), sums(kLong));
  const double exponent = std::log2(growth) / 3, plain_exponent = std::log2(plain_growth) / 3;
  const double crossover = kLong * std::pow(apart, 1 / (plain_exponent - exponent));
  std::printf("exponents %.3f, of the explicit sum %.3f; %.2f times its time at %lld tokens, equal at about %.0f\n",
              exponent, plain_exponent, apart, static_cast<long long>(kLong), crossover);
  EXPECT_LE(exponent, 1.25);
  EXPECT_GE(plain_exponent, 1.75);
}

}  // namespace sennit::systems_p007_test
