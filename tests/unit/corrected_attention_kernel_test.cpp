#include <gtest/gtest.h>

#include "kernels/corrected_attention.h"
#include "support/gradients.h"
#include "support/levels.h"

namespace sennit::corrected_attention_kernel_test {

using Doubles = std::vector<double>;
constexpr double kScale = 0.4;

struct Inputs {
  Doubles q, b, mean, log_sum, k, v, a;
};
struct Shape {
  int64_t keys, dim, features;
  std::vector<int32_t> listed;
};

Doubles naive(const Shape& s, const Inputs& in) {
  Doubles o(s.dim);
  double total = s.features ? std::exp(in.log_sum[0]) : 0;
  for (int64_t c = 0; c < s.dim; ++c) o[c] = total * in.mean[c];
  for (const int32_t j : s.listed) {
    double score = 0, estimate = 0;
    for (int64_t c = 0; c < s.dim; ++c) score += kScale * in.q[c] * in.k[j * s.dim + c];
    for (int64_t r = 0; r < s.features; ++r) estimate += std::exp(in.b[r] + in.a[j * s.features + r]);
    const double weight = std::exp(score) - estimate;
    total += weight;
    for (int64_t c = 0; c < s.dim; ++c) o[c] += weight * in.v[j * s.dim + c];
  }
  for (double& x : o) x /= total;
  return o;
}

TEST(CorrectedAttentionKernel, IsTheSumAndItsGradientsAreDifferences) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (const Shape& s : {Shape{1, 3, 5, {0}}, Shape{9, 8, 16, {1, 2, 7}}, Shape{12, 17, 3, {0, 4, 5, 11}},
                           Shape{4, 5, 0, {2, 3}}, Shape{6, 9, 7, {}}}) {
      const Fenced q = Fenced::normal(rng, s.dim), b = Fenced::uniform(rng, s.features, -4, -2),
                   mean = Fenced::normal(rng, s.dim);
      const Fenced k = Fenced::normal(rng, s.keys * s.dim), v = Fenced::normal(rng, s.keys * s.dim),
                   a = Fenced::uniform(rng, s.keys * s.features, -2, 0);
      // As much as all keys' estimates together, or more.
      Fenced log_sum(1, s.features ? 3 : -INFINITY);
      const Inputs in{q.doubles(), b.doubles(), mean.doubles(), log_sum.doubles(),
                      k.doubles(), v.doubles(), a.doubles()};
      const kernels::CorrectedTask task{.k = k.data(),
                                        .v = v.data(),
                                        .a = a.data(),
                                        .k_stride = s.dim,
                                        .v_stride = s.dim,
                                        .a_stride = s.features,
                                        .key_dim = s.dim,
                                        .value_dim = s.dim,
                                        .features = s.features,
                                        .scale = static_cast<float>(kScale)};
      const kernels::CorrectedRow row{.q = q.data(),
                                      .b = b.data(),
                                      .mean = mean.data(),
                                      .log_sum = log_sum[0],
                                      .keys = s.listed.data(),
                                      .count = std::ssize(s.listed)};
      Fenced o(s.dim), scratch(row.count);
      float top = 0, total = 0;
      kernels::corrected_attention().forward(task, row, o.data(), &top, &total, scratch.data());
      ASSERT_TRUE(o.intact() && scratch.intact());
      const Doubles want = naive(s, in);
      for (int64_t c = 0; c < s.dim; ++c) ASSERT_NEAR(o[c], want[c], 2e-5 * (1 + std::abs(want[c])));

      const Fenced d_o = Fenced::normal(rng, s.dim);
      Fenced dq(q.size(), 1), db(b.size(), 1), dmean(mean.size(), 1), dsum(1, 1), dk(k.size(), 1), dv(v.size(), 1),
          da(a.size(), 1);
      kernels::corrected_attention().backward(
          task, row, o.data(), d_o.data(), top, total,
          {dq.data(), db.data(), dmean.data(), dsum.data(), dk.data(), dv.data(), da.data()});
      const auto loss = losses(
          in, [&](const Inputs& at) { return naive(s, at); }, d_o);
      expect_gradient("dq", loss(&Inputs::q), in.q, dq, 2e-4, rng, 1);
      expect_gradient("db", loss(&Inputs::b), in.b, db, 2e-4, rng, 1);
      expect_gradient("dmean", loss(&Inputs::mean), in.mean, dmean, 2e-4, rng, 1);
      expect_gradient("dk", loss(&Inputs::k), in.k, dk, 2e-4, rng, 1);
      expect_gradient("dv", loss(&Inputs::v), in.v, dv, 2e-4, rng, 1);
      expect_gradient("da", loss(&Inputs::a), in.a, da, 2e-4, rng, 1);
      if (s.features) expect_gradient("dlog_sum", loss(&Inputs::log_sum), in.log_sum, dsum, 2e-4, rng, 1);
    }
  });
}

}  // namespace sennit::corrected_attention_kernel_test
