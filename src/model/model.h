#pragma once
#include <memory>
#include <span>
#include <vector>

#include "blocks/block.h"
#include "model/model_file.h"

namespace sennit {

// A language model: embedding, a stack of blocks, a norm and an output map over the vocabulary.
class Model : public Module {
 public:
  Model(ModelSpec spec, Rng init, const std::string& where = "model");

  // The last hidden rows [N, d_model] of a packed batch of token ids. `checkpointed` keeps only each block's input for
  // backward and computes its inside again. Advances the position of every segment's state. The batch's pattern is the
  // model's; throws Error where one that reads both ways is given a state to go on from.
  Var hidden(std::span<const int32_t> tokens, const Batch& batch, bool checkpointed = false);
  Var logits(const Var& hidden, const Context& context);  // [N, vocab]
  // The mean cross-entropy of the targets, without ever holding all the logits; targets < 0 do not count.
  Var loss(const Var& hidden, std::span<const int32_t> targets, const Context& context, Tensor* losses = nullptr);

  const ModelSpec& spec() const { return spec_; }
  bool causal() const { return spec_.pattern == "causal"; }
  void require_causal(const std::string& who) const;  // throws Error where it reads both ways
  bool wants_whole_prompts() const;  // as a mixer of it does
  const std::vector<StateSpec>& state_specs() const { return state_specs_; }  // by slot
  int64_t state_bytes(int64_t tokens, CacheFormat cache = CacheFormat::f32) const;  // of one sequence
  int64_t flops(int64_t n) const;             // of a forward pass over one sequence of n tokens, with all logits
  std::vector<std::unique_ptr<Block>>& blocks() { return blocks_; }
  void visit(const ParameterVisitor& v) override;

 private:
  Var embedded(std::span<const int32_t> tokens, const Batch& batch) const;
  Var looked_up(std::span<const int32_t> tokens) const;
  ModelSpec spec_;
  Parameter embedding_;  // undefined when tied
  Parameter positions_, types_;  // undefined when there are none
  Linear head_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<size_t> slots_;  // the first of each block
  std::vector<StateSpec> state_specs_;
  std::unique_ptr<Norm> embedding_norm_, norm_;
};

// Identifies a model for its state files: a hash of its model file and of its weights, but those that are kept quantized.
std::string model_tag(Model& model);

}  // namespace sennit
