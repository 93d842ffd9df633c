// What the papers on other forms of attention promise: URPE (P006), and attention with fewer matrices (P295).
#include <gtest/gtest.h>

#include "ops/arithmetic.h"
#include "ops/products.h"
#include "sequence/attention.h"
#include "support/mixers.h"

namespace sennit::systems_attention_mixers_test {

const std::vector<std::string> kMaps = {"q.weight", "k.weight", "v.weight", "out.weight"};

TEST(SystemsP006, GainsOfOneChangeNothing) {
  auto urpe = make_mixer("urpe", 32), plain = make_mixer({{"name", "urpe"}, {"gains", false}}, 32, 2);
  copy_parameters(*urpe, *plain, kMaps);
  const Tensor x = normal_rows(100, 32, 1);
  EXPECT_TRUE(same_numbers(run_alone(*urpe, x), run_alone(*plain, x)));
  EXPECT_EQ(urpe->parameter_count() - plain->parameter_count(), 4 * (2 * 128 - 1));
}

TEST(SystemsP006, BiasesOfAlibiAreAlibi) {
  auto urpe = make_mixer("urpe", 32), alibi = make_mixer({{"name", "softmax"}, {"position", "alibi"}}, 32, 2);
  copy_parameters(*urpe, *alibi, kMaps);
  Tensor& b = parameter_of(*urpe, "bias").var.value();
  for (int64_t l = 0; l < 255; ++l)
    for (int64_t h = 0; h < 4; ++h)
      b.data()[l * 4 + h] = -std::exp2(-2.0f * static_cast<float>(h + 1)) * std::fabs(static_cast<float>(l - 127));
  const Tensor x = normal_rows(100, 32, 2);
  for (const Pattern p : {Pattern::causal, Pattern::bidirectional})
    EXPECT_LE(most_apart(run_alone(*urpe, x, nullptr, p), run_alone(*alibi, x, nullptr, p)), 1e-5);
}

// Equal tokens: with biases every token says the same, with gains it says where it stands.
TEST(SystemsP006, GainsTellEqualTokensApart) {
  Rng rng(3);
  for (const bool gains : {false, true}) {
    auto mixer = make_mixer({{"name", "urpe"}, {"gains", gains}}, 32);
    for (float& v : parameter_of(*mixer, "bias").var.value().span()) v = static_cast<float>(rng.normal());
    if (gains)
      for (float& v : parameter_of(*mixer, "gain").var.value().span()) v = static_cast<float>(rng.normal());
    Tensor x({64, 32});
    const Tensor row = normal_rows(1, 32, 4);
    for (int64_t t = 0; t < 64; ++t) x.slice(t, 1).copy_from(row);
    const Tensor y = run_alone(*mixer, x, nullptr, Pattern::bidirectional);
    double apart = 0;
    for (int64_t t = 1; t < 64; ++t) apart = std::max(apart, most_apart(y.slice(t, 1), y.slice(0, 1)));
    if (gains)
      EXPECT_GE(apart, 1e-2);
    else
      EXPECT_LE(apart, 1e-6);
  }
}

TEST(SystemsP295, ACollapsedMatrixGivesTheSameScores) {
  NoGrad off;
  auto separate = make_mixer({{"name", "minimal"}, {"scores", "separate"}, {"heads", 2}}, 32),
       collapsed = make_mixer({{"name", "minimal"}, {"heads", 2}}, 32);
  const Tensor q = parameter_of(*separate, "q.weight").value(), k = parameter_of(*separate, "k.weight").value();
  Tensor& w = parameter_of(*collapsed, "q.weight").var.value();  // [2 32, 32]: row (h, j) of W_h^T
  w.fill(0);
  for (int64_t h = 0; h < 2; ++h)
    for (int64_t j = 0; j < 32; ++j)
      for (int64_t i = 0; i < 32; ++i)
        for (int64_t p = h * 16; p < h * 16 + 16; ++p)
          w.data()[(h * 32 + j) * 32 + i] += k.data()[p * 32 + j] * q.data()[p * 32 + i];
  const Tensor x = normal_rows(70, 32, 17);
  EXPECT_LE(most_apart(run_alone(*collapsed, x), run_alone(*separate, x)), 1e-5);
}

TEST(SystemsP295, OneMatrixForValuesAndOutputs) {
  const auto one_head = [](bool outputs) {
    return make_mixer({{"name", "minimal"}, {"values", true}, {"outputs", outputs}, {"heads", 1}}, 32);
  };
  auto separate = one_head(true), collapsed = one_head(false);
  copy_parameters(*separate, *collapsed, {"q.weight"});
  const Var v(parameter_of(*separate, "v.weight").value()), out(parameter_of(*separate, "out.weight").value());
  parameter_of(*collapsed, "v.weight").var.value().copy_from(matmul(out, v).value());
  const Tensor x = normal_rows(70, 32, 17);
  EXPECT_LE(most_apart(run_alone(*collapsed, x), run_alone(*separate, x)), 1e-5);
}

TEST(SystemsP295, SymmetricScores) {
  NoGrad off;
  auto mixer = make_mixer({{"name", "minimal"}, {"scores", "symmetric"}, {"heads", 1}}, 32);
  const auto weights = [&](const Tensor& x) { return mixer->implicit(Var(x), {})->weights; };
  // Of two tokens, the second's weights in one order tell s_21 - s_22, in the other s_12 - s_11.
  const Tensor x = normal_rows(2, 32, 18);
  Tensor y({2, 32});
  y.slice(0, 1).copy_from(x.slice(1, 1)), y.slice(1, 1).copy_from(x.slice(0, 1));
  const Tensor a = weights(x), b = weights(y),
               q = matmul(Var(x), parameter_of(*mixer, "q.weight").var, {.transpose_b = true}).value();
  double s11 = 0, s22 = 0;
  for (int64_t p = 0; p < 32; ++p)
    s11 += double{q.data()[p]} * q.data()[p] / std::sqrt(32.0),
        s22 += double{q.data()[32 + p]} * q.data()[32 + p] / std::sqrt(32.0);
  EXPECT_NEAR(std::log(a.data()[2] / a.data()[3]) + s22, std::log(b.data()[2] / b.data()[3]) + s11, 1e-4);
}

TEST(SystemsP295, CountsAreClosedForms) {
  const auto count = [](const char* scores, bool values, bool outputs = true) {
    return make_mixer({{"name", "minimal"}, {"scores", scores}, {"values", values}, {"outputs", outputs}, {"heads", 4}},
                      32)
        ->parameter_count();
  };
  constexpr int64_t kSquare = 32 * 32;
  EXPECT_EQ(count("separate", true), 4 * kSquare);
  EXPECT_EQ(count("separate", true, false), 3 * kSquare);
  EXPECT_EQ(count("separate", false), 2 * kSquare);
  EXPECT_EQ(count("symmetric", false), kSquare);
  EXPECT_EQ(count("collapsed", false), 4 * kSquare);  // a matrix a head
}

}  // namespace sennit::systems_attention_mixers_test
