#pragma once
#include <gtest/gtest.h>

#include "base/cpu.h"

namespace sennit {

// Runs `body(level)` at every instruction-set level this machine has, scalar always among them.
template <class Body>
void for_each_level(Body&& body) {
  const IsaLevel before = isa_level();
  for (int i = 0; i < kIsaLevels; ++i) {
    const auto level = static_cast<IsaLevel>(i);
    if (!isa_level_refusal(level).empty()) continue;
    SCOPED_TRACE(to_string(level));
    set_isa_level(level);
    body(level);
  }
  set_isa_level(before);
}

}  // namespace sennit
