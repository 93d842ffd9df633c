#pragma once
#include <span>
#include <vector>

#include "base/registry.h"
#include "nn/naive.h"
#include "sequence/batch.h"

namespace sennit {

struct PositionInfo {
  std::string title, paper;
};

// How attention learns where its tokens stand: by turning queries and keys, by a bias on the scores, or not at all.
class Position {
 public:
  using Info = PositionInfo;
  struct Dims {
    int64_t heads, head_dim;
  };
  virtual ~Position() = default;
  // Queries or keys [N, heads head_dim] of the segments, in place of the plain ones. `heads` may be the number of key heads.
  virtual Var turn(const Var& x, std::span<const Segment>, int64_t /*heads*/) const { return x; }
  // A slope a head: the score of tokens at distance n falls by slope * n. Empty: none.
  virtual std::vector<float> slopes() const { return {}; }
  // The definition of turn() for one row of head `head` of `heads` at a position.
  virtual void naive_turn(double* /*row*/, int64_t /*position*/, int64_t /*head*/, int64_t /*heads*/) const {}
  // Whether turned rows keep their lengths, and scores depend on how far apart two tokens stand alone.
  virtual bool relative() const { return true; }
};

namespace positions {
Registry<Position>& registry();
}

}  // namespace sennit
