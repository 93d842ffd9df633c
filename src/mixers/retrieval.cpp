#include "mixers/retrieval.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "ops/arithmetic.h"

namespace sennit::mixers {
namespace {

// Which heads [N, H] of `after` moved by more than the tolerance; those that did not move before stay.
Tensor still_moving(const Tensor& moving, const Tensor& before, const Tensor& after, double tolerance) {
  const int64_t heads = moving.row_size(), dim = before.row_size() / heads;
  Tensor now(moving.shape());
  for (int64_t i = 0; i < moving.elements(); ++i) {
    double square = 0;
    for (int64_t c = i * dim; c < (i + 1) * dim; ++c) {
      const double by = double{after.data()[c]} - before.data()[c];
      square += by * by;
    }
    now.data()[i] = moving.data()[i] != 0 && std::sqrt(square) > tolerance;
  }
  return now;
}

}  // namespace

Fields Retrieval::fields() {
  return {{"updates", &updates, "steps of retrieval, at most", {.min = 1, .max = 64}},
          {"beta", &beta, "the inverse temperature; 0: 1 / sqrt(d_model / heads)", {.min = 0, .max = 1e3}},
          {"tolerance",
           &tolerance,
           "a state that an update moves by no more stays; 0: all updates are made",
           {.min = 0, .max = 1e3}}};
}

void Retrieval::set_beta(int64_t dim) {
  if (beta == 0) beta = 1 / std::sqrt(static_cast<double>(dim));
}

AttentionOptions Retrieval::attention(int64_t heads, bool causal) const {
  return {.heads = heads, .kv_heads = heads, .scale = static_cast<float>(beta), .causal = causal};
}

Var settled(Var state, std::span<const Var> keys, std::span<const AttentionSegment> segments,
            const AttentionOptions& one, const Retrieval& retrieval) {
  Tensor moving;  // of the heads that have not come to rest; undefined: none can
  if (retrieval.tolerance > 0) moving = Tensor::full({state.rows(), one.heads}, 1);
  for (int64_t i = 1; i < retrieval.updates; ++i) {
    const Var next = attention(state, keys, keys, segments, one), before = std::exchange(state, next);
    if (!moving) continue;
    const Var takes(moving);
    state = multiply_groups(next, takes) + multiply_groups(before, affine(takes, -1, 1));
    moving = still_moving(moving, before.value(), next.value(), retrieval.tolerance);
    if (std::none_of(moving.span().begin(), moving.span().end(), [](float m) { return m != 0; })) break;
  }
  return state;
}

naive::Matrix naive_settled(naive::Matrix state, const naive::Matrix& keys, const naive::AttentionView& view,
                            const Retrieval& retrieval) {
  const int64_t dim = state.cols / view.heads;
  std::vector<bool> there(static_cast<size_t>(state.rows * view.heads), false);
  for (int64_t i = 1; i < retrieval.updates; ++i) {
    const naive::Matrix next = naive::attention(state, keys, keys, view);
    for (int64_t t = 0; t < state.rows; ++t)
      for (int64_t h = 0; h < view.heads; ++h) {
        if (there[static_cast<size_t>(t * view.heads + h)]) continue;
        double square = 0;
        for (int64_t c = h * dim; c < (h + 1) * dim; ++c) {
          square += (next(t, c) - state(t, c)) * (next(t, c) - state(t, c));
          state(t, c) = next(t, c);
        }
        there[static_cast<size_t>(t * view.heads + h)] =
            retrieval.tolerance > 0 && std::sqrt(square) <= retrieval.tolerance;
      }
  }
  return state;
}

}  // namespace sennit::mixers
