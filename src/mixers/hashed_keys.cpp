#include "mixers/hashed_keys.h"

#include <algorithm>

#include "mixers/key_lists.h"
#include "nn/init.h"
#include "ops/products.h"

namespace sennit::mixers {

HashedKeys::HashedKeys(const char* mixer, int64_t buckets, int64_t rounds, int64_t dim, const Rng& rng)
    : buckets_(buckets), rounds_(rounds), dim_(dim) {
  if (buckets > 1 && buckets % 2)
    fail({mixer, "an even number of buckets, or 1", fmt::format("buckets = {}", buckets)});
  if (buckets > 1) directions_ = Var(normal_init({rounds * buckets / 2, dim}, 1, rng));
}

Tensor HashedKeys::buckets(const Tensor& x, int64_t heads) const {
  Tensor all = Tensor::zeros({x.rows(), heads * rounds_});
  if (buckets_ == 1) return all;
  NoGrad off;
  const int64_t half = buckets_ / 2;
  const Tensor along = matmul(Var(x.reshape({x.rows() * heads, dim_})), directions_, {.transpose_b = true}).value();
  for (int64_t i = 0; i < all.elements(); ++i) {
    const float* row = along.data() + i * half;
    const auto [low, high] = std::minmax_element(row, row + half);
    all.data()[i] = static_cast<float>(*high >= -*low ? high - row : half + (low - row));
  }
  return all;
}

int64_t HashedKeys::flops(int64_t rows) const {
  return buckets_ == 1 ? 0 : rows * rounds_ * buckets_ * dim_;
}

naive::Matrix HashedKeys::naive_buckets(const naive::Matrix& x, int64_t heads, int64_t side, int64_t position,
                                        Choices* choices) const {
  naive::Matrix all(x.rows, heads * rounds_);
  if (buckets_ == 1) return all;
  const float* direction = directions_.value().data();
  for (int64_t t = 0; t < x.rows; ++t)
    for (int64_t c = 0; c < all.cols; ++c) {
      const int64_t h = c / rounds_, r = c % rounds_;
      std::vector<double> scores(static_cast<size_t>(buckets_));
      for (int64_t b = 0; b < buckets_; ++b)
        for (int64_t p = 0; p < dim_; ++p)
          scores[b] += (b < buckets_ / 2 ? 1 : -1) * x(t, h * dim_ + p) *
                       direction[(r * buckets_ / 2 + b % (buckets_ / 2)) * dim_ + p];
      all(t, c) = chosen_bucket({0, side * all.cols + c, position + t}, std::move(scores), choices);
    }
  return all;
}

}  // namespace sennit::mixers
