#include <fmt/format.h>

#include <array>
#include <filesystem>
#include <iostream>

#include "base/cpu.h"
#include "base/error.h"
#include "base/parallel.h"
#include "bench/case.h"
#include "cli/ceilings_table.h"
#include "cli/command.h"
#include "cli/progress_bar.h"

namespace sennit::cli {
namespace {

std::filesystem::path program() { return std::filesystem::canonical("/proc/self/exe"); }

std::string torch_peer() {
  for (const char* place : {"../share/sennit/peers", "../../bench/peers"})
    if (const auto script = program().parent_path() / place / "torch_peer.py"; std::filesystem::exists(script)) return script;
  fail({"bench", "torch_peer.py in share/sennit/peers", "none", program().parent_path()});
}

// Builds the program of another commit, in build/at/, and returns its path.
std::string program_at(const std::string& ref) {
  const auto script = program().parent_path() / "../../scripts/build-at";
  if (!std::filesystem::exists(script)) fail({"bench", "--against in a checkout, for it builds the other commit", "no scripts/build-at", script});
  if (ref.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./~^@{}") != std::string::npos || ref[0] == '-')
    fail({"bench", "a commit, branch or tag", ref});
  FILE* out = popen(fmt::format("'{}' '{}'", script.string(), ref).c_str(), "r");
  std::string path;
  for (std::array<char, 256> part{}; out && std::fgets(part.data(), part.size(), out);) path += part.data();
  if (!out || pclose(out) != 0 || path.empty()) fail({"bench", "the program of another commit", "its build failed", ref});
  while (path.back() == '\n') path.pop_back();
  return path;
}

struct Bench {
  bench::Options options;
  std::string against;
  bool json = false, list = false, peers = false, answers = false;

  int run() {
    if (answers) return bench::answer(std::cin, std::cout), 0;
    if (list) {
      for (const auto& c : bench::all_cases()) fmt::print("{}\n", c.name);
      return 0;
    }
    if (peers) options.peer = {"/usr/bin/python3", torch_peer()};
    if (!against.empty()) options.peer = {program_at(against), "bench", "--answer"}, options.peer_is_sennit = true;
    ProgressBar bar(json);
    const bench::Report report = bench::run(options, [&](int done, int total, const std::string& name) { bar.update(done, total, name); });
    bar.finish();
    if (json) print_json(report);
    else print_table(report);
    return 0;
  }

  void print_json(const bench::Report& report) const {
    Json rows = Json::array();
    for (const auto& r : report.results) {
      Json row = {{"case", r.name}, {"error", r.error}, {"floor_seconds", r.floor}, {"seconds", r.warm}, {"fastest_seconds", r.fastest}, {"of_floor", r.floor / r.warm}};
      if (r.cold > 0) row["cold_seconds"] = r.cold;
      if (r.flops > 0) row["gflops"] = 1e-9 * r.flops / r.warm;
      if (r.bytes > 0) row["gb_per_second"] = 1e-9 * r.bytes / r.warm;
      if (r.tokens > 0) row["microseconds_per_token"] = 1e6 * r.warm / r.tokens;
      if (r.peer > 0) row["peer_seconds"] = r.peer, row["times_peer"] = r.peer / r.warm;
      rows.push_back(row);
    }
    fmt::print("{}\n", Json{{"cpu", cpu_name()}, {"level", to_string(isa_level())}, {"threads", thread_count()}, {"repeats", options.repeats},
                            {"ceilings", ceilings_json(report.ceilings)}, {"cases", rows}}.dump(2));
  }

  void print_table(const bench::Report& report) const {
    fmt::print("{}, {}, {} threads, medians of {} interleaved runs\n\n{}\n", cpu_name(), level_text(), thread_count(), options.repeats, ceilings_table(report.ceilings));
    fmt::print("{:<52} {:>9} {:>9} {:>9} {:>8} {:>8} {:>9} {:>8} {:>7}\n", "case", "floor ms", "cold ms", "warm ms", "of floor", "G/s", "us/token", "error", "x peer");
    for (const auto& r : report.results)
      fmt::print("{:<52} {:>9.3f} {:>9} {:>9.3f} {:>7.1f}% {:>8.1f} {:>9} {:>8.0e} {:>7}\n", r.name, 1e3 * r.floor, r.cold > 0 ? fmt::format("{:.3f}", 1e3 * r.cold) : "",
                 1e3 * r.warm, 100 * r.floor / r.warm, 1e-9 * (r.bytes > 0 ? r.bytes : r.flops) / r.warm,
                 r.tokens > 0 ? fmt::format("{:.2f}", 1e6 * r.warm / r.tokens) : "", r.error, r.peer > 0 ? fmt::format("{:.2f}", r.peer / r.warm) : "");
  }
};

}  // namespace

void add_bench(Commands& commands) {
  auto b = std::make_shared<Bench>();
  CLI::App& app = commands.add("bench", "Time the kernels, mixers and a training step against the machine's floor and a peer", [b] { return b->run(); });
  app.add_option("filter", b->options.filter, "only cases whose name has this part");
  app.add_option("--repeats", b->options.repeats, "runs of each case")->capture_default_str()->check(CLI::Range(1, 1000));
  auto* peers = app.add_flag("--peers", b->peers, "run the same work with PyTorch (python3-torch) in the same minutes");
  app.add_option("--against", b->against, "build another commit of this checkout and run its program in the same minutes")->excludes(peers);
  app.add_flag("--list", b->list, "name the cases");
  app.add_flag("--answer", b->answers, "read names of cases and answer with seconds, as the peer of another program");
  add_json_flag(app, b->json);
  app.footer("Floor: operations over the peak of the unit that does them, or bytes over the read bandwidth, whichever is more; both are measured beside every run.\n"
             "Cold: after a pass over memory larger than the caches. Error: against the definition in double; nothing is timed that is wrong.\n"
             "Example: sennit bench attention --peers");
}

}  // namespace sennit::cli
