#include "kernels/paired_attention.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "base/rng.h"
#include "sequence/attention.h"
#include "support/levels.h"

namespace sennit::paired_attention_test {

using kernels::AttentionTask;
using Doubles = std::vector<double>;
using Floats = std::vector<float>;

// Numbers of 8 significant bits: only weights and their gradients are left to be rounded.
Floats draw(int64_t n, uint64_t seed) {
  Rng rng(seed);
  Floats x(n);
  for (float& v : x) v = std::ldexp(std::round(std::ldexp(static_cast<float>(rng.normal()), 5)), -5);
  return x;
}

struct Mask {
  const char* name;
  bool causal;
  int64_t window, block;
  float alibi;
};
const Mask kMasks[] = {{"none", false, 0, 0, 0},
                       {"causal", true, 0, 0, 0},
                       {"causal window", true, 20, 0, 0},
                       {"causal alibi", true, 0, 0, 0.25f},
                       {"causal blocks", true, 0, 48, 0}};

struct Case {
  int64_t queries, keys, key_dim, value_dim, offset;
  Mask mask;
  int64_t k_stride = key_dim + 3, v_stride = value_dim + 5;
  Floats q = draw(queries * k_stride + 1, 1), k = draw(keys * k_stride + 1, 2), v = draw(keys * v_stride + 1, 3),
         d_o = draw(queries * v_stride + 1, 4);
  float scale = 0.25f;

  AttentionTask task() const {
    return {.q = q.data() + 1,
            .k = k.data() + 1,
            .v = v.data() + 1,
            .q_stride = k_stride,
            .k_stride = k_stride,
            .v_stride = v_stride,
            .queries = queries,
            .keys = keys,
            .key_dim = key_dim,
            .value_dim = value_dim,
            .offset = offset,
            .causal = mask.causal,
            .window = mask.window,
            .block = mask.block,
            .position = offset,
            .scale = scale,
            .alibi = mask.alibi};
  }
  bool sees(int64_t i, int64_t j) const {
    const int64_t at = i + offset;
    return (!mask.causal || j <= at) && (mask.window == 0 || j > at - mask.window) &&
           (mask.block == 0 || j / mask.block == at / mask.block);
  }
  double at(const Floats& x, int64_t stride, int64_t i, int64_t c) const { return x[1 + i * stride + c]; }
};

// w_ij, and ds_ij = scale w_ij (do_i . v_j - do_i . o_i); rows of zeros where a query sees nothing.
struct Naive {
  std::vector<Doubles> w, ds;
  Doubles stat, doubt;  // of do_i . o_i, in units of a weight's rounding
  std::vector<Doubles> o;
  explicit Naive(const Case& x) : stat(x.queries, -INFINITY), doubt(x.queries) {
    for (int64_t i = 0; i < x.queries; ++i) {
      Doubles s(x.keys, -INFINITY), p(x.keys), slope(x.keys), y(x.value_dim);
      double top = -INFINITY, total = 0, delta = 0;
      for (int64_t j = 0; j < x.keys; ++j) {
        if (!x.sees(i, j)) continue;
        s[j] = 0;
        for (int64_t c = 0; c < x.key_dim; ++c) s[j] += x.at(x.q, x.k_stride, i, c) * x.at(x.k, x.k_stride, j, c);
        s[j] = s[j] * x.scale - x.mask.alibi * std::abs(static_cast<double>(i + x.offset - j));
        top = std::max(top, s[j]);
      }
      for (int64_t j = 0; j < x.keys; ++j) total += p[j] = std::isinf(s[j]) ? 0 : std::exp(s[j] - top);
      if (total > 0) stat[i] = top + std::log(total);
      for (int64_t j = 0; j < x.keys; ++j) {
        p[j] = total > 0 ? p[j] / total : 0;
        for (int64_t c = 0; c < x.value_dim; ++c) {
          y[c] += p[j] * x.at(x.v, x.v_stride, j, c);
          doubt[i] += p[j] * std::fabs(x.at(x.v, x.v_stride, j, c) * x.at(x.d_o, x.v_stride, i, c));
        }
      }
      for (int64_t c = 0; c < x.value_dim; ++c) delta += x.at(x.d_o, x.v_stride, i, c) * y[c];
      for (int64_t j = 0; j < x.keys; ++j) {
        for (int64_t c = 0; c < x.value_dim; ++c) slope[j] += x.at(x.d_o, x.v_stride, i, c) * x.at(x.v, x.v_stride, j, c);
        slope[j] = x.scale * p[j] * (slope[j] - delta);
      }
      w.push_back(p), ds.push_back(slope), o.push_back(y);
    }
  }
};

struct Results {
  Floats o, stat, dq, dk, dv;
};

constexpr float kCanary = 33;

Results run(const Case& x, const kernels::PanelKernels& panels, int64_t step) {
  const AttentionTask t = x.task();
  const kernels::PairedAttention& kernel = kernels::paired_attention();
  const auto packed_for = [&](bool backward) {
    Floats packed(kernel.packed_floats(t, backward) + 1, NAN);
    packed.back() = kCanary;
    const int64_t blocks = (t.keys + kernels::kPairedKeys - 1) / kernels::kPairedKeys;
    for (int64_t b = 0; b < blocks; b += 2) kernel.pack(t, panels, backward, b, std::min(blocks, b + 2), packed.data());
    EXPECT_EQ(packed.back(), kCanary);
    return packed;
  };
  const Floats ahead = packed_for(false), behind = packed_for(true);
  Results r{Floats(t.queries * x.v_stride + 1, kCanary), Floats(t.queries + 1, kCanary), Floats(t.queries * x.k_stride, 1),
            Floats(t.keys * x.k_stride, 1), Floats(t.keys * x.v_stride, 1)};
  Floats scratch(kernel.forward_floats(t) + 1, NAN);
  scratch.back() = kCanary;
  for (int64_t i = 0; i < t.queries; i += step)
    kernel.forward(t, panels, ahead.data(), i, std::min(t.queries, i + step), r.o.data(), x.v_stride, r.stat.data(),
                   scratch.data());
  EXPECT_EQ(scratch.back(), kCanary);
  Floats back(kernel.backward_floats(t) + 1, NAN);
  back.back() = kCanary;
  kernel.backward(t, panels, behind.data(), r.o.data(), x.d_o.data() + 1, x.v_stride, r.stat.data(), r.dq.data(),
                  r.dk.data(), r.dv.data(), x.k_stride, x.k_stride, x.v_stride, back.data());
  EXPECT_EQ(back.back(), kCanary);
  EXPECT_EQ(r.stat.back(), kCanary);
  return r;
}

// A sum of terms that were each rounded to bf16, half a last digit of 8 bits and what f32 adds, after the factors' own
// doubt.
void expect_sum(double got, double want, double size, const std::string& where) {
  ASSERT_LE(std::fabs(got - want), (0x1p-8 + 1e-4) * size + 1e-6) << where << ": " << got << " for " << want;
}

void expect_close(const Case& x, const Results& r, const std::string& level) {
  const Naive naive(x);
  for (int64_t i = 0; i < x.queries; ++i) {
    if (std::isinf(naive.stat[i])) ASSERT_EQ(r.stat[i], -INFINITY);
    else ASSERT_NEAR(r.stat[i], naive.stat[i], 1e-4) << level;
    for (int64_t c = 0; c < x.value_dim; ++c) {
      double size = 0;
      for (int64_t j = 0; j < x.keys; ++j) size += naive.w[i][j] * std::fabs(x.at(x.v, x.v_stride, j, c));
      expect_sum(r.o[i * x.v_stride + c], naive.o[i][c], size, fmt::format("{} {} o {} {}", level, x.mask.name, i, c));
    }
    for (int64_t c = 0; c < x.key_dim; ++c) {
      double sum = 0, size = 0;
      for (int64_t j = 0; j < x.keys; ++j) {
        const double term = naive.ds[i][j] * x.at(x.k, x.k_stride, j, c);
        sum += term, size += std::fabs(term);
      }
      // do_i . o_i is of the rounded o: ds bears its doubt on every key.
      for (int64_t j = 0; j < x.keys; ++j)
        size += naive.doubt[i] * x.scale * naive.w[i][j] * std::fabs(x.at(x.k, x.k_stride, j, c));
      expect_sum(r.dq[i * x.k_stride + c] - 1, sum, size, fmt::format("{} {} dq {} {}", level, x.mask.name, i, c));
    }
  }
  for (int64_t j = 0; j < x.keys; ++j) {
    for (int64_t c = 0; c < x.value_dim; ++c) {
      double sum = 0, size = 0;
      for (int64_t i = 0; i < x.queries; ++i) {
        const double term = naive.w[i][j] * x.at(x.d_o, x.v_stride, i, c);
        sum += term, size += std::fabs(term);
      }
      expect_sum(r.dv[j * x.v_stride + c] - 1, sum, size, fmt::format("{} {} dv {} {}", level, x.mask.name, j, c));
    }
    for (int64_t c = 0; c < x.key_dim; ++c) {
      double sum = 0, size = 0;
      for (int64_t i = 0; i < x.queries; ++i) {
        const double term = naive.ds[i][j] * x.at(x.q, x.k_stride, i, c);
        sum += term;
        size += std::fabs(term) + naive.doubt[i] * x.scale * naive.w[i][j] * std::fabs(x.at(x.q, x.k_stride, i, c));
      }
      expect_sum(r.dk[j * x.k_stride + c] - 1, sum, size, fmt::format("{} {} dk {} {}", level, x.mask.name, j, c));
    }
  }
}

TEST(PairedAttention, EveryMaskAndShapeAgreesWithDouble) {
  const int64_t shapes[][5] = {{1, 1, 1, 1, 0},      {70, 70, 64, 64, 0}, {130, 200, 64, 33, 70}, {64, 64, 16, 16, 0},
                               {33, 65, 65, 128, 5}, {3, 0, 4, 4, 0},     {0, 9, 4, 4, 0},        {100, 40, 8, 8, -20}};
  for_each_level([&](IsaLevel level) {
    const kernels::Gemm& gemm = kernels::gemm();
    for (const auto* panels : {gemm.bf16.wide, gemm.bf16.narrow})
      for (const auto& s : shapes)
        for (const Mask& mask : kMasks) {
          const Case x{s[0], s[1], s[2], s[3], s[4], mask};
          expect_close(x, run(x, *panels, 1000), to_string(level));
          if (testing::Test::HasFatalFailure()) return;
        }
  });
}

// Scores of hundreds, so that weights taken against those of a row's first block would be infinite in a later one.
TEST(PairedAttention, ScoresMayRiseFar) {
  for_each_level([&](IsaLevel level) {
    for (const Mask& mask : kMasks)
      for (const float scale : {4.0f, 32.0f}) {
        Case x{100, 300, 32, 32, 200, mask};
        x.scale = scale;
        const Results r = run(x, *kernels::gemm().bf16.timed, 1000), cut = run(x, *kernels::gemm().bf16.timed, 37);
        EXPECT_EQ(r.o, cut.o) << to_string(level) << " " << mask.name;
        const Naive naive(x);
        for (int64_t i = 0; i < x.queries; ++i) {
          ASSERT_NEAR(r.stat[i], naive.stat[i], 1e-6 * std::fabs(naive.stat[i]) + 1e-3) << to_string(level) << " " << mask.name;
          for (int64_t c = 0; c < x.value_dim; ++c) {
            double size = 0;
            for (int64_t j = 0; j < x.keys; ++j) size += naive.w[i][j] * std::fabs(x.at(x.v, x.v_stride, j, c));
            expect_sum(r.o[i * x.v_stride + c], naive.o[i][c], size + 0.01, fmt::format("{} {} o {} {}", to_string(level), mask.name, i, c));
          }
        }
        if (testing::Test::HasFatalFailure()) return;
      }
  });
}

TEST(PairedAttention, RowsDoNotDependOnWhereTheyAreCut) {
  for_each_level([&](IsaLevel) {
    const kernels::PanelKernels& panels = *kernels::gemm().bf16.timed;
    const Case x{150, 150, 40, 24, 0, kMasks[1]};
    const Results whole = run(x, panels, 1000), cut = run(x, panels, 37);
    EXPECT_EQ(whole.o, cut.o);
    EXPECT_EQ(whole.stat, cut.stat);
    // The first 90 tokens alone, and tokens 90.. with their past, as a prompt in two pieces.
    Case first = x;
    first.queries = first.keys = 90;
    const Results start = run(first, panels, 1000);
    EXPECT_EQ(std::memcmp(start.o.data(), whole.o.data(), 90 * x.v_stride * sizeof(float)), 0);
    Case rest = x;
    rest.queries = 60, rest.offset = 90;
    rest.q.erase(rest.q.begin(), rest.q.begin() + 90 * x.k_stride);
    const Results end = run(rest, panels, 1000);
    EXPECT_EQ(std::memcmp(end.o.data(), whole.o.data() + 90 * x.v_stride, 60 * x.v_stride * sizeof(float)), 0);
  });
}

// Two segments, one with a past, of four heads that share two key-value heads; a third is too short to be paired.
struct Packed {
  Var q, k, v, y;
  explicit Packed(bool paired) {
    Rng rng(7);
    const auto rows = [&](int64_t n, int64_t width, const char* name) {
      Tensor t({n, width});
      Rng stream = rng.fork(name);
      for (float& x : t.span()) x = static_cast<float>(stream.normal());
      return Var::leaf(std::move(t));
    };
    q = rows(175, 4 * 24, "q"), k = rows(215, 2 * 24, "k"), v = rows(215, 2 * 40, "v");
    const AttentionSegment segments[] = {{0, 100, 0, 0, 100, 0}, {100, 70, 0, 100, 110, 40}, {170, 5, 0, 210, 5, 0}};
    y = attention(q, std::span(&k, 1), std::span(&v, 1), segments, {.heads = 4, .kv_heads = 2, .scale = 0.2f, .paired = paired});
    Tensor d(y.shape());
    Rng stream = rng.fork("d");
    for (float& x : d.span()) x = static_cast<float>(stream.normal());
    backward(y, d);
  }
};

double apart(const Tensor& a, const Tensor& b) {
  double most = 0, size = 0;
  for (int64_t i = 0; i < a.elements(); ++i)
    most = std::max(most, std::fabs(double{a.data()[i]} - b.data()[i])), size = std::max(size, std::fabs(double{b.data()[i]}));
  return most / size;
}

TEST(PairedAttention, TheOperationPairsLongSegmentsAlone) {
  for_each_level([&](IsaLevel level) {
    const Packed plain(false), paired(true);
    EXPECT_GT(apart(paired.y.value(), plain.y.value()), 1e-5) << to_string(level);
    EXPECT_LT(apart(paired.y.value(), plain.y.value()), 0.01) << to_string(level);
    EXPECT_EQ(apart(paired.y.value().slice(170, 5), plain.y.value().slice(170, 5)), 0);
    EXPECT_LT(apart(paired.q.grad(), plain.q.grad()), 0.02) << to_string(level);
    EXPECT_LT(apart(paired.k.grad(), plain.k.grad()), 0.02) << to_string(level);
    EXPECT_LT(apart(paired.v.grad(), plain.v.grad()), 0.02) << to_string(level);
  });
}

TEST(PairedAttention, ThreadsDoNotShow) {
  const int before = thread_count();
  set_thread_count(1);
  const Packed one(true);
  set_thread_count(3);
  const Packed three(true);
  set_thread_count(before);
  EXPECT_EQ(apart(one.y.value(), three.y.value()), 0);
  EXPECT_EQ(apart(one.q.grad(), three.q.grad()), 0);
  EXPECT_EQ(apart(one.k.grad(), three.k.grad()), 0);
  EXPECT_EQ(apart(one.v.grad(), three.v.grad()), 0);
}

}  // namespace sennit::paired_attention_test
