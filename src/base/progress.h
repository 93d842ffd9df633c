#pragma once
#include <cstdint>
#include <functional>
#include <string_view>

namespace sennit {

// Called now and then during long work, from the thread that asked for it: `done` of `total` units (bytes, rows) of
// `stage`. May be empty. Throwing from it stops the work and passes through to the caller.
using Progress = std::function<void(std::string_view stage, int64_t done, int64_t total)>;

}  // namespace sennit
