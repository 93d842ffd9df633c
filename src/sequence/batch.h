#pragma once
#include <span>

#include "base/cpu.h"
#include "base/rng.h"
#include "products/precision.h"
#include "sequence/state.h"

// A packed batch: one matrix of token rows with no padding, and the segments that tile it.
namespace sennit {

// A run of rows that belong to one sequence.
struct Segment {
  int64_t begin = 0, length = 0;
  int64_t position = 0;            // of the first row in its sequence
  SequenceState* state = nullptr;  // nullptr: starts empty and keeps nothing
};

// Where a token lies in a plane: 0 or more.
struct Place {
  int64_t row, column;
};

enum class Pattern { causal, bidirectional, cross };
const char* to_string(Pattern pattern);

// What a forward pass needs besides the rows.
struct Context {
  Precision precision = Precision::f32;
  CacheFormat cache = CacheFormat::f32;  // in which new sequences keep keys and values
  bool exact = false;     // choose kernels by the row alone: the same bits however a sequence is split or batched
  bool training = false;  // dropout and the like
  Rng rng{};              // of this step; parts fork it by name
  std::vector<Var>* losses =
      nullptr;  // auxiliary losses [1], to be added to the task's; not computed where nobody collects
};

// Whether many rows at once may be multiplied as pairs of bf16 where few are not: bf16, and bits that may hang on how many
// come together.
inline bool may_pair(const Context& context) { return context.precision == Precision::bf16 && !context.exact; }
// And whether that is the faster way here: it is by tiles, and for attention, which packs its factors once for many
// products, already where vectors of pairs are faster than those of f32.
inline bool wants_pairs(const Context& context) { return may_pair(context) && isa_level() == IsaLevel::amx; }
inline bool wants_paired_attention(const Context& context) { return may_pair(context) && pairs_are_fast(); }

// A view: whoever makes it keeps the segments and the context alive. A state appears in at most one segment.
struct Batch {
  std::span<const Segment> segments;
  const Context* context;
  Pattern pattern = Pattern::causal;
  const Var* memory = nullptr;                    // [M, D]: the rows that Pattern::cross looks at
  std::span<const Segment> memory_segments = {};  // of the memory, one for each segment
  size_t slot = 0;                                // this layer's place in SequenceState
  std::span<const Place> places = {};             // of the rows, where tokens are scattered over a plane
  Var* first_values = nullptr;  // [N, D]: what the first layer of a kind hands up to the ones above it (RWKV-7)

  Batch at(size_t layer_slot) const {
    Batch b = *this;
    b.slot = layer_slot;
    return b;
  }
  int64_t rows() const { return segments.empty() ? 0 : segments.back().begin + segments.back().length; }
  LayerState* state(const Segment& s) const { return s.state ? &s.state->layer(slot) : nullptr; }
};

}  // namespace sennit
