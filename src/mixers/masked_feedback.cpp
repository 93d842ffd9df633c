#include "mixers/masked_feedback.h"

#include <cmath>

#include "nn/init.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/products.h"
#include "tensor/pooled.h"

namespace sennit::mixers {

Fields MaskedFeedback::Options::fields() {
  return {{"rank", &rank, "rank of the recurrence; 0: full", {.min = 0, .max = 4096}},
          {"sparsity", &sparsity, "share of the recurrence's entries that are always 0", {.min = 0, .max = 0.99}},
          {"seed", &seed, "of the draw of those entries", {.min = 0, .max = 1e15}}};
}

MaskedFeedback::MaskedFeedback(const char* name, const Options& o, const Mixer::Dims& d, int64_t heads, int64_t gates,
                               double deviation, Rng rng)
    : options_(o), heads_(heads), dim_(d.d_model / heads), gates_(gates) {
  if (o.rank > dim_)
    fail({name, fmt::format("a rank of at most d_model / heads = {}", dim_), fmt::format("{}", o.rank)});
  if (o.rank) {
    // Of A and B [n, n] with entries of deviation p the product has the norm sqrt(27 / 4) n p^2 or so; F has 2 sqrt(n)
    // times its deviation.
    const double part = std::sqrt(2 * deviation / (std::sqrt(27.0 / 4) * std::sqrt(static_cast<double>(dim_))));
    left_.init(normal_init({heads * gates * dim_, o.rank}, part, rng.fork("left")));
    right_.init(normal_init({heads * gates * dim_, o.rank}, part, rng.fork("right")));
  } else {
    full_.init(normal_init({d.d_model, gates * dim_}, deviation, rng.fork("feedback")));
  }
  if (o.sparsity == 0) return;
  Tensor open({d.d_model, gates * dim_});
  const Rng draw = Rng(static_cast<uint64_t>(o.seed)).fork("mask").fork(static_cast<uint64_t>(d.depth));
  for (int64_t i = 0; i < open.elements(); ++i)
    open.data()[i] = draw.uniform_at(static_cast<uint64_t>(i)) < o.sparsity ? 0 : 1;
  mask_ = Var(open);
}

void MaskedFeedback::visit(const ParameterVisitor& p) {
  p("left", left_), p("right", right_), p("feedback", full_);
}

const Var& MaskedFeedback::matrix() {
  if (!options_.rank && !mask_) return full_.var;
  return kept_.get(left_.version + right_.version + full_.version, [&] { return made(); });
}

Var MaskedFeedback::made() const {
  Var r = full_.var;
  if (options_.rank) {
    Pooled<Var> all;
    for (int64_t h = 0; h < heads_; ++h) {
      Pooled<Var> side_by_side;
      for (int64_t g = 0; g < gates_; ++g)
        side_by_side.push_back(
            matmul(rows(left_, block(h, g), dim_), rows(right_, block(h, g), dim_), {.transpose_b = true}));
      all.push_back(concat_columns(side_by_side));
    }
    r = concat_rows(all);
  }
  return mask_ ? r * mask_ : r;
}

naive::Matrix MaskedFeedback::naive(const naive::Weights& w) const {
  naive::Matrix r(heads_ * dim_, gates_ * dim_);
  for (int64_t i = 0; i < r.rows; ++i)
    for (int64_t c = 0; c < r.cols; ++c) {
      const int64_t first = block(i / dim_, c / dim_);
      if (options_.rank)
        for (int64_t p = 0; p < options_.rank; ++p)
          r(i, c) += w.at("left")(first + i % dim_, p) * w.at("right")(first + c % dim_, p);
      else
        r(i, c) = w.at("feedback")(i, c);
      if (mask_) r(i, c) *= mask_.value().data()[i * r.cols + c];
    }
  return r;
}

int64_t MaskedFeedback::flops() const {
  const int64_t entries = heads_ * dim_ * gates_ * dim_;
  return entries * (2 * options_.rank + (mask_ ? 1 : 0));
}

}  // namespace sennit::mixers
