#pragma once
#include <string>
#include <vector>

#include "laws/mixer_laws.h"

// A sum over near tokens on both sides, y_i = x_i + sum_j exp(-softplus(a) |i - j|) W m_j, where m is the sequence
// itself or what it looks at across. It keeps no state, and its sequences both ways are rows of three tokens. Whole,
// and with one of the mistakes of mixers that are not causal.
namespace sennit::laws {

enum class SpreadFault {
  none,
  odd_end,          // the last row of lengths that are one more than a multiple of 16
  first_memory,     // every sequence looks at the first one's memory
  memory_gradient,  // half of the gradient of what is looked at across
  cost,             // declares half of what it does across
  pairs,            // keeps something for every pair of rows
  states,           // takes a state and forgets it
  any_pattern,      // runs a causal batch as if it were bidirectional
  rows_meet,        // across, rows of x count each other
  no_memory,        // a memory of no rows gives NaN
  ragged,           // takes a sequence that ends within a row of its grid
  threads           // a sum whose order depends on the number of threads
};

struct SpreadFaultCase {
  SpreadFault fault;
  const char* name;
  const char* law;  // one that it breaks
};
const std::vector<SpreadFaultCase>& spread_fault_cases();
MixerCase spread(SpreadFault fault);

}  // namespace sennit::laws
