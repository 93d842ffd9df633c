#pragma once
#include <functional>
#include <string>
#include <vector>

#include "model/model.h"

// What a model costs on this machine, measured.
namespace sennit::measure {

struct PrefillCost {
  int64_t length;
  double seconds;      // of one prompt, the median of the tries
  int64_t peak_bytes;  // of tensors, above the weights
};
struct DecodeCost {
  int64_t position;
  double seconds;       // of one token, the median
  int64_t state_bytes;  // of the sequence then
};
struct TrainingCost {
  double seconds;      // of one step, the better of the tries
  int64_t tokens;      // of a step
  int64_t peak_bytes;  // of tensors: weights, gradients, optimizer and activations
};

struct InferenceCost {
  std::vector<PrefillCost> prefill;
  std::vector<DecodeCost> decode;
};

// Called between measurements; returning false ends them early.
using Watch = std::function<bool(const std::string& what)>;

// Prompts of each length, and tokens after them. Tries are repeated while they are short.
InferenceCost inference_cost(Model& model, const Context& context, const std::vector<int64_t>& lengths,
                             const Watch& watch = {});

// Whole training steps on random tokens with AdamW at rate zero: the weights stay as they are.
TrainingCost training_cost(Model& model, Context context, int64_t rows, int64_t length, int tries = 2);

// What a step of a model would cost, from steps of models with one and two blocks of each of its kinds: a big model is
// never built. Layers are taken to cost the same wherever they stand.
TrainingCost estimate_training(const ModelSpec& spec, const Context& context, int64_t rows, int64_t length,
                               const std::string& where);

}  // namespace sennit::measure
