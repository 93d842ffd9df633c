#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <fstream>

#include "base/cpu.h"
#include "base/parallel.h"
#include "bench/case.h"
#include "bench/cores.h"
#include "cli/ceilings_table.h"
#include "cli/command.h"
#include "cli/progress_bar.h"
#include "products/precision.h"
#include "tensor/allocator.h"

namespace sennit::cli {
namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line.empty() ? "unknown" : line;
}

std::string compiler() {
#if defined(__clang__)
  return __VERSION__;
#else
  return "g++ " __VERSION__;
#endif
}

// "[always] madvise never" -> "always"
std::string chosen(const std::string& line) {
  const size_t from = line.find('['), to = line.find(']');
  return from < to && to != std::string::npos ? line.substr(from + 1, to - from - 1) : line;
}

int64_t meminfo(const std::string& key) {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);)
    if (line.rfind(key + ":", 0) == 0) return 1024 * std::strtoll(line.c_str() + key.size() + 1, nullptr, 10);
  return 0;
}

Json levels() {
  Json all = Json::array();
  for (int i = 0; i < kIsaLevels; ++i) {
    const auto level = static_cast<IsaLevel>(i);
    const std::string why = isa_level_refusal(level);
    all.push_back({{"name", to_string(level)}, {"runs", why.empty()}, {"used", level == isa_level()}, {"why_not", why}});
  }
  return all;
}

Json caches() {
  return {{"l1d_bytes", sysconf(_SC_LEVEL1_DCACHE_SIZE)}, {"l2_bytes", sysconf(_SC_LEVEL2_CACHE_SIZE)}, {"l3_bytes", sysconf(_SC_LEVEL3_CACHE_SIZE)}};
}

Json examine(int repeats) {
  utsname system{};
  uname(&system);
  Json report = {{"sennit", SENNIT_VERSION},
                 {"compiler", compiler()},
                 {"system", fmt::format("{} {} {}", system.sysname, system.release, system.machine)},
                 {"cpu", cpu_name()},
                 {"cpus_online", sysconf(_SC_NPROCESSORS_ONLN)},
                 {"threads", thread_count()},
                 {"core_to_core_ns", bench::core_distances()},
                 {"levels", levels()},
                 {"amx_tiles", to_string(amx_tiles())},
                 {"caches", caches()},
                 {"memory_bytes", meminfo("MemTotal")},
                 {"memory_available_bytes", meminfo("MemAvailable")},
                 {"tensor_memory_limit_bytes", memory_limit()},
                 {"transparent_huge_pages", chosen(first_line("/sys/kernel/mm/transparent_hugepage/enabled"))},
                 {"frequency_governor", first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")}};
  for (const char* name : {"SENNIT_ISA", "SENNIT_THREADS", "SENNIT_AMX_TILES"})
    if (const char* value = std::getenv(name)) report["environment"][name] = value;
  if (repeats > 0) report["ceilings"] = ceilings_json(bench::measure_ceilings(repeats));
  return report;
}

std::string line(const std::string& key, const std::string& value) { return fmt::format("{:<20}{}\n", key, value); }

void print(const Json& r) {
  const auto bytes = [](const Json& n) { return bytes_text(n.get<double>()); };
  std::string s = line("sennit", r["sennit"]) + line("compiler", r["compiler"]) + line("system", r["system"]) + line("cpu", r["cpu"]);
  s += line("threads", fmt::format("{} of {} CPUs", r["threads"].get<int>(), r["cpus_online"].get<int64_t>()));
  if (const auto apart = distances_text(r["core_to_core_ns"].get<std::vector<double>>()); !apart.empty()) s += line("core to core", apart);
  for (const Json& l : r["levels"]) {
    const std::string why = l["why_not"];
    s += line("level " + l["name"].get<std::string>(), l["used"] ? "used" : why.empty() ? "runs here" : "no: " + why);
  }
  s += line("caches", fmt::format("L1 {}, L2 {}, L3 {}", bytes(r["caches"]["l1d_bytes"]), bytes(r["caches"]["l2_bytes"]), bytes(r["caches"]["l3_bytes"])));
  s += line("memory", fmt::format("{}, {} free; tensors may take {}", bytes(r["memory_bytes"]), bytes(r["memory_available_bytes"]), bytes(r["tensor_memory_limit_bytes"])));
  s += line("huge pages", r["transparent_huge_pages"]) + line("governor", r["frequency_governor"]);
  if (r.contains("environment"))
    for (const auto& [name, value] : r["environment"].items()) s += line(name, value);
  fmt::print("{}", s);
}

}  // namespace

void add_doctor(Commands& commands) {
  struct Doctor {
    bool json = false, quick = false;
  };
  auto d = std::make_shared<Doctor>();
  CLI::App& app = commands.add("doctor", "Say what this machine has, what of it is used and what its units reach; to paste into a bug report", [d] {
    constexpr int kRepeats = 5;
    const Json report = examine(d->json && !d->quick ? kRepeats : 0);
    if (d->json) return fmt::print("{}\n", json_text(report, 2)), 0;
    print(report);
    if (!d->quick) fmt::print("\n{}", ceilings_table(bench::measure_ceilings(kRepeats)).text());
    return 0;
  });
  app.add_flag("--quick", d->quick, "leave out the measurement of the ceilings (some 10 s)");
  add_json_flag(app, d->json);
  app.footer("Example: sennit doctor");
}

}  // namespace sennit::cli
