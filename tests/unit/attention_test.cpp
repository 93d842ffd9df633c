#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "base/rng.h"
#include "support/buffers.h"
#include "support/levels.h"

namespace sennit::attention_test {

using kernels::AttentionTask;
using kernels::CacheFormat;
using Doubles = std::vector<double>;

struct Shape4 {
  int64_t queries, keys, key_dim, value_dim;
};
struct Mask {
  const char* name;
  bool causal;
  int64_t window;
  float alibi;
};
const Mask kMasks[] = {{"none", false, 0, 0},           {"causal", true, 0, 0},
                       {"window", false, 9, 0},         {"causal window", true, 20, 0},
                       {"causal window 1", true, 1, 0}, {"causal alibi", true, 0, 0.25f},
                       {"alibi", false, 0, 0.125f},     {"causal window alibi", true, 70, 0.0625f}};

std::vector<float> random_floats(int64_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(n);
  for (auto& v : x) v = static_cast<float>(rng.normal());
  return x;
}

// Inputs in rows with gaps between them, one float off any alignment.
struct Inputs {
  Shape4 shape;
  Mask mask;
  int64_t offset;
  bool exact = true;
  int64_t key_stride = shape.key_dim + 3, value_stride = shape.value_dim + 5;
  float scale = 1 / std::sqrt(static_cast<float>(shape.key_dim));
  std::vector<float> q = random_floats(shape.queries * key_stride + 1, 1),
                     k = random_floats(shape.keys * key_stride + 1, 2),
                     v = random_floats(shape.keys * value_stride + 1, 3),
                     d_o = random_floats(shape.queries * value_stride + 1, 4);

  AttentionTask task() const {
    return {.q = q.data() + 1,
            .k = k.data() + 1,
            .v = v.data() + 1,
            .q_stride = key_stride,
            .k_stride = key_stride,
            .v_stride = value_stride,
            .queries = shape.queries,
            .keys = shape.keys,
            .key_dim = shape.key_dim,
            .value_dim = shape.value_dim,
            .offset = offset,
            .causal = mask.causal,
            .window = mask.window,
            .scale = scale,
            .alibi = mask.alibi,
            .exact = exact};
  }
  bool sees(int64_t i, int64_t j) const {
    const int64_t at = i + offset;
    return (!mask.causal || j <= at) && (mask.window == 0 || j > at - mask.window);
  }
  double score(int64_t i, int64_t j, double* size = nullptr) const {
    double s = 0, total = 0;
    for (int64_t c = 0; c < shape.key_dim; ++c) {
      const double term = double{q[1 + i * key_stride + c]} * k[1 + j * key_stride + c];
      s += term, total += std::abs(term);
    }
    const double bias = mask.alibi * std::abs(static_cast<double>(i + offset - j));
    if (size) *size = total * scale + bias;
    return s * scale - bias;
  }
  // Softmax weights of query i, zero where it sees nothing; ln of the sum of exponentials; how far they may be off.
  Doubles weights(int64_t i, double* lse = nullptr, double* doubt = nullptr) const {
    Doubles s(shape.keys, -INFINITY), p(shape.keys, 0);
    double top = -INFINITY, total = 0, largest = 0;
    for (int64_t j = 0; j < shape.keys; ++j) {
      double size = 0;
      if (sees(i, j)) s[j] = score(i, j, &size);
      top = std::max(top, s[j]), largest = std::max(largest, size);
    }
    for (int64_t j = 0; j < shape.keys; ++j) total += p[j] = sees(i, j) ? std::exp(s[j] - top) : 0;
    for (double& w : p) w = total > 0 ? w / total : 0;
    if (lse) *lse = total > 0 ? top + std::log(total) : -INFINITY;
    // Roundings of a score, of exp and of the sums, met as a random walk.
    if (doubt)
      *doubt = 0x1p-23 * ((std::sqrt(static_cast<double>(shape.key_dim)) + 2) * largest +
                          std::sqrt(static_cast<double>(shape.keys)) + 4);
    return p;
  }
  double value(int64_t j, int64_t c) const { return v[1 + j * value_stride + c]; }
  double d_out(int64_t i, int64_t c) const { return d_o[1 + i * value_stride + c]; }
};

struct Output {
  int64_t stride;
  std::vector<float> o, lse;
};

constexpr float kCanary = 33;

Output forward(const Inputs& x, int64_t step) {
  const AttentionTask t = x.task();
  Output out{t.value_dim + 2, std::vector<float>(t.queries * (t.value_dim + 2), kCanary),
             std::vector<float>(t.queries + 1, kCanary)};
  const int64_t room = kernels::attention().scratch_floats(t);
  for (int64_t begin = 0; begin < t.queries; begin += step) {
    std::vector<float> scratch(room + 1, NAN);
    scratch.back() = kCanary;
    kernels::attention().forward(t, begin, std::min(t.queries, begin + step), out.o.data(), out.stride, out.lse.data(),
                                 scratch.data());
    EXPECT_EQ(scratch.back(), kCanary) << "wrote past the scratch";
  }
  EXPECT_EQ(out.lse.back(), kCanary);
  for (int64_t i = 0; i < t.queries; ++i)
    for (int64_t c = t.value_dim; c < out.stride; ++c) EXPECT_EQ(out.o[i * out.stride + c], kCanary);
  return out;
}

void expect_close(const Inputs& x, const Output& got) {
  const Shape4& s = x.shape;
  for (int64_t i = 0; i < s.queries; ++i) {
    double lse, doubt;
    const Doubles p = x.weights(i, &lse, &doubt);
    if (std::isinf(lse))
      ASSERT_EQ(got.lse[i], -INFINITY);
    else
      ASSERT_NEAR(got.lse[i], lse, doubt + 0x1p-22 * std::abs(lse)) << "lse of " << i;
    for (int64_t c = 0; c < s.value_dim; ++c) {
      double want = 0, size = 0;
      for (int64_t j = 0; j < s.keys; ++j) want += p[j] * x.value(j, c), size += p[j] * std::abs(x.value(j, c));
      ASSERT_NEAR(got.o[i * got.stride + c], want, 2 * doubt * size)
          << x.mask.name << ", offset " << x.offset << ", " << s.queries << "x" << s.keys << " dims " << s.key_dim
          << " " << s.value_dim << " at " << i << ", " << c;
    }
  }
}

TEST(Attention, EveryMaskAndShapeAgreesWithDouble) {
  const Shape4 shapes[] = {{1, 1, 1, 1},     {1, 200, 64, 64},  {7, 5, 3, 5},      {63, 64, 16, 16}, {65, 63, 65, 33},
                           {97, 129, 16, 1}, {5, 65, 128, 128}, {100, 128, 1, 16}, {3, 0, 4, 4},     {0, 9, 4, 4}};
  for_each_level([&](IsaLevel) {
    for (const Shape4& s : shapes)
      for (const Mask& mask : kMasks)
        for (const int64_t offset : {int64_t{0}, s.keys - s.queries, int64_t{-3}, int64_t{70}}) {
          for (const bool exact : {true, false}) {
            const Inputs x{s, mask, offset, exact};
            expect_close(x, forward(x, 96));
          }
        }
  });
}

TEST(Attention, LargeScoresStayFinite) {
  for_each_level([](IsaLevel) {
    Inputs x{{20, 150, 16, 16}, kMasks[1], 130};
    x.scale = 40;
    expect_close(x, forward(x, 96));
  });
}

TEST(Attention, ARowHasTheSameBitsHoweverTheWorkIsCut) {
  for_each_level([](IsaLevel) {
    for (const Mask& mask : kMasks) {
      const Inputs x{{210, 210, 16, 20}, mask, 0};
      const Output whole = forward(x, 210);
      for (const int64_t step : {1, 2, 5, 6, 7, 64, 96, 97}) {
        const Output part = forward(x, step);
        ASSERT_EQ(std::memcmp(part.o.data(), whole.o.data(), 4 * whole.o.size()), 0) << mask.name << " by " << step;
        ASSERT_EQ(std::memcmp(part.lse.data(), whole.lse.data(), 4 * whole.lse.size()), 0) << mask.name;
      }
    }
  });
}

// Decoding: the last query alone against the keys so far.
TEST(Attention, ATokenAtATimeGivesTheBitsOfTheWhole) {
  for_each_level([](IsaLevel) {
    for (const Mask& mask : kMasks)
      for (const Shape4& shape : {Shape4{140, 140, 16, 20}, Shape4{140, 140, 64, 80}}) {
        if (!mask.causal) continue;
        const Inputs x{shape, mask, 0};
        const Output whole = forward(x, 140);
        std::vector<float> scratch(kernels::attention().scratch_floats(x.task()), NAN);
        for (int64_t i = 0; i < 140; ++i) {
          AttentionTask t = x.task();
          t.q += i * t.q_stride, t.queries = 1, t.keys = i + 1, t.offset = i;
          std::vector<float> o(shape.value_dim), lse(1);
          kernels::attention().forward(t, 0, 1, o.data(), shape.value_dim, lse.data(), scratch.data());
          ASSERT_EQ(std::memcmp(o.data(), &whole.o[i * whole.stride], 4 * o.size()), 0) << mask.name << " at " << i;
          ASSERT_EQ(lse[0], whole.lse[i]);
        }
      }
  });
}

// Which is how many queries go together, and whether their products are summed over lanes at the end: a row of a few
// then has the same bits alone and beside others, other ones than in order.
TEST(Attention, AFewQueriesMayBeSummedInAnotherOrderEachForItself) {
  for_each_level([](IsaLevel level) {
    for (const int64_t dim : {16, 48, 64, 80, 100})
      for (const int64_t keys : {5, 64, 130, 141}) {
        Inputs x{{8, keys, dim, 32}, kMasks[1], keys - 8, false};
        const Output whole = forward(x, 8);
        expect_close(x, whole);
        for (const int64_t step : {1, 2, 3, 5}) {
          const Output part = forward(x, step);
          ASSERT_EQ(std::memcmp(part.o.data(), whole.o.data(), 4 * whole.o.size()), 0) << dim << " by " << step;
        }
        x.exact = true;
        const bool whole_vectors = level != IsaLevel::scalar && dim % 16 == 0;
        if (keys > 100) {
          EXPECT_EQ(forward(x, 8).o != whole.o, whole_vectors) << dim;
        }
      }
  });
}

// Heads in turns, with slopes of their own, and as many rows as one head would pack keys for or fewer.
TEST(Attention, HeadsSideBySideGiveTheBitsOfEachAlone) {
  constexpr int64_t kHeads = 3, kKeys = 1130, kDim = 64, kRow = kHeads * kDim + 1;
  const auto k = random_floats(kKeys * kRow, 5), v = random_floats(kKeys * kRow, 6);
  for_each_level([&](IsaLevel) {
    for (const int64_t rows : {1, 4, 7, 20})
      for (const bool causal : {false, true}) {
        const auto q = random_floats(kHeads * rows * kDim, 7);
        std::vector<AttentionTask> tasks;
        for (int64_t h = 0; h < kHeads; ++h)
          tasks.push_back({.q = q.data() + h * rows * kDim,
                           .k = k.data() + h * kDim,
                           .v = v.data() + h * kDim,
                           .q_stride = kDim,
                           .k_stride = kRow,
                           .v_stride = kRow,
                           .queries = rows,
                           .keys = kKeys,
                           .key_dim = kDim,
                           .value_dim = kDim,
                           .offset = kKeys - rows,
                           .causal = causal,
                           .scale = 0.125f,
                           .alibi = 0.01f * static_cast<float>(h)});
        const int64_t each = rows * (kDim + 2);
        for (int64_t span = 0; span < kernels::attention().spans(tasks[0]); ++span) {
          std::vector<float> together(kHeads * each, NAN), alone(each, NAN),
              scratch(kernels::attention().scratch_floats(tasks[0]), NAN);
          kernels::attention().forward_span(tasks.data(), kHeads, 0, rows, span, together.data(), each, scratch.data());
          for (int64_t h = 0; h < kHeads; ++h) {
            kernels::attention().forward_span(&tasks[h], 1, 0, rows, span, alone.data(), 0, scratch.data());
            ASSERT_EQ(std::memcmp(alone.data(), &together[h * each], 4 * alone.size()), 0)
                << rows << " rows, head " << h;
          }
        }
      }
  });
}

TEST(Attention, WhatIsMaskedMayBeAnything) {
  for_each_level([](IsaLevel) {
    const Inputs x{{100, 100, 16, 16}, {"causal window", true, 30, 0}, 0};
    const Output whole = forward(x, 100);
    for (const int64_t at : {3, 50, 66, 99}) {
      Inputs poisoned = x;
      for (int64_t c = 0; c < 16; ++c) {
        poisoned.k[1 + at * x.key_stride + c] = NAN;
        poisoned.v[1 + at * x.value_stride + c] = c % 2 ? INFINITY : NAN;
      }
      const Output got = forward(poisoned, 100);
      for (int64_t i = 0; i < 100; ++i)
        if (!x.sees(i, at)) {
          ASSERT_EQ(std::memcmp(&got.o[i * got.stride], &whole.o[i * got.stride], 64), 0) << at << " changed " << i;
          ASSERT_EQ(got.lse[i], whole.lse[i]);
        }
    }
  });
}

// Keys and values in any format where no readable byte follows the last, against the same where others do.
TEST(Attention, NothingIsReadPastTheLastKey) {
  for_each_level([](IsaLevel) {
    for (const auto format : {CacheFormat::f32, CacheFormat::bf16, CacheFormat::f16, CacheFormat::q8_0})
      for (const int64_t dim : {16, 64, 96, 100})
        for (const int64_t keys : {1, 5, 17, 64, 71})
          for (const int64_t queries : {1, 9})
            for (const bool exact : {true, false}) {
              const int64_t bytes = kernels::cached_units(format, dim) * kernels::cached_unit_bytes(format);
              const Pages k(keys * bytes), v(keys * bytes);
              std::vector<std::byte> more_k((keys + 64) * bytes), more_v((keys + 64) * bytes);
              for (int64_t i = 0; i < keys * bytes; ++i)
                more_k[i] = static_cast<std::byte>(i * i % 61), more_v[i] = static_cast<std::byte>(i * 7 % 59);
              std::copy_n(more_k.data(), keys * bytes, k.end() - keys * bytes);
              std::copy_n(more_v.data(), keys * bytes, v.end() - keys * bytes);
              const auto q = random_floats(queries * dim, 1);
              AttentionTask t{.q = q.data(),
                              .k = k.end() - keys * bytes,
                              .v = v.end() - keys * bytes,
                              .q_stride = dim,
                              .k_stride = kernels::cached_units(format, dim),
                              .v_stride = kernels::cached_units(format, dim),
                              .queries = queries,
                              .keys = keys,
                              .key_dim = dim,
                              .value_dim = dim,
                              .scale = 1e-3f,
                              .format = format,
                              .exact = exact};
              std::vector<float> o(queries * dim), more_o(queries * dim), lse(queries),
                  scratch(kernels::attention().scratch_floats(t));
              kernels::attention().forward(t, 0, queries, o.data(), dim, lse.data(), scratch.data());
              t.k = more_k.data(), t.v = more_v.data();
              kernels::attention().forward(t, 0, queries, more_o.data(), dim, lse.data(), scratch.data());
              ASSERT_EQ(std::memcmp(o.data(), more_o.data(), 4 * o.size()), 0) << dim << " x " << keys;
            }
  });
}

struct Gradients {
  Doubles dq, dk, dv;  // rows without gaps
};

// By the formulas, in double; `sizes` gets the sums of magnitudes.
Gradients naive_gradients(const Inputs& x, Gradients* sizes = nullptr) {
  const Shape4& s = x.shape;
  Gradients g{Doubles(s.queries * s.key_dim), Doubles(s.keys * s.key_dim), Doubles(s.keys * s.value_dim)}, z = g;
  const auto add = [](double& to, double& size, double term) { to += term, size += std::abs(term); };
  for (int64_t i = 0; i < s.queries; ++i) {
    const Doubles p = x.weights(i);
    Doubles dp(s.keys);
    double delta = 0, delta_size = 0;
    for (int64_t j = 0; j < s.keys; ++j)
      for (int64_t c = 0; c < s.value_dim; ++c) {
        dp[j] += x.d_out(i, c) * x.value(j, c);
        add(delta, delta_size, p[j] * x.d_out(i, c) * x.value(j, c));
        const int64_t at = j * s.value_dim + c;
        add(g.dv[at], z.dv[at], p[j] * x.d_out(i, c));
      }
    for (int64_t j = 0; j < s.keys; ++j)
      for (int64_t c = 0; c < s.key_dim; ++c) {
        const double q = x.q[1 + i * x.key_stride + c], k = x.k[1 + j * x.key_stride + c];
        const double ds = x.scale * p[j] * (dp[j] - delta);
        const double doubt = x.scale * p[j] * (std::abs(dp[j]) + delta_size + 4);
        g.dq[i * s.key_dim + c] += ds * k, z.dq[i * s.key_dim + c] += doubt * std::abs(k);
        g.dk[j * s.key_dim + c] += ds * q, z.dk[j * s.key_dim + c] += doubt * std::abs(q);
      }
  }
  if (sizes) *sizes = z;
  return g;
}

double loss(const Inputs& x) {
  double total = 0;
  for (int64_t i = 0; i < x.shape.queries; ++i) {
    const Doubles p = x.weights(i);
    for (int64_t j = 0; j < x.shape.keys; ++j)
      for (int64_t c = 0; c < x.shape.value_dim; ++c) total += p[j] * x.value(j, c) * x.d_out(i, c);
  }
  return total;
}

TEST(Attention, TheFormulasAreTheSlopesOfTheLoss) {
  for (const Mask& mask : kMasks) {
    Inputs x{{5, 7, 3, 2}, mask, 2};
    const Gradients g = naive_gradients(x);
    const auto check = [&](std::vector<float>& values, int64_t rows, int64_t width, int64_t stride,
                           const Doubles& want) {
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < width; ++c) {
          float& at = values[1 + r * stride + c];
          const float before = at, up = before + 0x1p-10f, down = before - 0x1p-10f;
          at = up;
          const double high = loss(x);
          at = down;
          const double low = loss(x);
          at = before;
          ASSERT_NEAR(want[r * width + c], (high - low) / (double{up} - double{down}), 1e-5) << mask.name;
        }
    };
    check(x.q, 5, 3, x.key_stride, g.dq);
    check(x.k, 7, 3, x.key_stride, g.dk);
    check(x.v, 7, 2, x.value_stride, g.dv);
  }
}

void expect_gradient(const std::vector<float>& got, int64_t rows, int64_t width, int64_t stride, const Doubles& want,
                     const Doubles& sizes, double doubt, const std::string& what) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < stride; ++c) {
      const float x = got[1 + r * stride + c];
      if (c >= width)
        ASSERT_EQ(x, 1) << what << " wrote beyond row " << r;
      else
        ASSERT_NEAR(x, 1 + want[r * width + c], doubt * (1 + sizes[r * width + c])) << what << " " << r << " " << c;
    }
}

TEST(Attention, GradientsAgreeWithDouble) {
  const Shape4 shapes[] = {{1, 1, 1, 1},      {1, 130, 16, 16}, {7, 5, 3, 5}, {65, 63, 65, 33}, {97, 129, 16, 1},
                           {5, 65, 128, 128}, {3, 0, 4, 4},     {0, 9, 4, 4}, {200, 70, 2, 16}};
  for_each_level([&](IsaLevel) {
    for (const Shape4& s : shapes)
      for (const Mask& mask : kMasks)
        for (const int64_t offset : {int64_t{0}, s.keys - s.queries, int64_t{-3}}) {
          const Inputs x{s, mask, offset};
          const AttentionTask t = x.task();
          std::vector<float> o(s.queries * x.value_stride + 1), lse(s.queries + 1);
          std::vector<float> dq(x.q.size(), 1), dk(x.k.size(), 1), dv(x.v.size(), 1);
          const int64_t room = kernels::attention().scratch_floats(t);
          std::vector<float> scratch(room + 1, NAN);
          scratch.back() = kCanary;
          kernels::attention().forward(t, 0, s.queries, o.data() + 1, x.value_stride, lse.data(), scratch.data());
          kernels::attention().backward(t, o.data() + 1, x.d_o.data() + 1, x.value_stride, lse.data(), dq.data() + 1,
                                        dk.data() + 1, dv.data() + 1, x.key_stride, x.key_stride, x.value_stride,
                                        scratch.data());
          ASSERT_EQ(scratch.back(), kCanary) << "wrote past the scratch";
          Gradients sizes;
          const Gradients want = naive_gradients(x, &sizes);
          double doubt = 0;
          for (int64_t i = 0; i < s.queries; ++i) {
            double lse_i, d;
            x.weights(i, &lse_i, &d);
            doubt = std::max(doubt, d);
          }
          SCOPED_TRACE(std::string(mask.name) + ", " + std::to_string(s.queries) + "x" + std::to_string(s.keys));
          expect_gradient(dq, s.queries, s.key_dim, x.key_stride, want.dq, sizes.dq, doubt, "dq");
          expect_gradient(dk, s.keys, s.key_dim, x.key_stride, want.dk, sizes.dk, doubt, "dk");
          expect_gradient(dv, s.keys, s.value_dim, x.value_stride, want.dv, sizes.dv, doubt, "dv");
        }
  });
}

}  // namespace sennit::attention_test
