#pragma once
#include <cstdint>

namespace sennit {

// Arithmetic done by the operations of this thread since the last reset, counted where it is done: a product of [m, k]
// and [k, n] is 2 m n k. Maps and copies count one operation an element. Costs that mixers declare are held against it.
struct OperationCount {
  int64_t flops = 0;
};
OperationCount& operation_count();

inline void count_flops(int64_t n) { operation_count().flops += n; }

}  // namespace sennit
