#pragma once
#include <chrono>

namespace sennit {

// Seconds of a clock that only runs forward: what has passed is the difference of two of its readings.
inline double seconds_now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Seconds since 1970.
inline double seconds_since_epoch() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace sennit
