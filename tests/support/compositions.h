#pragma once
#include <cmath>
#include <vector>

#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "ops/norms.h"
#include "ops/products.h"
#include "sequence/attention.h"
#include "sequence/rotary.h"
#include "support/operations.h"

// Fused operations put together from plain ones, token by token where they are recurrent: the same values and the same
// gradients by another way.
namespace sennit::composed {

template <class Value>
Var constant(Shape shape, Value&& value) {
  Tensor t(shape);
  for (int64_t i = 0; i < t.elements(); ++i)
    t.data()[i] = static_cast<float>(value(i / t.row_size(), i % t.row_size()));
  return Var(t);
}

inline Var power(const Var& x, float exponent) {
  return exp(scale(log(x), exponent));
}

inline Var linear(const Var& x, const Var& w, const Var& bias) {
  const Var y = matmul(x, w, {.transpose_b = true});
  return bias ? add_row(y, bias) : y;
}

inline Var times_weight(const Var& x, const Var& weight, int64_t groups) {
  if (!weight) return x;
  const bool shared = weight.value().elements() < x.columns();
  return multiply_row(x, shared ? repeat_groups(reshape(weight, {1, weight.value().elements()}), 1, groups) : weight);
}

inline Var rmsnorm(const Var& x, const Var& weight, NormOptions o) {
  const float d = static_cast<float>(x.columns() / o.groups);
  return times_weight(multiply_groups(x, power(affine(sum_groups(x * x, o.groups), 1 / d, o.epsilon), -0.5f)), weight,
                      o.groups);
}

inline Var layernorm(const Var& x, const Var& weight, const Var& bias, NormOptions o) {
  const int64_t width = x.columns() / o.groups;
  const Var mean = scale(sum_groups(x, o.groups), 1 / static_cast<float>(width));
  const Var centred = x - multiply_groups(Var(Tensor::full(x.shape(), 1)), mean);
  const Var y = composed::rmsnorm(centred, weight, o);
  if (!bias) return y;
  return add_row(y,
                 bias.value().elements() < x.columns() ? repeat_groups(reshape(bias, {1, width}), 1, o.groups) : bias);
}

inline Var l2norm(const Var& x, NormOptions o) {
  return multiply_groups(x, power(affine(sum_groups(x * x, o.groups), 1, o.epsilon), -0.5f));
}

inline Var softmax(const Var& x) {
  const Var e = exp(x);
  return multiply_groups(e, power(sum_groups(e, 1), -1));
}

inline Var linear_cross_entropy(const Var& x, const Var& w, const std::vector<int32_t>& targets) {
  const Var p = composed::softmax(composed::linear(x, w, {}));
  float count = 0;
  for (const int32_t t : targets) count += t >= 0 ? 1.0f : 0.0f;
  const Var chosen = constant(p.shape(), [&](int64_t i, int64_t j) { return targets[i] == j ? 1 : 0; });
  return scale(sum(chosen * log(p)), -1 / count);
}

inline Var embedding(const Var& table, const std::vector<int32_t>& ids) {
  return matmul(constant({std::ssize(ids), table.rows()}, [&](int64_t i, int64_t j) { return ids[i] == j ? 1 : 0; }),
                table);
}

inline Var rotary(const Var& x, std::span<const Segment> segments, const RotaryOptions& o) {
  const int64_t d = x.columns() / o.heads, pairs = o.dims / 2;
  std::vector<int64_t> position(x.rows());
  for (const Segment& s : segments)
    for (int64_t t = 0; t < s.length; ++t) position[s.begin + t] = s.position + t;
  const auto angle = [&](int64_t row, int64_t column) {
    const int64_t pair = o.interleaved ? column % d / 2 : column % d % pairs;
    return column % d < o.dims ? static_cast<double>(position[row]) *
                                     std::pow(o.base, -2.0 * static_cast<double>(pair) / static_cast<double>(o.dims))
                               : 0;
  };
  // Each number's partner, with the sign that the sine takes.
  const Var swap = constant({x.columns(), x.columns()}, [&](int64_t from, int64_t to) {
    const int64_t c = to % d, step = o.interleaved ? 1 : pairs;
    const bool first = o.interleaved ? c % 2 == 0 : c < pairs;
    if (c >= o.dims || from != to + (first ? step : -step)) return 0;
    return first ? -1 : 1;
  });
  return x * constant(x.shape(), [&](int64_t i, int64_t j) { return std::cos(angle(i, j)); }) +
         matmul(x, swap) * constant(x.shape(), [&](int64_t i, int64_t j) { return std::sin(angle(i, j)); });
}

inline Var attention(const Var& q, const Var& k, const Var& v, std::span<const AttentionSegment> segments,
                     const AttentionOptions& o) {
  const int64_t dk = q.columns() / o.heads, dv = v.columns() / o.kv_heads;
  std::vector<Var> parts;
  for (const AttentionSegment& s : segments) {
    std::vector<Var> heads;
    for (int64_t h = 0; h < o.heads; ++h) {
      const int64_t g = h * o.kv_heads / o.heads;
      const Var scores = matmul(columns(rows(q, s.query_begin, s.queries), h * dk, dk),
                                columns(rows(k, s.key_begin, s.keys), g * dk, dk), {.transpose_b = true});
      const Var bias = constant(scores.shape(), [&](int64_t i, int64_t j) {
        const int64_t distance = i + s.offset - j;
        const bool seen = (!o.causal || distance >= 0) && (!o.window || distance < o.window);
        return seen ? (o.slopes.empty() ? 0.0 : -o.slopes[h] * std::fabs(static_cast<double>(distance))) : -1e9;
      });
      heads.push_back(
          matmul(composed::softmax(scale(scores, o.scale) + bias), columns(rows(v, s.key_begin, s.keys), g * dv, dv)));
    }
    parts.push_back(concat_columns(heads));
  }
  return concat_rows(parts);
}

// What a recurrence is at one token: y from the token's rows and its state, which moves on.
template <class Step>
Vars recurrence(int64_t begin, int64_t length, Var state, Step&& step) {
  std::vector<Var> ys;
  for (int64_t t = begin; t < begin + length; ++t) ys.push_back(step(t, state));
  return {concat_rows(ys), state};
}

inline Var times(const Var& x, const Var& factor) {
  return reshape(multiply_groups(reshape(x, {1, x.value().elements()}), factor), x.shape());
}

// S [H, K, V]; g [N, H K], [N, H] or undefined.
inline Var gla_step(const Vars& in, int64_t t, Var& state, int64_t heads, float scaled) {
  const int64_t key = in[0].columns() / heads, value = in[2].columns() / heads;
  std::vector<Var> ys, states;
  for (int64_t h = 0; h < heads; ++h) {
    const auto at = [&](const Var& x, int64_t width) { return columns(rows(x, t, 1), h * width, width); };
    Var s = reshape(rows(state, h, 1), {key, value});
    if (in[3])
      s = in[3].columns() == heads && key > 1 ? times(s, exp(at(in[3], 1)))
                                              : multiply_groups(s, exp(transpose(at(in[3], key))));
    s = s + matmul(at(in[1], key), at(in[2], value), {.transpose_a = true});
    ys.push_back(scale(matmul(at(in[0], key), s), scaled));
    states.push_back(reshape(s, {1, key, value}));
  }
  state = concat_rows(states);
  return concat_columns(ys);
}

// q, k, v, beta [N, H], g [N, H] or undefined.
inline Var delta_step(const Vars& in, int64_t t, Var& state, int64_t heads, float scaled) {
  const int64_t key = in[0].columns() / heads, value = in[2].columns() / heads;
  std::vector<Var> ys, states;
  for (int64_t h = 0; h < heads; ++h) {
    const auto at = [&](const Var& x, int64_t width) { return columns(rows(x, t, 1), h * width, width); };
    Var s = reshape(rows(state, h, 1), {key, value});
    const Var k = at(in[1], key);
    if (in[4]) s = times(s, exp(at(in[4], 1)));
    s = s + matmul(k, times(at(in[2], value) - matmul(k, s), at(in[3], 1)), {.transpose_a = true});
    ys.push_back(scale(matmul(at(in[0], key), s), scaled));
    states.push_back(reshape(s, {1, key, value}));
  }
  state = concat_rows(states);
  return concat_columns(ys);
}

// x, dt, A, B, C, D; h [C, S].
inline Var scan_step(const Vars& in, int64_t t, Var& h) {
  const auto at = [&](const Var& x) { return rows(x, t, 1); };
  const Var dt = transpose(at(in[1]));
  h = exp(multiply_groups(in[2], dt)) * h + matmul(at(in[1]) * at(in[0]), at(in[3]), {.transpose_a = true});
  return matmul(at(in[4]), h, {.transpose_b = true}) + multiply_row(at(in[0]), in[5]);
}

// x of one segment, weight, bias or undefined; state [W - 1, C].
inline Vars short_conv(const Var& x, const Var& weight, const Var& bias, const Var& state) {
  const Var both[] = {state, x};
  const Var past = concat_rows(both);
  Var y;
  for (int64_t j = 0; j < weight.columns(); ++j) {
    const Var tap = multiply_row(rows(past, j, x.rows()), reshape(columns(weight, j, 1), {weight.rows()}));
    y = y ? y + tap : tap;
  }
  return {bias ? add_row(y, bias) : y, rows(past, x.rows(), weight.columns() - 1)};
}

}  // namespace sennit::composed
