// Attention to pairs of tokens (Alman and Song, arXiv:2310.04064): exact, by polynomials, and Match3.
#include <gtest/gtest.h>

#include "nn/linear.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "ops/products.h"
#include "sequence/attention.h"
#include "sequence/kronecker.h"
#include "support/mixer_timing.h"
#include "support/trained.h"

namespace sennit::systems_p287_test {

struct Case {
  int64_t n, heads, dk, dv;
  KroneckerOperands x;
  KroneckerOptions options() const { return {.heads = heads, .scale = 1 / static_cast<float>(dk)}; }
  Tensor exact() const {
    NoGrad off;
    const Segment whole[] = {{0, n, 0, nullptr}};
    return kronecker_attention(x, whole, options()).value();
  }
};
Case random_case(int64_t n, int64_t heads, int64_t dk, int64_t dv) {
  const auto draw = [&](int64_t d, uint64_t seed) { return Var(normal_rows(n, heads * d, seed)); };
  return {n, heads, dk, dv, {draw(dk, 1), draw(dk, 2), draw(dk, 3), draw(dv, 4), draw(dv, 5)}};
}

Tensor defined(const Case& c) {
  const auto at = [&](const Var& x, int64_t i, int64_t h, int64_t p) {
    const int64_t d = x.columns() / c.heads;
    return double{x.value().data()[(i * c.heads + h) * d + p]};
  };
  Tensor y({c.n, c.heads * c.dv});
  for (int64_t h = 0; h < c.heads; ++h)
    for (int64_t i = 0; i < c.n; ++i) {
      double total = 0;
      std::vector<double> sums(static_cast<size_t>(c.dv));
      for (int64_t j = 0; j < c.n; ++j)
        for (int64_t l = 0; l < c.n; ++l) {
          double score = 0;
          for (int64_t p = 0; p < c.dk; ++p) score += at(c.x.q, i, h, p) * at(c.x.k1, j, h, p) * at(c.x.k2, l, h, p);
          const double a = std::exp(score / static_cast<double>(c.dk));
          total += a;
          for (int64_t p = 0; p < c.dv; ++p)
            sums[static_cast<size_t>(p)] += a * at(c.x.v1, j, h, p) * at(c.x.v2, l, h, p);
        }
      for (int64_t p = 0; p < c.dv; ++p)
        y.data()[(i * c.heads + h) * c.dv + p] = static_cast<float>(sums[static_cast<size_t>(p)] / total);
    }
  return y;
}

TEST(SystemsP287, ExactFormIsTheTripleLoop) {
  for (const int64_t n : {1, 2, 9, 40}) {
    const Case c = random_case(n, 2, 5, 3);
    EXPECT_LE(most_apart(c.exact(), defined(c)), 1e-6) << n;
  }
}

TEST(SystemsP287, WeightsSumToOne) {
  for (const int64_t n : {1, 5, 12, 60}) {
    Case c = random_case(n, 2, 5, 3);
    c.x.v1 = c.x.v2 = Var(Tensor::full({n, 6}, 1));
    for (const float y : c.exact().span()) EXPECT_NEAR(y, 1, 1e-6) << n;
  }
}

TEST(SystemsP287, OnesForOneSideAreOrdinaryAttention) {
  NoGrad off;
  for (const int64_t n : {1, 5, 12, 60}) {
    Case c = random_case(n, 2, 5, 3);
    c.x.k2 = Var(Tensor::full({n, 10}, 1)), c.x.v2 = Var(Tensor::full({n, 6}, 1));
    const AttentionSegment whole[] = {{0, n, 0, 0, n, 0}};
    const Var plain = attention(c.x.q, {&c.x.k1, 1}, {&c.x.v1, 1}, whole,
                                {.heads = 2, .kv_heads = 2, .scale = c.options().scale, .causal = false});
    EXPECT_LE(most_apart(c.exact(), plain.value()), 1e-6) << n;
  }
}

TEST(SystemsP287, SegmentsDoNotSeeEachOther) {
  NoGrad off;
  const Case c = random_case(20, 2, 4, 3);
  const Segment both[] = {{0, 13, 0, nullptr}, {13, 7, 0, nullptr}}, second[] = {{13, 7, 0, nullptr}};
  Case alone = c;
  for (Var* v : {&alone.x.q, &alone.x.k1, &alone.x.k2, &alone.x.v1, &alone.x.v2})
    *v = Var(v->value().slice(13, 7).clone());
  alone.n = 7;
  EXPECT_LE(most_apart(kronecker_attention(c.x, both, c.options()).value().slice(13, 7), defined(alone)), 1e-6);
  EXPECT_LE(most_apart(kronecker_polynomial(c.x, both, c.options(), 12).slice(13, 7),
                       kronecker_polynomial(c.x, second, c.options(), 12).slice(13, 7)),
            1e-6);
}

// Along random directions, against differences of the definition.
TEST(SystemsP287, GradientsAreThoseOfTheDefinition) {
  const Case c = random_case(6, 2, 3, 2);
  const Segment whole[] = {{0, 6, 0, nullptr}};
  const Tensor a = normal_rows(6, 4, 9);
  const auto total = [&](const Case& of) {
    const Tensor y = defined(of);
    double sum = 0;
    for (int64_t i = 0; i < y.elements(); ++i) sum += double{y.data()[i]} * a.data()[i];
    return sum;
  };
  constexpr Var KroneckerOperands::*kOperands[] = {&KroneckerOperands::q, &KroneckerOperands::k1,
                                                   &KroneckerOperands::k2, &KroneckerOperands::v1,
                                                   &KroneckerOperands::v2};
  for (const auto operand : kOperands) {
    Case leaf = c;
    leaf.x.*operand = Var::leaf((c.x.*operand).value().clone());
    backward(kronecker_attention(leaf.x, whole, c.options()), a);
    const Tensor way = normal_rows(6, (c.x.*operand).columns(), 10);
    double slope = 0;
    Case ahead = c, behind = c;
    Tensor up = (c.x.*operand).value().clone(), down = up.clone();
    constexpr float kStep = 3e-3f;
    for (int64_t i = 0; i < way.elements(); ++i) {
      slope += double{(leaf.x.*operand).grad().data()[i]} * way.data()[i];
      up.data()[i] += kStep * way.data()[i], down.data()[i] -= kStep * way.data()[i];
    }
    ahead.x.*operand = Var(up), behind.x.*operand = Var(down);
    EXPECT_NEAR(slope, (total(ahead) - total(behind)) / (2 * kStep), 2e-3 * std::fmax(1, std::fabs(slope)));
  }
}

Case small_entries(int64_t n) {
  Case c = random_case(n, 1, 4, 4);
  Rng rng(6);
  for (Var* v : {&c.x.q, &c.x.k1, &c.x.k2})
    for (float& e : v->value().span()) e = static_cast<float>(2 * rng.uniform() - 1);
  return c;
}

TEST(SystemsP287, PolynomialsAreNearWhereEntriesAreSmall) {
  const Case c = small_entries(120);
  const Segment whole[] = {{0, c.n, 0, nullptr}};
  const Tensor exact = c.exact();
  double before = 1e30;
  for (const int64_t degree : {1, 2, 4}) {
    const double off = most_apart(kronecker_polynomial(c.x, whole, c.options(), degree), exact);
    std::printf("degree %ld: %.2e off\n", degree, off);
    EXPECT_LT(off, before);
    before = off;
  }
  EXPECT_LE(before, 1e-2);
}

TEST(SpeedP287, PolynomialsTakeTimeInProportion) {
  const Case c = small_entries(4096), small = small_entries(256);
  const auto run = [](const Case& of) {
    return [&] {
      const Segment whole[] = {{0, of.n, 0, nullptr}};
      kronecker_polynomial(of.x, whole, of.options(), 4);
    };
  };
  const double exponent = std::log(processor_ratio(15, run(c), run(small))) / std::log(16);
  std::printf("time grows as n^%.2f\n", exponent);
  EXPECT_LE(exponent, 1.3);
}

// Whether x_i + x_j + x_l = 0 mod M for some j and l, position by position.
std::vector<int32_t> matches(const std::vector<int32_t>& x, int64_t modulus) {
  std::vector<int32_t> found;
  for (const int32_t a : x) {
    bool any = false;
    for (const int32_t b : x)
      for (const int32_t c : x) any = any || (a + b + c) % modulus == 0;
    found.push_back(any);
  }
  return found;
}

// cos(a + b + c) is a sum of four products of cosines and sines: a score of d = 4. Very sharp attention finds the pair
// of the highest score; values whose products are the four parts tell that score back.
TEST(SystemsP287, AConstructedLayerFindsAllTriples) {
  Rng rng(7);
  int64_t found = 0, none = 0;
  constexpr double kSharpness = 4000;
  for (const int64_t modulus : {2, 5, 16, 31, 32})
    for (const int64_t n : {3, 8, 64})
      for (int trial = 0; trial < 3; ++trial) {
        std::vector<int32_t> x;
        const int64_t kinds = trial == 0 ? modulus : std::min<int64_t>(modulus, 3);  // with few kinds, few sums
        for (int64_t i = 0; i < n; ++i)
          x.push_back(static_cast<int32_t>(1 + rng.below(kinds)) % static_cast<int32_t>(modulus));
        Tensor q({n, 4}), k1({n, 4}), k2({n, 4});
        for (int64_t i = 0; i < n; ++i) {
          const double turn = 2 * M_PI * x[static_cast<size_t>(i)] / static_cast<double>(modulus);
          const auto c = static_cast<float>(std::cos(turn)), s = static_cast<float>(std::sin(turn));
          const float qs[] = {c, -c, -s, -s}, firsts[] = {c, s, c, s}, seconds[] = {c, s, s, c};
          std::copy_n(qs, 4, q.data() + 4 * i), std::copy_n(firsts, 4, k1.data() + 4 * i),
              std::copy_n(seconds, 4, k2.data() + 4 * i);
        }
        NoGrad off;
        const Segment whole[] = {{0, n, 0, nullptr}};
        const Tensor y =
            kronecker_attention({Var(q), Var(k1), Var(k2), Var(k1), Var(k2)}, whole, {1, kSharpness}).value();
        const auto want = matches(x, modulus);
        const double bound = (1 + std::cos(2 * M_PI / static_cast<double>(modulus))) / 2;
        for (int64_t i = 0; i < n; ++i) {
          double highest = 0;
          for (int64_t p = 0; p < 4; ++p) highest += double{q.data()[4 * i + p]} * y.data()[4 * i + p];
          ASSERT_EQ(highest > bound, want[static_cast<size_t>(i)] == 1) << "M = " << modulus << ", token " << i;
          ++(want[static_cast<size_t>(i)] ? found : none);
        }
      }
  std::printf("%ld tokens with a triple, %ld without\n", found, none);
  EXPECT_GT(found, 100);
  EXPECT_GT(none, 100);
}

// One layer of attention to tokens or to pairs, and a two-layer network behind it.
struct OneLayer : Module {
  static constexpr int64_t kDim = 32, kHeads = 4;
  OneLayer(int64_t modulus, bool pairs, const Rng& rng) : of_pairs(pairs) {
    table.init(normal_rows(modulus, kDim, 8));
    for (size_t m = 0; m < maps.size(); ++m) maps[m] = Linear(kDim, kDim, rng.fork("map").fork(m));
    up = Linear(2 * kDim, 2 * kDim, rng.fork("up"), {.bias = true});
    out = Linear(2 * kDim, 2, rng.fork("out"), {.bias = true});
  }
  void visit(const ParameterVisitor& p) override {
    p("table", table), p("q", maps[0]), p("k1", maps[1]), p("v1", maps[2]), p("up", up), p("out", out);
    if (of_pairs) p("k2", maps[3]), p("v2", maps[4]);
  }
  Var logits(const std::vector<int32_t>& tokens, std::span<const Segment> segments) {
    const Context c;
    const Var x = embedding(table.var, tokens), q = maps[0](x, c), k = maps[1](x, c), v = maps[2](x, c);
    Var y;
    if (of_pairs) {
      y = kronecker_attention({q, k, maps[3](x, c), v, maps[4](x, c)}, segments, {kHeads, 1});
    } else {
      std::vector<AttentionSegment> parts;
      for (const Segment& s : segments) parts.push_back({s.begin, s.length, 0, s.begin, s.length, 0});
      y = attention(q, {&k, 1}, {&v, 1}, parts, {.heads = kHeads, .kv_heads = kHeads, .scale = 1, .causal = false});
    }
    const Var both[] = {x, y};
    return out(silu(up(concat_columns(both), c)), c);
  }
  bool of_pairs;
  Parameter table;
  std::array<Linear, 5> maps;
  Linear up, out;
};

double match3_accuracy(bool pairs) {
  constexpr int64_t kModulus = 13, kLength = 10, kSteps = 1500;
  OneLayer layer(kModulus, pairs, Rng(3));
  train::Descent descent(named_parameters(layer), {.steps = kSteps, .rate = 5e-3, .warmup = kSteps / 20});
  const auto drawn = [&](int64_t count, Rng rng) {
    trained::Rows rows;
    for (int64_t r = 0; r < count; ++r) {
      std::vector<int32_t> x;
      for (int64_t i = 0; i < kLength; ++i) x.push_back(static_cast<int32_t>(rng.below(kModulus)));
      // Every other sequence is thinned out to few kinds, so that there are about as many tokens without a triple.
      if (r % 2)
        for (int32_t& a : x) a = x[static_cast<size_t>(rng.below(4))];
      rows.add(x, matches(x, kModulus));
    }
    return rows;
  };
  const Var identity([] {
    Tensor i = Tensor::zeros({2, 2});
    i.data()[0] = i.data()[3] = 1;
    return i;
  }());
  for (int64_t step = 1; step <= kSteps; ++step) {
    const trained::Rows rows = drawn(32, Rng(5).fork(static_cast<uint64_t>(step)));
    descent.step(linear_cross_entropy(layer.logits(rows.tokens, rows.segments), identity, rows.targets), {}, step);
  }
  NoGrad off;
  const trained::Rows rows = drawn(400, Rng(6));
  const Tensor logits = layer.logits(rows.tokens, rows.segments).value();
  int64_t right = 0, positive = 0;
  for (size_t t = 0; t < rows.targets.size(); ++t) {
    right += (logits.data()[2 * t + 1] > logits.data()[2 * t]) == (rows.targets[t] == 1);
    positive += rows.targets[t];
  }
  const auto all = static_cast<double>(rows.targets.size());
  std::printf("%s: accuracy %.4f (%.3f of the tokens have a triple)\n", pairs ? "pairs" : "tokens",
              static_cast<double>(right) / all, static_cast<double>(positive) / all);
  return static_cast<double>(right) / all;
}

TEST(SystemsP287, TrainedPairsFindTriplesThatTokensMiss) {
  const double tokens = match3_accuracy(false), pairs = match3_accuracy(true);
  EXPECT_GT(pairs, tokens);
}

}  // namespace sennit::systems_p287_test
