// The block-sparse engine: any tiling of any choice of keys, against loops in double.
#include "sequence/sparse_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/parallel.h"
#include "base/rng.h"
#include "sequence/block_choice.h"
#include "support/levels.h"

namespace sennit::sparse_attention_test {

constexpr int64_t kHeads = 4, kGroups = 2, kKey = 11, kValue = 7;

Tensor draw(int64_t rows, int64_t columns, uint64_t seed) {
  Tensor t({rows, columns});
  Rng rng(seed);
  for (float& x : t.span()) x = static_cast<float>(rng.normal());
  return t;
}

// A tiling: keys are dealt to tiles at random, each tile is shown to random queries within a band.
struct Dealt {
  std::vector<int32_t> keys, queries;
  Places key_run, query_run;  // where the lists are empty
  int64_t near, far;
};

std::vector<Dealt> deal(int64_t keys, Places queries, uint64_t seed) {
  Rng rng(seed);
  std::vector<Dealt> all;
  const auto some_queries = [&](Dealt& d) {
    if (rng.below(2)) {
      d.query_run = {queries.begin + rng.below(5), queries.end - rng.below(5)};
      return;
    }
    for (int64_t q = queries.begin; q < queries.end; ++q)
      if (rng.below(3)) d.queries.push_back(static_cast<int32_t>(q));
  };
  const auto band = [&](Dealt& d) {
    d.near = rng.below(3) ? 0 : rng.below(2) ? -kEverywhere : 3 + rng.below(9);
    d.far = rng.below(2) ? kEverywhere : d.near + 1 + rng.below(90);
  };
  const int64_t half = keys / 2;
  for (int64_t b = 0; b < half;) {
    Dealt d{};
    d.key_run = {b, std::min(half, b + 1 + rng.below(100))};
    b = d.key_run.end;
    some_queries(d);
    band(d);
    all.push_back(d);
  }
  std::vector<Dealt> apart(3);
  for (Dealt& d : apart) some_queries(d), band(d);
  for (int64_t j = half; j < keys; ++j) apart[rng.below(3)].keys.push_back(static_cast<int32_t>(j));
  for (Dealt& d : apart)
    if (!d.keys.empty()) all.push_back(d);
  return all;
}

void lay(const std::vector<Dealt>& deals, TileList& tiles) {
  for (const Dealt& d : deals) {
    if (d.keys.empty() && d.queries.empty())
      tiles.add(d.key_run, d.query_run, d.near, d.far);
    else if (d.keys.empty())
      tiles.add(d.key_run, d.queries, d.near, d.far);
    else if (d.queries.empty())
      tiles.add(d.keys, d.query_run, d.near, d.far);
    else
      tiles.add(d.keys, d.queries, d.near, d.far);
  }
}

bool shown(const std::vector<Dealt>& deals, int64_t place, int64_t j) {
  for (const Dealt& d : deals) {
    const bool key =
        d.keys.empty() ? j >= d.key_run.begin && j < d.key_run.end : std::count(d.keys.begin(), d.keys.end(), j);
    const bool query = d.queries.empty() ? place >= d.query_run.begin && place < d.query_run.end
                                         : std::count(d.queries.begin(), d.queries.end(), place);
    if (key && query && place - j >= d.near && place - j < d.far) return true;
  }
  return false;
}

// Two segments over two sources of keys, with deals of their own for each head.
struct Problem {
  int64_t first, second, past;
  std::vector<AttentionSegment> segments = {{0, first, 0, 0, first, 0}, {first, second, 1, 2, past + second, past}};
  std::vector<float> slopes;
  std::vector<std::vector<Dealt>> deals;

  Problem(int64_t n, uint64_t seed) : first(n), second(n / 2 + 3), past(n / 3) {
    for (const AttentionSegment& a : segments)
      for (int64_t h = 0; h < kHeads; ++h)
        deals.push_back(deal(a.keys, {a.offset, a.offset + a.queries}, seed * 31 + deals.size()));
    if (seed % 2) slopes = {0.5f, 0.25f, 0.125f, 0.0625f};
  }
  SparseAttentionOptions options() const { return {kHeads, kGroups, 0.3f, slopes}; }
  TileSource source() const {
    return [this](size_t segment, int64_t head, TileList& tiles) { lay(deals[segment * kHeads + head], tiles); };
  }

  // The output, of the concatenated rows of q, the two keys and the two values.
  std::vector<double> definition(const std::vector<double>& q, const std::vector<double> (&k)[2],
                                 const std::vector<double> (&v)[2]) const {
    std::vector<double> o((first + second) * kHeads * kValue, 0.0);
    for (size_t s = 0; s < 2; ++s)
      for (int64_t i = 0; i < segments[s].queries; ++i)
        for (int64_t h = 0; h < kHeads; ++h) {
          const AttentionSegment& a = segments[s];
          const int64_t kv = h / (kHeads / kGroups);
          std::vector<double> w(a.keys, 0.0);
          double total = 0;
          for (int64_t j = 0; j < a.keys; ++j) {
            if (!shown(deals[s * kHeads + h], i + a.offset, j)) continue;
            double score = 0;
            for (int64_t c = 0; c < kKey; ++c)
              score += q[((a.query_begin + i) * kHeads + h) * kKey + c] *
                       k[a.source][((a.key_begin + j) * kGroups + kv) * kKey + c];
            const double distance = std::fabs(static_cast<double>(i + a.offset - j));
            total += w[j] = std::exp(0.3f * score - (slopes.empty() ? 0 : slopes[h] * distance));
          }
          for (int64_t j = 0; j < a.keys && total > 0; ++j)
            for (int64_t c = 0; c < kValue; ++c)
              o[((a.query_begin + i) * kHeads + h) * kValue + c] +=
                  w[j] / total * v[a.source][((a.key_begin + j) * kGroups + kv) * kValue + c];
        }
    return o;
  }
};

std::vector<double> doubles(const Tensor& t) {
  return {t.span().begin(), t.span().end()};
}

struct Operands {
  Tensor q, k0, k1, v0, v1, d;
  Operands(const Problem& p)
      : q(draw(p.first + p.second, kHeads * kKey, 1)),
        k0(draw(p.first, kGroups * kKey, 2)),
        k1(draw(p.past + p.second + 2, kGroups * kKey, 3)),
        v0(draw(p.first, kGroups * kValue, 4)),
        v1(draw(p.past + p.second + 2, kGroups * kValue, 5)),
        d(draw(p.first + p.second, kHeads * kValue, 6)) {}
};

TEST(SparseAttention, AnyTilingIsItsDefinition) {
  for_each_level([](IsaLevel) {
    for (const int64_t n : {1, 17, 70, 150})
      for (uint64_t seed : {1, 2, 3, 4}) {
        const Problem p(n, seed);
        const Operands x(p);
        const Var keys[] = {Var(x.k0), Var(x.k1)}, values[] = {Var(x.v0), Var(x.v1)};
        const Tensor o = sparse_attention(Var(x.q), keys, values, p.segments, p.options(), p.source()).value();
        const auto want = p.definition(doubles(x.q), {doubles(x.k0), doubles(x.k1)}, {doubles(x.v0), doubles(x.v1)});
        for (int64_t i = 0; i < o.elements(); ++i)
          ASSERT_NEAR(o.data()[i], want[i], 3e-6) << n << " tokens, seed " << seed << ", number " << i;
      }
  });
}

TEST(SparseAttention, GradientsAreThoseOfTheDefinition) {
  HostileMemory hostile;
  for (uint64_t seed : {1, 2, 3, 4}) {
    const Problem p(70, seed);
    const Operands x(p);
    const Var q = Var::leaf(x.q), k0 = Var::leaf(x.k0), k1 = Var::leaf(x.k1), v0 = Var::leaf(x.v0),
              v1 = Var::leaf(x.v1);
    const Var keys[] = {k0, k1}, values[] = {v0, v1};
    backward(sparse_attention(q, keys, values, p.segments, p.options(), p.source()), x.d);
    std::vector<double> at[] = {doubles(x.q), doubles(x.k0), doubles(x.k1), doubles(x.v0), doubles(x.v1)};
    const auto loss = [&] {
      const auto o = p.definition(at[0], {at[1], at[2]}, {at[3], at[4]});
      double sum = 0;
      for (size_t i = 0; i < o.size(); ++i) sum += o[i] * x.d.data()[i];
      return sum;
    };
    const Var leaves[] = {q, k0, k1, v0, v1};
    Rng rng(seed);
    for (int input = 0; input < 5; ++input)
      for (int trial = 0; trial < 12; ++trial) {
        const size_t i = rng.below(static_cast<int64_t>(at[input].size()));
        const double before = at[input][i];
        at[input][i] = before + 1e-5;
        const double up = loss();
        at[input][i] = before - 1e-5;
        const double slope = (up - loss()) / 2e-5;
        at[input][i] = before;
        ASSERT_NEAR(leaves[input].grad().data()[i], slope, 2e-5 + 1e-4 * std::fabs(slope))
            << "input " << input << ", number " << i;
      }
  }
}

// All keys in whole blocks of 64 or more: dense attention to the bit, forward; smaller blocks sum in another order.
TEST(SparseAttention, EverythingChosenIsDenseAttention) {
  const int64_t n = 2100;
  const Tensor q = draw(n, 2 * 64, 1), k = draw(n, 64, 2), v = draw(n, 64, 3), d = draw(n, 2 * 64, 4);
  const std::vector<AttentionSegment> segments = {{0, n, 0, 0, n, 0}};
  for (const bool causal : {true, false})
    for (const int64_t block : {64, 128, 192, 20}) {
      const Var a[] = {Var::leaf(q), Var::leaf(k), Var::leaf(v)}, b[] = {Var::leaf(q), Var::leaf(k), Var::leaf(v)};
      const Var dense = attention(a[0], {&a[1], 1}, {&a[2], 1}, segments,
                                  {.heads = 2, .kv_heads = 1, .scale = 0.125f, .causal = causal});
      const Var sparse =
          sparse_attention(b[0], {&b[1], 1}, {&b[2], 1}, segments, {.heads = 2, .kv_heads = 1, .scale = 0.125f},
                           [=](size_t, int64_t, TileList& tiles) {
                             for (int64_t at = 0; at < n; at += block)
                               tiles.add(Places{at, at + block}, tiles.queries(), causal ? 0 : -kEverywhere);
                           });
      if (block >= 64) {
        EXPECT_EQ(std::memcmp(dense.value().raw(), sparse.value().raw(), static_cast<size_t>(dense.value().bytes())), 0)
            << block;
      }
      backward(dense, d);
      backward(sparse, d);
      for (int64_t i = 0; i < dense.value().elements(); ++i)
        ASSERT_NEAR(dense.value().data()[i], sparse.value().data()[i], 1e-6);
      for (int input = 0; input < 3; ++input)
        for (int64_t i = 0; i < a[input].grad().elements(); ++i)
          ASSERT_NEAR(a[input].grad().data()[i], b[input].grad().data()[i], 2e-5) << "input " << input;
    }
}

TEST(SparseAttention, ThreadsChangeNothing) {
  const int before = thread_count();
  const Problem p(150, 3);
  const Operands x(p);
  std::vector<Tensor> first;
  for (const int threads : {1, 2, 5}) {
    set_thread_count(threads);
    const Var q = Var::leaf(x.q), k0 = Var::leaf(x.k0), k1 = Var::leaf(x.k1), v0 = Var::leaf(x.v0),
              v1 = Var::leaf(x.v1);
    const Var keys[] = {k0, k1}, values[] = {v0, v1};
    const Var o = sparse_attention(q, keys, values, p.segments, p.options(), p.source());
    backward(o, x.d);
    std::vector<Tensor> got = {o.value(), q.grad(), k0.grad(), k1.grad(), v0.grad(), v1.grad()};
    if (first.empty()) first = got;
    for (size_t i = 0; i < got.size(); ++i)
      EXPECT_EQ(std::memcmp(got[i].raw(), first[i].raw(), static_cast<size_t>(got[i].bytes())), 0) << threads;
  }
  set_thread_count(before);
}

TEST(SparseAttention, BlockMaximaAreThoseOfTheWholeMatrix) {
  for (const int64_t block : {16, 64, 128}) {
    const int64_t n = 150, past = 37, keys = n + past, blocks = (keys + block - 1) / block;
    const Tensor q = draw(n, kHeads * kKey, 1), k = draw(keys, kGroups * kKey, 2), v = draw(keys, kGroups * kValue, 3);
    const Tensor maxima = block_maxima(q, k, v, {0, n, 0, 0, keys, past}, {kHeads, kGroups, 0.3f}, block);
    ASSERT_EQ(maxima.elements(), n * kHeads * blocks);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t h = 0; h < kHeads; ++h) {
        std::vector<double> w(i + past + 1), most(blocks, 0.0);
        double total = 0;
        for (int64_t j = 0; j <= i + past; ++j) {
          double score = 0;
          for (int64_t c = 0; c < kKey; ++c)
            score += double{q.data()[(i * kHeads + h) * kKey + c]} * k.data()[(j * kGroups + h / 2) * kKey + c];
          total += w[j] = std::exp(0.3f * score);
        }
        for (int64_t j = 0; j <= i + past; ++j) most[j / block] = std::max(most[j / block], w[j] / total);
        for (int64_t b = 0; b < blocks; ++b)
          ASSERT_NEAR(maxima.data()[(i * kHeads + h) * blocks + b], most[b], 1e-6) << i << " " << b;
      }
  }
}

TEST(BlockChoice, TakesTheHighestAndTheFirstOfEquals) {
  Rng rng(3);
  for (int round = 0; round < 300; ++round) {
    const int64_t n = rng.below(40), most = rng.below(12);
    std::vector<float> s(n), scratch(2 * n);
    for (float& x : s)
      x = rng.below(6) == 0 ? -INFINITY : rng.below(9) == 0 ? INFINITY : static_cast<float>(rng.below(5));
    std::vector<int64_t> order;
    for (int64_t i = 0; i < n; ++i)
      if (s[i] != -INFINITY) order.push_back(i);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return s[a] > s[b]; });
    order.resize(std::min<size_t>(order.size(), most));
    std::sort(order.begin(), order.end());
    std::vector<int32_t> chosen(most + 1, -7);
    const int64_t count = choose_highest(s.data(), n, most, chosen.data(), scratch.data());
    ASSERT_EQ(count, std::ssize(order));
    for (int64_t i = 0; i < count; ++i) ASSERT_EQ(chosen[i], order[i]);
    EXPECT_EQ(chosen[most], -7);
  }
}

}  // namespace sennit::sparse_attention_test
