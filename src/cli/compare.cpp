#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/parallel.h"
#include "cli/command.h"
#include "cli/comparison_report.h"
#include "cli/loaded.h"
#include "cli/mixer_trials.h"
#include "cli/progress_bar.h"
#include "io/atomic_file.h"

namespace sennit::cli {
namespace {

struct Compare {
  std::vector<std::string> runs;
  MixerTrials trials;
  measure::CompareOptions options;
  std::string precision = "bf16", cache = "f32", markdown, html;
  bool json = false, quiet = false, text = false, no_measure = false;

  int run() {
    options.context.precision = parse_precision(precision, "--precision");
    options.context.cache = parse_cache_format(cache, "--cache");
    options.measure = !no_measure;
    std::sort(options.lengths.begin(), options.lengths.end());
    FlushDenormals flush;
    Facts facts;
    ProgressBar bar(quiet || json || no_measure);
    const double each = static_cast<double>(options.lengths.size() + 1),
                 total = each * static_cast<double>(runs.size());
    double done = 0;
    for (const std::string& path : runs) {
      facts.push_back(measure::facts_of(path, options, [&](const std::string& what) {
        bar.update(done++, total, what);
        return !interrupted();
      }));
      if (interrupted()) return 130;
    }
    bar.update(total, total, "done");
    bar.finish();
    write(facts);
    return 0;
  }

  void write(const Facts& facts) const {
    const report::Table table = comparison_table(facts);
    if (!markdown.empty()) io::write_file(markdown, table.markdown());
    if (!html.empty()) io::write_file(html, comparison_html(facts, options));
    if (json) {
      Json all{
          {"machine", machine_text()}, {"precision", to_string(options.context.precision)}, {"runs", Json::array()}};
      for (const auto& f : facts) all["runs"].push_back(measure::to_json(f));
      fmt::print("{}\n", json_text(all));
      return;
    }
    fmt::print("{}", table.transposed().text());
    if (text) fmt::print("\n{}", report::terminal_plot(loss_plot(facts, false), 78, 18, isatty(STDOUT_FILENO)));
    for (const std::string& file : {markdown, html})
      if (!file.empty() && !quiet) fmt::print("wrote {}\n", file);
  }
};

}  // namespace

void add_compare(Commands& commands) {
  auto c = std::make_shared<Compare>();
  CLI::App& app =
      commands.add("compare", "Put training runs, checkpoints or mixers side by side: quality, speed, memory", [c] {
        interrupted();
        const bool trials = !c->trials.mixers.empty();
        if (c->runs.empty() != trials) fail({"compare", "either runs or --mixers", trials ? "both" : "neither"});
        return trials ? c->trials.run({c->precision, c->markdown, c->html, c->json, c->quiet}) : c->run();
      });
  app.add_option("runs", c->runs, "training runs, or checkpoint folders");
  app.add_option("--lengths", c->options.lengths, "lengths to measure costs at, separated by commas")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  app.add_option("--precision", c->precision, "of the factors of matrix products")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "bf16"}));
  ModelChoice::add_cache(app, c->cache);
  app.add_flag("--exact", c->options.context.exact, "measure exact mode");
  app.add_option("--rows", c->options.rows, "sequences in the measured training step")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16));
  app.add_option("--length", c->options.length, "tokens of each")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  app.add_flag("--no-measure", c->no_measure, "measure nothing: only what the runs wrote down");
  app.add_option("--html", c->html, "write a report with plots, one file");
  app.add_option("--markdown", c->markdown, "write the table");
  app.add_flag("--text", c->text, "plot the losses in the terminal");
  app.add_flag("--quiet", c->quiet, "no progress");
  c->trials.add_flags(app);
  add_json_flag(app, c->json);
  app.footer(
      "Example: sennit compare runs/softmax runs/gla runs/mamba --html report.html\n"
      "Example: sennit compare --mixers all --task recall --html recall.html");
}

}  // namespace sennit::cli
