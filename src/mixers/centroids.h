#pragma once
#include "mixers/mixer.h"
#include "nn/kept.h"

namespace sennit::mixers {

// Online k-means of directions (Roy et al., arXiv:2003.05997, section 4.1): each head's rows x belong to the centroid
// that they point to most, argmax_c x . mu_c / |mu_c|. Nothing here learns by gradients. A centroid that has had hardly
// a row for long starts again where a row is furthest from its own, as k-means does with an empty cluster.
class Centroids : public Module {
 public:
  Centroids() = default;
  Centroids(int64_t heads, int64_t count, int64_t dim, Rng rng);
  void visit(const ParameterVisitor& p) override { p("mean", mean), p("uses", uses); }

  Tensor of(const Tensor& x);  // [N, heads dim] -> [N, heads]
  // mu_c <- decay mu_c + (1 - decay) mean of the rows of cluster c.
  void move(const Tensor& x, const Tensor& cluster, double decay);
  int64_t flops(int64_t rows) const { return 2 * rows * heads_ * count_ * dim_; }

  // Of columns [first, first + heads dim) of x; `run` is of the mixer whose parameters these are under `name`.
  naive::Matrix naive_of(const NaiveRun& run, const std::string& name, const naive::Matrix& x, int64_t first,
                         Choices* choices) const;

  Parameter mean, uses;  // [heads count, dim]; the running part of a head's rows [heads, count]

 private:
  const float* row(const Tensor& x, int64_t i, int64_t head) const { return x.data() + (i * heads_ + head) * dim_; }
  int64_t furthest(const Tensor& x, const Tensor& cluster, int64_t head) const;

  int64_t heads_ = 0, count_ = 0, dim_ = 0;
  Kept<Var> units_;  // of length 1
};

}  // namespace sennit::mixers
