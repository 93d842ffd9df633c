#include <fmt/format.h>

#include <filesystem>

#include "base/cpu.h"
#include "base/error.h"
#include "base/parallel.h"
#include "bench/case.h"
#include "cli/command.h"
#include "cli/progress_bar.h"

namespace sennit::cli {
namespace {

struct Bench {
  bench::Options options;
  bool json = false, list = false, peers = false;

  int run() {
    if (list) {
      for (const auto& c : bench::all_cases()) fmt::print("{}\n", c.name);
      return 0;
    }
    if (peers) options.peer_script = peer_script();
    ProgressBar bar(json);
    const auto results = bench::run(bench::all_cases(), options, [&](int done, int total, const std::string& name) { bar.update(done, total, name); });
    bar.finish();
    if (results.empty()) fail({"bench", "part of a case's name (see --list)", options.filter});
    if (json) print_json(results);
    else print_table(results);
    return 0;
  }

  static std::string peer_script() {
    const auto here = std::filesystem::canonical("/proc/self/exe").parent_path();
    for (const char* place : {"../share/sennit/peers", "../../bench/peers"})
      if (std::filesystem::exists(here / place / "torch_peer.py")) return (here / place / "torch_peer.py").string();
    fail({"bench", "torch_peer.py in share/sennit/peers", "none", here.string()});
  }

  void print_json(const std::vector<bench::Result>& results) const {
    Json rows = Json::array();
    for (const auto& r : results) {
      Json row = {{"case", r.name}, {"floor_seconds", r.floor}, {"seconds", r.seconds}, {"fastest_seconds", r.fastest}, {"of_floor", r.floor / r.seconds}};
      if (r.flops > 0) row["gflops"] = 1e-9 * r.flops / r.seconds;
      if (r.bytes > 0) row["gb_per_second"] = 1e-9 * r.bytes / r.seconds;
      if (r.tokens > 0) row["microseconds_per_token"] = 1e6 * r.seconds / r.tokens;
      if (r.peer > 0) row["peer_seconds"] = r.peer, row["times_peer"] = r.peer / r.seconds;
      rows.push_back(row);
    }
    fmt::print("{}\n", Json{{"cpu", cpu_name()}, {"level", to_string(isa_level())}, {"threads", thread_count()}, {"repeats", options.repeats}, {"cases", rows}}.dump(2));
  }

  void print_table(const std::vector<bench::Result>& results) const {
    fmt::print("{}, level {}, {} threads, medians of {} interleaved runs\n", cpu_name(), to_string(isa_level()), thread_count(), options.repeats);
    fmt::print("{:<44} {:>10} {:>10} {:>9} {:>9} {:>10} {:>8}\n", "case", "floor ms", "time ms", "of floor", "G/s", "us/token", "x peer");
    for (const auto& r : results)
      fmt::print("{:<44} {:>10.3f} {:>10.3f} {:>8.1f}% {:>9.1f} {:>10} {:>8}\n", r.name, 1e3 * r.floor, 1e3 * r.seconds, 100 * r.floor / r.seconds,
                 1e-9 * (r.bytes > 0 ? r.bytes : r.flops) / r.seconds, r.tokens > 0 ? fmt::format("{:.2f}", 1e6 * r.seconds / r.tokens) : "",
                 r.peer > 0 ? fmt::format("{:.2f}", r.peer / r.seconds) : "");
  }
};

}  // namespace

void add_bench(Commands& commands) {
  auto b = std::make_shared<Bench>();
  CLI::App& app = commands.add("bench", "Time the kernels, mixers and a training step against the machine's floor and a peer", [b] { return b->run(); });
  app.add_option("filter", b->options.filter, "only cases whose name has this part");
  app.add_option("--repeats", b->options.repeats, "runs of each case")->capture_default_str()->check(CLI::Range(1, 1000));
  app.add_flag("--peers", b->peers, "run the same work with PyTorch (python3-torch) in the same minutes");
  app.add_flag("--list", b->list, "name the cases");
  add_json_flag(app, b->json);
  app.footer("Floor: operations over the peak of the unit that does them, or bytes over the read bandwidth, whichever is more; both are measured beside every run.\n"
             "Example: sennit bench attention --peers");
}

}  // namespace sennit::cli
