// The delta rule (Yang et al., arXiv:2406.06484): chunks against token by token, and what the rule means.
#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"
#include "ops/norms.h"
#include "sequence/recurrences.h"
#include "support/mixers.h"
#include "support/trained.h"

namespace sennit::systems_p028_test {

Tensor draw(int64_t rows, int64_t columns, uint64_t seed) {
  Tensor t({rows, columns});
  Rng rng(seed);
  for (float& x : t.span()) x = static_cast<float>(rng.normal());
  return t;
}
Tensor strengths(int64_t rows, int64_t heads) {
  Tensor t({rows, heads});
  Rng rng(7);
  for (float& x : t.span()) x = static_cast<float>(rng.uniform());
  return t;
}

struct Operands {
  Var q, k, v, beta;
  int64_t heads;
  Operands(int64_t n, int64_t dim, int64_t head_count)
      : q(l2norm(Var(draw(n, head_count * dim, 1)), {.groups = head_count})),
        k(l2norm(Var(draw(n, head_count * dim, 2)), {.groups = head_count})),
        v(draw(n, head_count * dim, 3)),
        beta(strengths(n, head_count)),
        heads(head_count) {}
  Var run(bool exact, SequenceState* state = nullptr) const {
    const Context context{.exact = exact};
    const Segment whole[] = {{0, q.rows(), 0, state}};
    return gated_delta(q, k, v, beta, {}, {whole, &context}, {.heads = heads});
  }
};

TEST(SystemsP028, ChunksAreTheTokenRecurrence) {
  NoGrad off;
  for (const int64_t n : {1, 15, 17, 100, 4095}) {
    const Operands o(n, 64, 2);
    SequenceState a, b;
    const Tensor chunked = o.run(false, &a).value(), recurrent = o.run(true, &b).value();
    EXPECT_LE(most_apart(chunked, recurrent), 1e-5) << n;
    EXPECT_LE(most_apart(a.layer(0).get(0).value(), b.layer(0).get(0).value()), 1e-5) << n;
  }
}

TEST(SystemsP028, NoStrengthChangesNothing) {
  NoGrad off;
  Operands o(40, 32, 1);
  SequenceState state;
  o.run(false, &state);
  const Tensor before = state.layer(0).get(0).value().clone();
  o.beta = Var(Tensor::zeros({40, 1}));
  o.run(false, &state);
  EXPECT_EQ(most_apart(state.layer(0).get(0).value(), before), 0);
}

TEST(SystemsP028, WritingAKeyAgainReplacesItsValue) {
  NoGrad off;
  const int64_t n = 20, dim = 32;
  Operands o(n, dim, 1);
  for (int64_t t = 0; t < n; ++t)
    for (int64_t c = 0; c < dim; ++c) o.k.value().data()[t * dim + c] = o.q.value().data()[t * dim + c] = c == 5;
  o.beta = Var(Tensor::full({n, 1}, 1));
  EXPECT_LE(most_apart(o.run(false).value(), o.v.value()), 1e-6);
}

// Sixteen pairs, each key asked for once; the states of both hold 64 x 64 numbers.
double recalled(const Json& mixer) {
  const auto task = tasks::registry().make(Json{{"name", "recall"}, {"pairs", 16}, {"length", 64}}, {}, Rng(), "test");
  const Json block = {{"mixer", mixer}, {"channel", "mlp"}};
  trained::Trainee trainee({{"vocab", task->vocab()}, {"d_model", 64}, {"blocks", {block, block}}},
                           {.steps = 1000, .rate = 4e-3});
  trainee.train([&](int64_t, Rng rng) { return trained::sequences(*task, 32, rng); });
  return trainee.accuracy(trained::sequences(*task, 128, Rng(1000)));
}
TEST(SystemsP028, TrainedToRecallMoreThanASumHolds) {
  const Json shared = {{"heads", 1}, {"expand_k", 1}, {"expand_v", 1}, {"conv", 4}};
  Json delta = shared, sum = shared;
  delta.update({{"name", "gated_delta"}, {"gated", false}});
  sum.update({{"name", "gla"}, {"decay", "none"}, {"feature", "elu"}});
  const double by_rule = recalled(delta), by_sum = recalled(sum);
  std::printf("values recalled: delta rule %.3f, sum %.3f\n", by_rule, by_sum);
  EXPECT_GE(by_rule, 0.95);
  EXPECT_LE(by_sum, by_rule - 0.20);
}

}  // namespace sennit::systems_p028_test
