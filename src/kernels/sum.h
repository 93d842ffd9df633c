#pragma once
#include <cstdint>

namespace sennit::kernels {

// Where the gradient of an input's rows goes: a running sum, to be added to, or, where it holds nothing yet, memory that
// is unset, to be written.
struct Sum {
  float* at = nullptr;  // nullptr: not wanted
  bool holds = true;

  Sum from(int64_t floats) const { return {at ? at + floats : nullptr, holds}; }
};

}  // namespace sennit::kernels
