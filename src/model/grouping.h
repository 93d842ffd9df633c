#pragma once
#include <string>

#include "model/stored_model.h"

// Multi-head attention as grouped queries: fewer key-value heads, so that a cache holds less. What it costs in quality
// a short training wins back (Ainslie et al., arXiv:2305.13245, section 2).
namespace sennit {

struct GroupingOptions {
  int64_t kv_heads = 1;           // a divisor of those that blocks have
  std::string mixer = "softmax";  // or key_driven, which deals query heads anew while it trains (arXiv:2408.08454)
};
// Gives every block of softmax attention `kv_heads` key-value heads, each the mean of those whose place it takes, in
// the model file and among the tensors; the new tensors are f32. Returns how many blocks. Throws Error where there is
// none, where a block's heads are no multiple, and where they are normalised.
int64_t group_key_heads(StoredModel& model, const GroupingOptions& options);

}  // namespace sennit
