#include <gtest/gtest.h>

#include "kernels/pair_filter.h"
#include "support/gradients.h"
#include "support/levels.h"

namespace sennit::pair_filter_kernel_test {

using Doubles = std::vector<double>;
using kernels::LagAttentionTask;
using kernels::LagRule;

struct Shape {
  LagRule rule;
  bool causal;
  int64_t queries, keys, half, offset, reach;
};
struct Inputs {
  Doubles q, k, v, b, g;
};
constexpr double kScale = 0.4;

Doubles naive(const Shape& s, const Inputs& in) {
  const int64_t dim = 2 * s.half;
  Doubles o(s.queries * dim);
  for (int64_t i = 0; i < s.queries; ++i) {
    Doubles total(s.half), sum(dim);
    for (int64_t j = 0; j < s.keys; ++j) {
      const int64_t l = j - i - s.offset;
      if (s.causal && l > 0) continue;
      const int64_t at = (std::clamp(l, -s.reach, s.reach) + s.reach) * s.half;
      double apart = 0;
      for (int64_t c = 0; c < dim; ++c)
        apart += in.b[at + c % s.half] * std::pow(in.q[i * dim + c] - in.g[at + c % s.half] * in.k[j * dim + c], 2);
      const double w = s.rule == LagRule::robust ? 1 / (1 + kScale * apart) : std::exp(-kScale * apart);
      for (int64_t c = 0; c < s.half; ++c) total[c] += w * in.b[at + c];
      for (int64_t c = 0; c < dim; ++c) sum[c] += w * in.b[at + c % s.half] * in.g[at + c % s.half] * in.v[j * dim + c];
    }
    for (int64_t c = 0; c < dim; ++c) o[i * dim + c] = total[c % s.half] > 0 ? sum[c] / total[c % s.half] : 0;
  }
  return o;
}

TEST(PairFilterKernel, IsTheSumAndItsGradientsAreDifferences) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (const LagRule rule : {LagRule::robust, LagRule::exponential})
      for (const bool causal : {true, false})
        for (const auto& [queries, keys, half, offset, reach] :
             {std::array<int64_t, 5>{1, 1, 3, 0, 0}, {7, 7, 8, 0, 3}, {3, 12, 5, 9, 20}, {4, 2, 17, -2, 4}}) {
          const Shape s{rule, causal, queries, keys, half, offset, reach};
          const int64_t dim = 2 * half, entries = (2 * reach + 1) * half;
          const Fenced q = Fenced::normal(rng, queries * dim), k = Fenced::normal(rng, keys * dim),
                       v = Fenced::normal(rng, keys * dim);
          const Fenced b = Fenced::uniform(rng, entries, 0.5, 1.5), g = Fenced::uniform(rng, entries, 0.3, 1.2);
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
                                      .table_stride = half,
                                      .queries = queries,
                                      .keys = keys,
                                      .key_dim = dim,
                                      .value_dim = dim,
                                      .offset = offset,
                                      .reach = reach,
                                      .causal = causal,
                                      .scale = static_cast<float>(kScale)};
          Fenced o(queries * dim), scratch(kernels::pair_filter().scratch_floats(task));
          kernels::pair_filter().forward(task, o.data(), dim, scratch.data());
          ASSERT_TRUE(o.intact() && scratch.intact());
          const Doubles want = naive(s, in);
          for (int64_t i = 0; i < o.size(); ++i) ASSERT_NEAR(o[i], want[i], 1e-5 * (1 + std::abs(want[i])));

          const Fenced d_o = Fenced::normal(rng, o.size());
          Fenced dq(q.size(), 1), dk(k.size(), 1), dv(v.size(), 1), db(entries, 1), dg(entries, 1);
          kernels::pair_filter().backward(task, d_o.data(), dim,
                                          {dq.data(), dk.data(), dv.data(), db.data(), dg.data()}, scratch.data());
          ASSERT_TRUE(scratch.intact() && dq.intact() && dk.intact() && dv.intact() && db.intact() && dg.intact());
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

}  // namespace sennit::pair_filter_kernel_test
