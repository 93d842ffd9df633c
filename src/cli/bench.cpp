#include <fmt/format.h>

#include <array>
#include <cmath>
#include <filesystem>
#include <iostream>

#include "base/cpu.h"
#include "base/error.h"
#include "base/parallel.h"
#include "bench/case.h"
#include "bench/cores.h"
#include "cli/ceilings_table.h"
#include "cli/command.h"
#include "cli/growth_report.h"
#include "cli/loaded.h"
#include "cli/progress_bar.h"
#include "io/atomic_file.h"
#include "report/table.h"

namespace sennit::cli {
namespace {

std::filesystem::path program() {
  return std::filesystem::canonical("/proc/self/exe");
}

std::string peer_script(const std::string& name) {
  for (const char* place : {"../share/sennit/peers", "../../bench/peers"})
    if (const auto script = program().parent_path() / place / name; std::filesystem::exists(script)) return script;
  fail({"bench", name + " in share/sennit/peers", "none", program().parent_path()});
}

// Builds the program of another commit, in build/at/, and returns its path.
std::string program_at(const std::string& ref) {
  const auto script = program().parent_path() / "../../scripts/build-at";
  if (!std::filesystem::exists(script))
    fail({"bench", "--against in a checkout, for it builds the other commit", "no scripts/build-at", script});
  if (ref.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./~^@{}") !=
          std::string::npos ||
      ref[0] == '-')
    fail({"bench", "a commit, branch or tag", ref});
  FILE* out = popen(fmt::format("'{}' '{}'", script.string(), ref).c_str(), "r");
  std::string path;
  for (std::array<char, 256> part{}; out && std::fgets(part.data(), part.size(), out);) path += part.data();
  if (!out || pclose(out) != 0 || path.empty())
    fail({"bench", "the program of another commit", "its build failed", ref});
  while (path.back() == '\n') path.pop_back();
  return path;
}

struct Bench {
  bench::Options options;
  bench::ModelBench model;
  std::string against, markdown, html, lengths, precision = "bf16", cache = "f32", peer_name;
  bool json = false, list = false, peers = false, answers = false;

  int run() {
    if (answers) return bench::answer(std::cin, std::cout), 0;
    if (list) {
      for (const auto& c : bench::all_cases()) fmt::print("{}\n", c.name);
      return 0;
    }
    if (!lengths.empty()) return run_growth();
    if (peers || !peer_name.empty()) options.peer = peer();
    if (!against.empty()) options.peer = {program_at(against), "bench", "--answer"}, options.peer_is_sennit = true;
    ProgressBar bar(json);
    const bench::Report report = bench::run(
        cases(), options, [&](int done, int total, const std::string& name) { bar.update(done, total, name); });
    bar.finish();
    if (!markdown.empty())
      io::write_file(markdown, fmt::format("{}\n\n{}\n{}", heading(report.distances), ceilings_table(report.ceilings).markdown(),
                                           table(report).markdown()));
    if (json)
      print_json(report);
    else
      print_table(report);
    return 0;
  }

  std::vector<bench::Case> cases() {
    if (model.path.empty()) return bench::all_cases();
    model.context.precision = parse_precision(precision, "bench");
    model.context.cache = parse_cache_format(cache, "--cache");
    return bench::model_cases(model);
  }

  // llama.cpp runs a model's file; PyTorch has the same work as our other cases, libraries of products some of it.
  std::vector<std::string> peer() const {
    const std::string threads = std::to_string(thread_count());
    if (model.path.empty()) {
      if (peer_name == "onnxruntime") return {"node", peer_script("onnxruntime_peer.mjs"), threads};
      if (peer_name == "onednn" || peer_name == "openblas") return {peer_script("native_peer"), peer_name};
      return {"/usr/bin/python3", peer_script("torch_peer.py")};
    }
    if (!is_gguf(model.path) || !model.loading.weights.empty())
      fail({"bench", "a GGUF file as it is, for llama.cpp to run too", model.path});
    return {"node", peer_script("llama_cpp_peer.mjs"), model.path, threads};
  }

  int run_growth() {
    bench::GrowthOptions growth{
        .lengths = parse_lengths(lengths),
        .repeats = options.repeats,
        .filter = options.filters.empty() || options.filters[0] == "mixers" ? "" : options.filters[0]};
    ProgressBar bar(json);
    const auto growths = bench::measure_growth(
        growth, [&](int done, int total, const std::string& what) { bar.update(done, total, what); });
    bar.finish();
    const report::Table table = growth_table(growths, growth.lengths);
    const std::string head = heading(bench::core_distances());
    if (!markdown.empty()) io::write_file(markdown, head + "\n\n" + table.markdown());
    if (!html.empty()) io::write_file(html, growth_html(growths, growth));
    if (!json) return fmt::print("{}\n\n{}", head, table.text()), 0;
    Json rows = Json::array();
    for (const auto& g : growths) {
      Json row{
          {"mixer", g.mixer}, {"exponent", g.measured}, {"declared_exponent", g.declared}, {"points", Json::array()}};
      row["crossover"] = std::isinf(g.crossover) ? Json() : Json(g.crossover);
      for (const auto& p : g.points)
        row["points"].push_back({{"length", p.length}, {"seconds", p.seconds}, {"peak_bytes", p.peak_bytes}});
      rows.push_back(row);
    }
    fmt::print("{}\n", json_text(Json{{"cpu", cpu_name()}, {"threads", thread_count()}, {"mixers", rows}}, 2));
    return 0;
  }

  void print_json(const bench::Report& report) const {
    Json rows = Json::array();
    for (const auto& r : report.results) {
      Json row = {{"case", r.name},
                  {"error", r.error},
                  {"floor_seconds", r.floor},
                  {"seconds", r.warm},
                  {"fastest_seconds", r.fastest},
                  {"of_floor", r.floor / r.warm}};
      if (r.cold > 0) row["cold_seconds"] = r.cold;
      if (r.flops > 0) row["gflops"] = 1e-9 * r.flops / r.warm;
      if (r.bytes > 0) row["gb_per_second"] = 1e-9 * r.bytes / r.warm;
      if (r.tokens > 0) row["microseconds_per_token"] = 1e6 * r.warm / r.tokens;
      if (r.peer > 0) row["peer_seconds"] = r.peer, row["times_peer"] = r.peer / r.warm;
      rows.push_back(row);
    }
    fmt::print("{}\n", json_text(Json{{"cpu", cpu_name()},
                            {"level", to_string(isa_level())},
                            {"threads", thread_count()},
                            {"repeats", options.repeats},
                            {"core_to_core_ns", report.distances},
                            {"ceilings", ceilings_json(report.ceilings)},
                            {"cases", rows}}, 2));
  }

  std::string heading(const std::vector<double>& distances) const {
    const std::string apart = distances_text(distances);
    return fmt::format("{}, {}, {} threads{}, medians of {} interleaved runs", cpu_name(), level_text(), thread_count(),
                       apart.empty() ? "" : fmt::format(", cores {} apart", apart), options.repeats);
  }

  report::Table table(const bench::Report& report) const {
    report::Table t{{{"case"},
                     {"floor ms", true},
                     {"cold ms", true},
                     {"warm ms", true},
                     {"of floor", true},
                     {"G/s", true},
                     {"us/token", true},
                     {"error", true},
                     {"x peer", true}},
                    {}};
    for (const auto& r : report.results)
      t.add({r.name, fmt::format("{:.3f}", 1e3 * r.floor), r.cold > 0 ? fmt::format("{:.3f}", 1e3 * r.cold) : "",
             fmt::format("{:.3f}", 1e3 * r.warm), fmt::format("{:.1f} %", 100 * r.floor / r.warm),
             fmt::format("{:.1f}", 1e-9 * (r.bytes > 0 ? r.bytes : r.flops) / r.warm),
             r.tokens > 0 ? fmt::format("{:.2f}", 1e6 * r.warm / r.tokens) : "", fmt::format("{:.0e}", r.error),
             r.peer > 0 ? fmt::format("{:.2f}", r.peer / r.warm) : ""});
    return t;
  }

  void print_table(const bench::Report& report) const {
    fmt::print("{}\n\n{}\n{}", heading(report.distances), ceilings_table(report.ceilings).text(), table(report).text());
  }
};

}  // namespace

void add_bench(Commands& commands) {
  auto b = std::make_shared<Bench>();
  CLI::App& app =
      commands.add("bench", "Time the kernels, mixers and a training step against the machine's floor and a peer",
                   [b] { return b->run(); });
  app.add_option("filters", b->options.filters, "only cases whose name has one of these parts");
  app.add_option("--repeats", b->options.repeats, "runs of each case")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  auto* peers = app.add_flag("--peers", b->peers,
                             "run the same work with PyTorch (python3-torch), or a GGUF file with llama.cpp (npm's "
                             "node-llama-cpp), in the same minutes");
  auto* peer = app.add_option("--peer", b->peer_name,
                              "run the products with another library instead: oneDNN (libdnnl-dev) or OpenBLAS "
                              "(libopenblas-pthread-dev), built with g++ the first time, or npm's onnxruntime-node")
                   ->check(CLI::IsMember({"torch", "onednn", "openblas", "onnxruntime"}));
  auto* model = app.add_option(
      "--model", b->model.path,
      "instead: time a model that reads a prompt and chooses tokens after it: a GGUF file, a Hugging Face folder, a "
      "checkpoint, or a model file (random weights)")
                    ->excludes(peer);
  app.add_option("--prompt", b->model.prompt, "with --model: tokens of the prompt")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20))
      ->needs(model);
  app.add_option("--generate", b->model.generate, "with --model: tokens chosen after it")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20))
      ->needs(model);
  ModelChoice::add_weights(app, b->model.loading.weights)->needs(model);
  app.add_option("--precision", b->precision, "with --model: of products with weights that are not quantized")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->needs(model);
  ModelChoice::add_cache(app, b->cache)->needs(model);
  app.add_option("--against", b->against,
                 "build another commit of this checkout and run its program in the same minutes")
      ->excludes(peers)
      ->excludes(peer);
  app.add_option("--markdown", b->markdown, "write the tables");
  app.add_option("--lengths", b->lengths,
                 "time a token of every mixer (or those the filter names) at these lengths: 1k..64k");
  app.add_option("--html", b->html, "with --lengths: write a report with plots");
  app.add_flag("--list", b->list, "name the cases");
  app.add_flag("--answer", b->answers, "read names of cases and answer with seconds, as the peer of another program");
  add_json_flag(app, b->json);
  app.footer(
      "Floor: operations over the peak of the unit that does them, or bytes over the bandwidth of reading them or of "
      "updating them in place, whichever is more; all are measured beside every run.\n"
      "Cold: after a pass over memory larger than the caches. Error: against the definition in double; nothing is "
      "timed that is wrong.\n"
      "Example: sennit bench attention --peers\n"
      "Example: sennit bench --model model.gguf --peers\n"
      "Example: sennit bench mixers --lengths 1k..64k --html growth.html");
}

}  // namespace sennit::cli
