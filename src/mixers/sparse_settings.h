#pragma once
#include <functional>
#include <set>

#include "mixers/head_settings.h"
#include "sequence/block_choice.h"
#include "tensor/pooled.h"

namespace sennit::mixers {

// Blocks of keys in order, from the pool of tensors.
using BlockSet = std::set<int64_t, std::less<>, PoolAllocator<int64_t>>;

// Attention to some of the keys, on the engine of sequence/sparse_attention.h. What sparse mixers share: maps, states,
// the definition and the matrix, all from two statements of what a query sees, one in tiles and one key by key.
class SparseMixer : public Mixer {
 public:
  void visit(const ParameterVisitor& p) override { heads.visit(p); }
  StateSpec state_spec() const override { return heads.state_spec(); }
  int64_t flops(int64_t n) const override { return pattern_flops(Pattern::causal, n, 0); }
  int64_t pattern_flops(Pattern pattern, int64_t n, int64_t memory) const override;
  naive::Matrix naive(NaiveRun& run) const override;
  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override;
  Var output(const Var&, const Var& core, const Context& c) override { return heads.out(core, c); }

 protected:
  SparseMixer(const char* name, const Dims& d, const HeadSettings& settings, Rng rng) : heads(name, d, settings, rng) {}
  Var attend(const Var& x, const Batch& batch);  // forward, of a pattern that is supported

  // The tiles of a head over the list's queries of one sequence.
  virtual void tiles(int64_t head, bool causal, TileList& list) const = 0;
  // Whether the query at place i sees the key at place j, of a sequence of n; j <= i where causal.
  virtual bool sees(int64_t head, bool causal, int64_t i, int64_t j, int64_t n) const = 0;
  // How many keys the query at place i sees, of a causal sequence.
  virtual int64_t keys_seen(int64_t head, int64_t i) const = 0;
  // The same of a sequence of n that it sees both ways, or of a memory of n rows; for mixers that do.
  virtual int64_t keys_seen_both_ways(int64_t /*head*/, int64_t /*i*/, int64_t n) const { return n; }

  AttentionHeads heads;
};

}  // namespace sennit::mixers
