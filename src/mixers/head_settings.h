#pragma once
#include <memory>
#include <nlohmann/json.hpp>

#include "mixers/mixer.h"
#include "positions/position.h"
#include "sequence/attention.h"
#include "tensor/pooled.h"

namespace sennit::mixers {

// What every attention has in common: maps to queries, keys and values, grouped keys and values (Ainslie et al.,
// arXiv:2305.13245), normalised queries and keys, a position, and the rows of keys and values that a sequence keeps.
struct HeadSettings {
  int64_t heads = 4, kv_heads = 0, head_dim = 0;
  bool qk_norm = false, bias = false, out_bias = false;
  double norm_epsilon = 1e-6;
  Json position = "rope";
  Fields fields();
};

class AttentionHeads {
 public:
  AttentionHeads(const char* mixer, const Mixer::Dims& d, HeadSettings settings, Rng rng);
  void visit(const ParameterVisitor& p);

  // Keys and values of a sequence: fields 0 and 1, of the last `reach` tokens, or of all where that is 0.
  StateSpec state_spec(int64_t reach = 0) const;

  struct Operands {
    Var plain_queries, plain_keys;  // of the batch, before their position
    Var queries;                    // [N, heads head_dim]
    Pooled<Var> keys, values;       // [.., kv_heads head_dim]: of the batch, then of each state
    Pooled<AttentionSegment> segments;
  };
  // Moves the states on. Bidirectional attention sees no further than its batch and states; cross attention reads the
  // memory.
  Operands operands(const Var& x, const Batch& batch, int64_t reach = 0);

  // Of the four maps, for n queries and so many keys.
  int64_t flops(int64_t n, int64_t keys) const;
  int64_t flops(int64_t n) const { return flops(n, n); }
  float scale() const;             // 1 / sqrt(head_dim)
  int64_t group() const { return heads / kv_heads; }

  // The definition: queries of run.x, and the keys and values that they may see, of which those to keep stay in
  // run.state.
  struct Naive {
    naive::Matrix plain_q, plain_k;  // of run.x and of what it looks at, before their position
    naive::Matrix q, k, v;
    int64_t offset;  // place of query 0 among the keys
  };
  Naive naive(NaiveRun& run, int64_t reach = 0) const;
  // q_i . k_j / sqrt(head_dim) with the position's bias.
  double naive_score(const Naive& m, int64_t head, int64_t i, int64_t j) const;

  // The implicit matrix of one causal sequence: weigh(head, i, scores) turns the scores of keys 0, ..., i into weights.
  using Weigh = std::function<void(int64_t head, int64_t i, std::vector<double>& scores)>;
  ImplicitMatrix implicit(const Var& x, const Context& c, const Weigh& weigh);

  int64_t heads, kv_heads, head_dim;
  std::vector<float> slopes;  // of the position, one a head or none
  std::unique_ptr<Position> position;
  Linear q, k, v, out;
  Parameter q_norm, k_norm;

 private:
  Var plain(Linear& map, const Parameter& norm, int64_t count, const Var& x, const Context& c);
  naive::Matrix naive_plain(const NaiveRun& run, const naive::Matrix& x, const std::string& name, int64_t count) const;
  naive::Matrix naive_turned(naive::Matrix y, int64_t count, int64_t first) const;

  double norm_epsilon_;
};

// Scores to softmax weights in place; -inf weighs nothing.
void naive_softmax(std::vector<double>& scores);

}  // namespace sennit::mixers
