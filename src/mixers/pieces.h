#pragma once
#include <memory>

#include "sequence/sparse_attention.h"
#include "tensor/pooled.h"

namespace sennit::mixers {

// sparse_attention() of a mixer that says by mixer.see(piece, tiles) what the queries of a segment see: it keeps the
// pieces, one a segment, for as long as backward needs them, and without recording asks the system for no memory.
template <class M, class Piece>
Var attend_pieces(const M& mixer, Pooled<Piece> pieces, const Var& q, std::span<const Var> keys,
                  std::span<const Var> values, std::span<const AttentionSegment> segments,
                  const SparseAttentionOptions& options) {
  struct Plan {
    const M* mixer;
    Pooled<Piece> pieces;
  };
  const auto plan = std::allocate_shared<Plan>(PoolAllocator<Plan>(), Plan{&mixer, std::move(pieces)});
  const Plan* const held = plan.get();  // a function that holds only a pointer asks for nothing
  TileSource source = [held](size_t segment, int64_t, TileList& tiles) {
    held->mixer->see(held->pieces[segment], tiles);
  };
  if (recording())
    source = [plan, source](size_t segment, int64_t head, TileList& tiles) { source(segment, head, tiles); };
  return sparse_attention(q, keys, values, segments, options, std::move(source));
}

}  // namespace sennit::mixers
