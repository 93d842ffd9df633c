#pragma once
#include <string>
#include <vector>

#include "laws/mixer_laws.h"

// A leaky sum, S_t = exp(-softplus(a)) S_{t-1} + W x_t and y_t = S_t, whole and with one of the mistakes that real code has
// made. The whole one obeys every law; each mistake must break one.
namespace sennit::laws {

enum class Fault {
  none,
  step_scale,            // the single-token form has another scale
  partial_chunk,         // tokens after the last whole chunk are missing from the state
  split_exponentials,    // exp(a) * exp(-b) instead of exp(a - b)
  leak,                  // a sequence goes on from the one before it in the batch
  peek,                  // a little of the next token
  after_chunk,           // the last row of chunk + 1 tokens
  threads,               // a sum whose order depends on the number of threads
  alias,                 // snapshots share what they should have copied
  gradient,              // the gradient of the decay is half of what it is
  unlearned,             // a gradient for what is said not to learn
  state_gradient,        // no gradient flows into the first state
  batch_bits,            // the order of sums depends on what else is in the batch
  cost,                  // declares half of what it does
  memory,                // keeps something for every pair of tokens
  matrix,                // an implicit matrix without its diagonal
  unset_memory,          // reads what nobody wrote
  any_pattern            // runs whatever pattern as if it were causal
};

struct FaultCase {
  Fault fault;
  const char* name;
  const char* law;  // one that it breaks
};
const std::vector<FaultCase>& fault_cases();
MixerCase leaky(Fault fault);

}  // namespace sennit::laws
