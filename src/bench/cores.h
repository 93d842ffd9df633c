#pragma once
#include <vector>

namespace sennit::bench {

// Seconds that a cache line takes from the first CPU that this process may use to each of the others, at most 64: what one
// core wrote until another has read it. Cores that share a third cache are some 25 ns apart, others five times that and more.
std::vector<double> core_distances();

}  // namespace sennit::bench
