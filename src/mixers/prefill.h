#pragma once
#include <span>

#include "base/fields.h"
#include "sequence/permuted_blocks.h"
#include "sequence/stripes.h"

namespace sennit::mixers {

// How exact attention reads a prompt that is there whole: everything, or what one of the operations on prompts chooses
// for it. A choice hangs on late queries and so on how a text is cut: it is made only for prompts from their first
// token on, where nothing is recorded and the context does not ask for exact bits.
//   "none"   {"name": "stripes", "mass": 0.95, ...}   {"name": "permuted_blocks", "mass": 0.95, ...}
class Prefill {
 public:
  // Throws Error naming `where` for a name or setting that is none.
  Prefill(const Json& part, const std::string& where);

  bool chooses() const { return kind_ != Kind::none; }
  // Whether a segment of causal attention is a prompt that it chooses for.
  bool concerns(const AttentionSegment& segment) const;
  // `attended` [N, heads dv] with the rows of the segments that it chooses for replaced; undefined is as good as rows
  // where it concerns all of them.
  Var attend(Var attended, const Var& q, std::span<const Var> keys, std::span<const Var> values,
             std::span<const AttentionSegment> segments, const SparseAttentionOptions& options) const;

 private:
  enum class Kind { none, stripes, permuted_blocks };
  TileSource tiles(const Tensor& q, const Tensor& keys, const AttentionSegment& segment,
                   const SparseAttentionOptions& options) const;

  Kind kind_ = Kind::none;
  int64_t from_ = 1024;
  StripeSettings stripes_;
  PermutedBlockSettings blocks_;
};

}  // namespace sennit::mixers
