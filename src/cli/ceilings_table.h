#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/case.h"
#include "report/table.h"

namespace sennit::cli {

// "level avx512 (amx: the CPU lacks AMX tiles, bf16 or int8)": the level in use, and why none above it is.
std::string level_text();
// "25 to 170 ns": the least and the most of core_distances(); empty of none.
std::string distances_text(const std::vector<double>& distances);
report::Table ceilings_table(const std::vector<bench::Ceiling>& ceilings);
Json ceilings_json(const std::vector<bench::Ceiling>& ceilings);

}  // namespace sennit::cli
