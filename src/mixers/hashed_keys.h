#pragma once
#include "mixers/mixer.h"

namespace sennit::mixers {

// Hashing of directions (Reformer, Kitaev et al., arXiv:2001.04451, section 2): in each round a row x of a head has the
// bucket argmax([R x, -R x]), R normal [buckets / 2, dim], so that rows that point the same way often share one. Near
// ties are choices: Choices::blocks of side x rounds x heads groups, one bucket for each row.
class HashedKeys {
 public:
  HashedKeys(const char* mixer, int64_t buckets, int64_t rounds, int64_t dim, const Rng& rng);

  Tensor buckets(const Tensor& x, int64_t heads) const;  // [N, heads dim] -> [N, heads rounds]
  int64_t flops(int64_t rows) const;                     // of so many rows of heads

  naive::Matrix naive_buckets(const naive::Matrix& x, int64_t heads, int64_t side, int64_t position,
                              Choices* choices) const;

 private:
  int64_t buckets_, rounds_, dim_;
  Var directions_;  // [rounds buckets / 2, dim]
};

}  // namespace sennit::mixers
