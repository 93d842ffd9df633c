#include "mixers/centroids.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "mixers/key_lists.h"
#include "nn/init.h"
#include "ops/layout.h"
#include "ops/norms.h"
#include "ops/products.h"

namespace sennit::mixers {
namespace {

constexpr float kLeastUse = 0.1f;  // of an even part of the rows

}  // namespace

Centroids::Centroids(int64_t heads, int64_t count, int64_t dim, Rng rng) : heads_(heads), count_(count), dim_(dim) {
  mean.init(normal_init({heads * count, dim}, 1, rng));
  uses.init(Tensor::full({heads, count}, 1 / static_cast<float>(count)));
  mean.decays = mean.learned = uses.decays = uses.learned = false;
}

Tensor Centroids::of(const Tensor& x) {
  NoGrad off;
  const Var& units = units_.get(mean.version, [&] { return l2norm(Var(mean.value())); });
  Tensor all({x.rows(), heads_});
  for (int64_t h = 0; h < heads_; ++h) {
    const Tensor along =
        matmul(columns(Var(x), h * dim_, dim_), rows(units, h * count_, count_), {.transpose_b = true}).value();
    for (int64_t i = 0; i < x.rows(); ++i) {
      const float* one = along.data() + i * count_;
      all.data()[i * heads_ + h] = static_cast<float>(std::max_element(one, one + count_) - one);
    }
  }
  return all;
}

void Centroids::move(const Tensor& x, const Tensor& cluster, double decay) {
  if (x.rows() == 0) return;
  for (int64_t h = 0; h < heads_; ++h) {
    std::vector<double> sums(static_cast<size_t>(count_ * dim_)), counts(static_cast<size_t>(count_));
    for (int64_t i = 0; i < x.rows(); ++i) {
      const auto c = static_cast<int64_t>(cluster.data()[i * heads_ + h]);
      ++counts[c];
      for (int64_t p = 0; p < dim_; ++p) sums[c * dim_ + p] += row(x, i, h)[p];
    }
    for (int64_t c = 0; c < count_; ++c) {
      float *mu = mean.var.value().data() + (h * count_ + c) * dim_, &use = uses.var.value().data()[h * count_ + c];
      for (int64_t p = 0; p < dim_ && counts[c] > 0; ++p)
        mu[p] = static_cast<float>(decay * mu[p] + (1 - decay) * sums[c * dim_ + p] / counts[c]);
      use = static_cast<float>(decay * use + (1 - decay) * counts[c] / static_cast<double>(x.rows()));
      if (use >= kLeastUse / static_cast<float>(count_)) continue;
      std::copy_n(row(x, furthest(x, cluster, h), h), dim_, mu);
      use = 1 / static_cast<float>(count_);
    }
  }
  ++mean.version, ++uses.version;
}

int64_t Centroids::furthest(const Tensor& x, const Tensor& cluster, int64_t head) const {
  int64_t found = 0;
  double least = INFINITY;
  for (int64_t i = 0; i < x.rows(); ++i) {
    const auto c = static_cast<int64_t>(cluster.data()[i * heads_ + head]);
    const float *one = row(x, i, head), *mu = mean.value().data() + (head * count_ + c) * dim_;
    const double length = std::sqrt(std::inner_product(mu, mu + dim_, mu, 1e-30)),
                 along = std::inner_product(one, one + dim_, mu, 0.0) / length;
    if (along < least) least = along, found = i;
  }
  return found;
}

naive::Matrix Centroids::naive_of(const NaiveRun& run, const std::string& name, const naive::Matrix& x, int64_t first,
                                  Choices* choices) const {
  naive::Matrix all(x.rows, heads_);
  const naive::Matrix& mu = run.w.at(name + ".mean");
  for (int64_t t = 0; t < x.rows; ++t)
    for (int64_t h = 0; h < heads_; ++h) {
      std::vector<double> scores(static_cast<size_t>(count_));
      for (int64_t c = h * count_; c < (h + 1) * count_; ++c) {
        double along = 0, square = 0;
        for (int64_t p = 0; p < dim_; ++p)
          along += x(t, first + h * dim_ + p) * mu(c, p), square += mu(c, p) * mu(c, p);
        scores[c - h * count_] = along / std::sqrt(square);
      }
      all(t, h) = chosen_bucket({0, h, run.position + t}, std::move(scores), choices);
    }
  return all;
}

}  // namespace sennit::mixers
