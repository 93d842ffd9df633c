#include <gtest/gtest.h>

#include "kernels/lag_attention.h"
#include "support/gradients.h"
#include "support/levels.h"

namespace sennit::lag_attention_kernel_test {

using Doubles = std::vector<double>;
using kernels::LagAttentionTask;
using kernels::LagRule;

struct Shape {
  LagRule rule;
  bool causal;
  int64_t queries, keys, dim, offset, reach;
};
struct Inputs {
  Doubles q, k, v, b, g;
};
constexpr double kScale = 0.4;

Doubles naive(const Shape& s, const Inputs& in) {
  Doubles o(s.queries * s.dim);
  for (int64_t i = 0; i < s.queries; ++i) {
    double total = 0;
    Doubles sum(s.dim);
    for (int64_t j = 0; j < s.keys; ++j) {
      const int64_t l = j - i - s.offset;
      if (s.causal && l > 0) continue;
      const int64_t at = std::clamp(l, -s.reach, s.reach) + s.reach;
      double product = 0, apart = 0;
      for (int64_t c = 0; c < s.dim; ++c) {
        product += in.q[i * s.dim + c] * in.k[j * s.dim + c];
        apart += std::pow(in.q[i * s.dim + c] - in.g[at] * in.k[j * s.dim + c], 2);
      }
      const double w = s.rule == LagRule::softmax  ? std::exp(kScale * product + in.b[at])
                       : s.rule == LagRule::robust ? 1 / (in.b[at] + kScale * apart)
                                                   : std::exp(-kScale * apart / in.b[at]) / in.b[at];
      total += w;
      for (int64_t c = 0; c < s.dim; ++c) sum[c] += w * in.g[at] * in.v[j * s.dim + c];
    }
    for (int64_t c = 0; c < s.dim; ++c) o[i * s.dim + c] = total > 0 ? sum[c] / total : 0;
  }
  return o;
}

TEST(LagAttentionKernel, IsTheSumAndItsGradientsAreDifferences) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (const LagRule rule : {LagRule::softmax, LagRule::robust, LagRule::exponential})
      for (const bool causal : {true, false})
        for (const auto& [queries, keys, dim, offset, reach] : {std::array<int64_t, 5>{1, 1, 3, 0, 0},
                                                                {7, 7, 8, 0, 3},
                                                                {3, 12, 5, 9, 20},
                                                                {4, 2, 17, -2, 4},
                                                                {20, 70, 3, 50, 80}}) {
          const Shape s{rule, causal, queries, keys, dim, offset, reach};
          const int64_t lags = 2 * reach + 1;
          const Fenced q = Fenced::normal(rng, queries * dim), k = Fenced::normal(rng, keys * dim),
                       v = Fenced::normal(rng, keys * dim);
          const Fenced b = Fenced::uniform(rng, lags, 0.5, 1.5), g = Fenced::uniform(rng, lags, 0.3, 1.2);
          const Inputs in{q.doubles(), k.doubles(), v.doubles(), b.doubles(), g.doubles()};
          const LagAttentionTask task{.rule = rule,
                                      .q = q.data(),
                                      .k = k.data(),
                                      .v = v.data(),
                                      .b = b.data(),
                                      .g = g.data(),
                                      .q_stride = dim,
                                      .k_stride = dim,
                                      .v_stride = dim,
                                      .table_stride = 1,
                                      .queries = queries,
                                      .keys = keys,
                                      .key_dim = dim,
                                      .value_dim = dim,
                                      .offset = offset,
                                      .reach = reach,
                                      .causal = causal,
                                      .scale = static_cast<float>(kScale)};
          Fenced o(queries * dim), scratch(kernels::lag_attention().scratch_floats(task));
          kernels::lag_attention().forward(task, o.data(), dim, scratch.data());
          ASSERT_TRUE(o.intact() && scratch.intact());
          const Doubles want = naive(s, in);
          for (int64_t i = 0; i < o.size(); ++i) ASSERT_NEAR(o[i], want[i], 1e-5 * (1 + std::abs(want[i])));

          const Fenced d_o = Fenced::normal(rng, o.size());
          Fenced dq(q.size(), 1), dk(k.size(), 1), dv(v.size(), 1), db(lags, 1), dg(lags, 1);
          kernels::lag_attention().backward(task, d_o.data(), dim,
                                            {dq.data(), dk.data(), dv.data(), db.data(), dg.data()}, scratch.data());
          const auto loss = losses(
              in, [&](const Inputs& at) { return naive(s, at); }, d_o);
          expect_gradient("dq", loss(&Inputs::q), in.q, dq, 1e-4, rng, 1);
          expect_gradient("dk", loss(&Inputs::k), in.k, dk, 1e-4, rng, 1);
          expect_gradient("dv", loss(&Inputs::v), in.v, dv, 1e-4, rng, 1);
          expect_gradient("db", loss(&Inputs::b), in.b, db, 1e-4, rng, 1);
          expect_gradient("dg", loss(&Inputs::g), in.g, dg, 1e-4, rng, 1);
        }
  });
}

}  // namespace sennit::lag_attention_kernel_test
