#pragma once
#include <span>
#include <vector>

#include "families/family.h"

namespace sennit {

// Applies a rule to a tensor of theirs: the tensors of ours, of the given shapes, in the order of rule.ours. Without a
// change of values (Change::decay) the numbers keep their bits; blocks of quantized rows stay as they are unless they must
// be turned about. Throws Error where the sizes do not fit.
std::vector<io::StoredTensor> from_theirs(const TensorRule& rule, const io::StoredTensor& theirs, std::span<const Shape> ours,
                                          const std::string& where);
// The other way about. Parts of different formats become f32.
io::StoredTensor to_theirs(const TensorRule& rule, std::span<const io::StoredTensor> ours);

// A float tensor as a Tensor that shares its bytes; its dtype is the stored one.
Tensor tensor_of(const io::StoredTensor& t);

}  // namespace sennit
