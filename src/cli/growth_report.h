#pragma once
#include <string>
#include <vector>

#include "bench/growth.h"
#include "report/table.h"

namespace sennit::cli {

// A row for each mixer: microseconds a token at every length, exponents, peak memory, and where it overtakes exact attention.
report::Table growth_table(const std::vector<bench::Growth>& growths, const std::vector<int64_t>& lengths);
std::string growth_html(const std::vector<bench::Growth>& growths, const bench::GrowthOptions& options);

// "1k..64k" in doublings, or "512,4k,1000". Throws Error naming the flag.
std::vector<int64_t> parse_lengths(const std::string& text);

}  // namespace sennit::cli
