#include "cli/ceilings_table.h"

#include <fmt/format.h>

#include "base/cpu.h"

namespace sennit::cli {

std::string level_text() {
  const IsaLevel used = isa_level();
  std::string s = fmt::format("level {}", to_string(used));
  if (static_cast<int>(used) + 1 == kIsaLevels) return s;
  const auto above = static_cast<IsaLevel>(static_cast<int>(used) + 1);
  const std::string why = isa_level_refusal(above);
  return s + fmt::format(" ({}: {})", to_string(above), why.empty() ? "not asked for by SENNIT_ISA" : why);
}

std::string ceilings_table(const std::vector<bench::Ceiling>& ceilings) {
  std::string s = fmt::format("{:<26} {:>12} {:>12} {:>12}\n", "ceiling", "one thread", "all", "all, lowest");
  for (const auto& c : ceilings) {
    const char* unit = c.bytes ? "GB/s" : "G/s";
    if (c.all > 0) s += fmt::format("{:<26} {:>7.1f} {:<4} {:>7.1f} {:<4} {:>7.1f} {:<4}\n", c.name, 1e-9 * c.one, unit, 1e-9 * c.all, unit, 1e-9 * c.all_least, unit);
  }
  return s;
}

nlohmann::json ceilings_json(const std::vector<bench::Ceiling>& ceilings) {
  nlohmann::json rows = nlohmann::json::array();
  for (const auto& c : ceilings)
    if (c.all > 0)
      rows.push_back({{"name", c.name}, {"unit", c.bytes ? "bytes/s" : "operations/s"}, {"one_thread", c.one}, {"all_threads", c.all},
                      {"one_thread_lowest", c.one_least}, {"all_threads_lowest", c.all_least}});
  return rows;
}

}  // namespace sennit::cli
