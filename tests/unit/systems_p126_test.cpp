// Tiled exact attention (Dao et al., "FlashAttention", arXiv:2205.14135) against attention that writes its scores down.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/rng.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/norms.h"
#include "ops/products.h"
#include "sequence/sparse_attention.h"
#include "support/timing.h"

namespace sennit::systems_p126_test {

constexpr int64_t kDim = 64;
const float kScale = 1 / std::sqrt(static_cast<float>(kDim));

struct Operands {
  int64_t heads, kv_heads;
  bool causal;
  Var q, k, v;
  Tensor mask;  // what is added to the scores
  explicit Operands(int64_t n, int64_t query_heads = 1, int64_t key_heads = 1, bool looks_back = true)
      : heads(query_heads),
        kv_heads(key_heads),
        causal(looks_back),
        q(draw(n, heads, 1)),
        k(draw(n, kv_heads, 2)),
        v(draw(n, kv_heads, 3)),
        mask(Tensor::zeros({n, n})) {
    if (causal) hide([](int64_t i, int64_t j) { return j > i; });
  }
  template <class Hidden>
  void hide(Hidden&& hidden) {
    const int64_t n = mask.rows();
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j)
        if (hidden(i, j)) mask.data()[i * n + j] = -std::numeric_limits<float>::infinity();
  }
  static Var draw(int64_t n, int64_t heads, uint64_t seed) {
    Tensor t({n, heads * kDim});
    Rng rng(seed);
    for (float& x : t.span()) x = static_cast<float>(rng.normal());
    return Var::leaf(t);
  }
  void clear() {
    for (Var* x : {&q, &k, &v}) x->clear_grad();
  }
  AttentionSegment all() const { return {0, q.rows(), 0, 0, q.rows(), 0}; }
};

Var tiled(const Operands& o) {
  const AttentionSegment all[] = {o.all()};
  return attention(o.q, std::span(&o.k, 1), std::span(&o.v, 1), all,
                   {.heads = o.heads, .kv_heads = o.kv_heads, .scale = kScale, .causal = o.causal});
}
Var written_down(const Operands& o) {
  std::vector<Var> heads;
  for (int64_t h = 0; h < o.heads; ++h) {
    const int64_t kv = h * o.kv_heads / o.heads * kDim;
    const Var q = columns(o.q, h * kDim, kDim), k = columns(o.k, kv, kDim), v = columns(o.v, kv, kDim);
    heads.push_back(matmul(softmax(scale(matmul(q, k, {.transpose_b = true}), kScale) + Var(o.mask)), v));
  }
  return o.heads == 1 ? heads[0] : concat_columns(heads);
}
Var in_blocks(const Operands& o, const BlockMask& mask) {
  const AttentionSegment all[] = {o.all()};
  return sparse_attention(o.q, std::span(&o.k, 1), std::span(&o.v, 1), all,
                          {.heads = o.heads, .kv_heads = o.kv_heads, .scale = kScale}, masked_blocks(mask));
}
// Each block shows its diagonal, and each other block of keys with a chance.
BlockMask random_blocks(int64_t n, int64_t block, double chance, bool causal, uint64_t seed) {
  const int64_t blocks = (n + block - 1) / block;
  BlockMask mask{block, blocks, blocks, {}, causal};
  Rng rng(seed);
  for (int64_t i = 0; i < blocks; ++i)
    for (int64_t j = 0; j < blocks; ++j)
      mask.shown.push_back((!causal || j <= i) && (i == j || rng.uniform() < chance));
  return mask;
}

double largest_difference(const Tensor& a, const Tensor& b) {
  double most = 0;
  for (int64_t i = 0; i < a.elements(); ++i) most = std::max(most, std::fabs(double{a.data()[i]} - b.data()[i]));
  return most;
}

void expect_same(Operands& a, const Var& ya, Operands& b, const Var& yb, const std::string& what) {
  const Tensor dy = Operands::draw(a.q.rows(), a.heads, 4).value();
  EXPECT_LE(largest_difference(ya.value(), yb.value()), 1e-5) << what;
  backward(ya, dy);
  backward(yb, dy);
  for (auto [x, y] : {std::pair{&a.q, &b.q}, {&a.k, &b.k}, {&a.v, &b.v}})
    EXPECT_LE(largest_difference(x->grad(), y->grad()), 1e-4) << what;
}

TEST(SystemsP126, SameValuesAndGradients) {
  for (const int64_t n : {1, 63, 500})
    for (const bool causal : {true, false})
      for (const int64_t kv_heads : {1, 2, 4}) {
        Operands a(n, 4, kv_heads, causal), b(n, 4, kv_heads, causal);
        expect_same(a, tiled(a), b, written_down(b), fmt::format("{} tokens, {} of 4 heads, {}", n, kv_heads, causal));
      }
}

TEST(SystemsP126, BlocksUnderAMaskAreMaskedAttention) {
  for (const int64_t n : {60, 333})
    for (const int64_t block : {16, 64})
      for (const bool causal : {true, false}) {
        const BlockMask mask = random_blocks(n, block, 0.25, causal, 5);
        Operands a(n, 4, 2, causal), b(n, 4, 2, causal);
        b.hide([&](int64_t i, int64_t j) {
          return !mask.shown[static_cast<size_t>(i / block * mask.columns + j / block)];
        });
        expect_same(a, in_blocks(a, mask), b, written_down(b), fmt::format("{} in {}, {}", n, block, causal));
      }
}

TEST(SystemsP126, MemoryBesidesOperandsIsSmall) {
  NoGrad off;
  const int64_t n = 8192;
  const Var q = Operands::draw(n, 1, 1), k = Operands::draw(n, 1, 2), v = Operands::draw(n, 1, 3);
  const AttentionSegment all[] = {{0, n, 0, 0, n, 0}};
  reset_memory_peak();
  const int64_t base = memory_counters().live;
  attention(q, std::span(&k, 1), std::span(&v, 1), all, {.heads = 1, .kv_heads = 1, .scale = kScale});
  EXPECT_LT(memory_counters().peak - base, 4 << 20);  // the scores would be 256 MiB
}

double gain_of_tiles(int64_t n, int rounds) {
  Operands o(n);
  const Tensor dy = Operands::draw(n, 1, 4).value();
  const auto step = [&](Var (*form)(const Operands&)) {
    o.clear();
    backward(form(o), dy);
  };
  const Seconds m = medians_in_turn(
      rounds, [&] { step(written_down); }, [&] { step(tiled); });
  std::printf("%ld tokens: %.3f s with scores, %.3f s tiled, %.2f times\n", n, m.first, m.second, m.first / m.second);
  return m.first / m.second;
}
TEST(SystemsP126, SpeedForwardAndBackward) {
  EXPECT_GE(gain_of_tiles(4096, 5), 1.5);
  EXPECT_GE(gain_of_tiles(8192, 3), 2);
}

TEST(SystemsP126, SpeedOfAQuarterOfTheBlocks) {
  NoGrad off;
  const int64_t n = 8192, block = 64;
  const Operands o(n);
  BlockMask mask = random_blocks(n, block, 0.25, true, 5);
  int64_t shown = std::count(mask.shown.begin(), mask.shown.end(), true), all = mask.rows * (mask.rows + 1) / 2;
  const double density = static_cast<double>(shown) / static_cast<double>(all);
  EXPECT_GE(density, 0.25);
  const Seconds m = medians_in_turn(
      7, [&] { tiled(o); }, [&] { in_blocks(o, mask); });
  std::printf("all %.4f s, %.1f %% of the blocks %.4f s, %.2f times\n", m.first, 100 * density, m.second,
              m.first / m.second);
  EXPECT_GE(m.first / m.second, 2.5);
}

}  // namespace sennit::systems_p126_test
