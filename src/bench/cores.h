#pragma once
#include <vector>

namespace sennit::bench {

// Nanoseconds that a cache line takes from the first CPU that this process may use to each of the others, at most 64: what one
// core wrote until another has read it. Seen on one machine: 25 to 50 where two share a third cache, 155 to 185 where not.
std::vector<double> core_distances();

}  // namespace sennit::bench
