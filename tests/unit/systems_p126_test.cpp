// Tiled exact attention (Dao et al., "FlashAttention", arXiv:2205.14135) against attention that writes its scores down.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/rng.h"
#include "ops/arithmetic.h"
#include "ops/norms.h"
#include "ops/products.h"
#include "sequence/attention.h"
#include "support/timing.h"

namespace sennit::systems_p126_test {

constexpr int64_t kDim = 64;
const float kScale = 1 / std::sqrt(static_cast<float>(kDim));

struct Operands {
  Var q, k, v;
  Tensor mask;
  explicit Operands(int64_t n) : q(draw(n, 1)), k(draw(n, 2)), v(draw(n, 3)), mask(Tensor::zeros({n, n})) {
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = i + 1; j < n; ++j) mask.data()[i * n + j] = -std::numeric_limits<float>::infinity();
  }
  static Var draw(int64_t n, uint64_t seed) {
    Tensor t({n, kDim});
    Rng rng(seed);
    for (float& x : t.span()) x = static_cast<float>(rng.normal());
    return Var::leaf(t);
  }
  void clear() {
    for (Var* x : {&q, &k, &v}) x->clear_grad();
  }
};

Var tiled(const Operands& o) {
  const AttentionSegment all[] = {{0, o.q.rows(), 0, 0, o.q.rows(), 0}};
  return attention(o.q, std::span(&o.k, 1), std::span(&o.v, 1), all, {.heads = 1, .kv_heads = 1, .scale = kScale});
}
Var written_down(const Operands& o) {
  return matmul(softmax(scale(matmul(o.q, o.k, {.transpose_b = true}), kScale) + Var(o.mask)), o.v);
}

double largest_difference(const Tensor& a, const Tensor& b) {
  double most = 0;
  for (int64_t i = 0; i < a.elements(); ++i) most = std::max(most, std::fabs(double{a.data()[i]} - b.data()[i]));
  return most;
}

TEST(SystemsP126, SameValuesAndGradients) {
  for (const int64_t n : {1, 63, 500}) {
    Operands a(n), b(n);
    const Tensor dy = Operands::draw(n, 4).value();
    const Var ya = tiled(a), yb = written_down(b);
    EXPECT_LE(largest_difference(ya.value(), yb.value()), 1e-5) << n;
    backward(ya, dy);
    backward(yb, dy);
    for (auto [x, y] : {std::pair{&a.q, &b.q}, {&a.k, &b.k}, {&a.v, &b.v}})
      EXPECT_LE(largest_difference(x->grad(), y->grad()), 1e-4) << n;
  }
}

TEST(SystemsP126, MemoryBesidesOperandsIsSmall) {
  NoGrad off;
  const int64_t n = 8192;
  const Var q = Operands::draw(n, 1), k = Operands::draw(n, 2), v = Operands::draw(n, 3);
  const AttentionSegment all[] = {{0, n, 0, 0, n, 0}};
  reset_memory_peak();
  const int64_t base = memory_counters().live;
  attention(q, std::span(&k, 1), std::span(&v, 1), all, {.heads = 1, .kv_heads = 1, .scale = kScale});
  EXPECT_LT(memory_counters().peak - base, 4 << 20);  // the scores would be 256 MiB
}

TEST(SpeedP126, FasterForwardAndBackward) {
  Operands o(4096);
  const Tensor dy = Operands::draw(4096, 4).value();
  const auto step = [&](Var (*form)(const Operands&)) {
    return seconds_of(2, [&] {
      o.clear();
      backward(form(o), dy);
    });
  };
  const double fast = step(tiled), slow = step(written_down);
  EXPECT_GE(slow / fast, 1.5) << slow << " s with scores, " << fast << " s tiled";
}

}  // namespace sennit::systems_p126_test
