#include "mixers/retrieval.h"

#include <algorithm>
#include <cmath>

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

Var settled(Var state, std::span<const Var> keys, std::span<const AttentionSegment> segments,
            const AttentionOptions& one, const Retrieval& retrieval) {
  Tensor moving = Tensor::full({state.rows(), one.heads}, 1);
  for (int64_t i = 1; i < retrieval.updates; ++i) {
    Var next = attention(state, keys, keys, segments, one);
    if (retrieval.tolerance > 0) {
      const Tensor now = still_moving(moving, state.value(), next.value(), retrieval.tolerance);
      const Var takes(moving);
      state = multiply_groups(next, takes) + multiply_groups(state, affine(takes, -1, 1));
      moving = now;
      if (std::none_of(moving.span().begin(), moving.span().end(), [](float m) { return m != 0; })) break;
    } else {
      state = next;
    }
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
