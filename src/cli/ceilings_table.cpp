#include "cli/ceilings_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

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

std::string distances_text(const std::vector<double>& distances) {
  if (distances.empty()) return "";
  const auto [least, most] = std::minmax_element(distances.begin(), distances.end());
  const double low = std::round(*least), high = std::round(*most);
  return low == high ? fmt::format("{} ns", low) : fmt::format("{} to {} ns", low, high);
}

report::Table ceilings_table(const std::vector<bench::Ceiling>& ceilings) {
  report::Table t{{{"ceiling"}, {"one thread", true}, {"all", true}, {"all, lowest", true}}, {}};
  for (const auto& c : ceilings) {
    const auto text = [&](double rate) { return fmt::format("{:.1f} {}", 1e-9 * rate, c.bytes ? "GB/s" : "G/s"); };
    if (c.all > 0) t.add({c.name, text(c.one), text(c.all), text(c.all_least)});
  }
  return t;
}

Json ceilings_json(const std::vector<bench::Ceiling>& ceilings) {
  Json rows = Json::array();
  for (const auto& c : ceilings)
    if (c.all > 0)
      rows.push_back({{"name", c.name}, {"unit", c.bytes ? "bytes/s" : "operations/s"}, {"one_thread", c.one}, {"all_threads", c.all},
                      {"one_thread_lowest", c.one_least}, {"all_threads_lowest", c.all_least}});
  return rows;
}

}  // namespace sennit::cli
