#pragma once
#include <string>
#include <vector>

#include "model/stored_model.h"

// Long convolutions as small recurrences: a token then costs the same however far back a filter reads.
namespace sennit {

struct DistilledBlock {
  int64_t block;
  std::string from, to;  // mixers
  int64_t order;         // numbers of state of a filter, the largest
  double left_out;       // the largest share of a filter's length, in squares, that its modes do not hold
};
// Replaces every mixer that says how (Mixer::distilled) in the model file and among the tensors; the new tensors are
// f32. Throws Error where no block has one.
std::vector<DistilledBlock> distill(StoredModel& model, const DistillOptions& options);

}  // namespace sennit
