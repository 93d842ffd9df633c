#pragma once
#include "mixers/head_settings.h"
#include "sequence/block_choice.h"

namespace sennit::mixers {

struct ChoosingSettings : HeadSettings {
  int64_t block = 64, top = 16, sink = 0, local = 1;
  Fields fields();
};

// Attention to blocks of keys that each query chooses by itself, on the engine of sequence/sparse_attention.h: the
// blocks that score highest, besides the first `sink` and the last `local` ones, `top` in all. Blocks lie at multiples
// of `block` and are scored by summaries, one for every `unit` keys as soon as these are there, so that a choice never
// hangs on how a sequence was cut or on what comes later. Blocks that are not whole yet are always within reach of
// `local`.
class ChoosingMixer : public Mixer {
 public:
  void visit(const ParameterVisitor& p) override { heads.visit(p); }
  StateSpec state_spec() const override;
  int64_t flops(int64_t n) const override;
  naive::Matrix naive(NaiveRun& run) const override;
  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override;
  Var output(const Var&, const Var& core, const Context& c) override { return heads.out(core, c); }
  bool chooses() const override { return true; }

 protected:
  struct Layout {
    int64_t unit;     // keys a summary, a divisor of the block
    int64_t summary;  // numbers of a summary
    int64_t groups;   // heads that choose together are neighbours
  };
  ChoosingMixer(const char* name, const Dims& d, const ChoosingSettings& settings, Rng rng);
  void set_layout(const Layout& l) { layout_ = l; }
  Var attend(const Var& x, const Batch& batch);  // forward, causal

  // The means of keys, head by head.
  virtual Var summaries_of(const Var& keys) const;
  // All summaries of each segment, [keys / unit, summary], of the operands' keys by default. Moves the states on.
  virtual Pooled<Var> summarise(const AttentionHeads::Operands& m, const Batch& batch);
  // What scores are made from in the place of the attention's own queries.
  virtual Var scoring_queries(const AttentionHeads::Operands& m, const Batch&) { return m.queries; }

  struct Scoring {
    const AttentionSegment& segment;
    const Tensor &queries, &summaries;  // of the batch, of the segment
    int64_t group, first, rows;         // queries
    int64_t blocks;                     // whole ones that may be scored
  };
  // scores[r * stride + b] of the whole blocks before the own one of query first + r; others may hold anything. Returns
  // the operations.
  virtual int64_t score(const Scoring& s, float* scores, int64_t stride, float* scratch) const = 0;
  // Pairs of a query and a summary, of whole blocks before its own or of shorter runs that are whole, that are scored
  // over a fresh sequence.
  int64_t scored(int64_t n, int64_t run) const;
  virtual int64_t score_scratch(int64_t keys, int64_t rows) const = 0;  // floats
  virtual int64_t score_flops(int64_t n) const = 0;                     // with the summaries
  // `top`, or enough for everything.
  virtual int64_t most_blocks(int64_t /*place*/) const { return settings_.top; }

  // The definition of summarise() and score(): `summaries` goes in and out, rows are added for the keys that came.
  virtual void naive_summarise(NaiveRun& run, const AttentionHeads::Naive& m, naive::Matrix& summaries) const;
  virtual std::vector<double> naive_scores(NaiveRun& run, const AttentionHeads::Naive& m,
                                           const naive::Matrix& summaries, int64_t group, int64_t i,
                                           int64_t blocks) const = 0;

  // Adds an auxiliary loss to batch.context->losses, which is there; and its definition.
  virtual void teach(const AttentionHeads::Operands&, const Batch&, const Pooled<Var>& /*summaries*/) {}
  virtual double naive_teach(NaiveRun&, const AttentionHeads::Naive&, const naive::Matrix& /*summaries*/) const {
    return 0;
  }

  SparseAttentionOptions attention_options() const;

  AttentionHeads heads;
  ChoosingSettings settings_;
  Layout layout_{};

 private:
  int64_t rows_at_a_time() const;
  BlockChoice choose(const Scoring& of) const;
  int64_t choose_rows(const Scoring& part, BlockChoice& choice, float* scratch) const;  // returns the operations
  void follow(size_t segment, int64_t position, BlockChoice& choice, int64_t queries) const;
  std::vector<int32_t> naive_choice(NaiveRun& run, const AttentionHeads::Naive& m, const naive::Matrix& summaries,
                                    int64_t group, int64_t i) const;
};

}  // namespace sennit::mixers
