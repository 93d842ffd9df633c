#include "cli/mixer_trials.h"

#include <fmt/format.h>

#include "base/parallel.h"
#include "cli/comparison_report.h"
#include "cli/progress_bar.h"
#include "cli/trial_report.h"
#include "io/atomic_file.h"
#include "mixers/capabilities.h"
#include "model/model_file.h"

namespace sennit::cli {
namespace {

using NamedMixer = std::pair<std::string, Json>;

// Every mixer by its name, and with its named settings, for other papers are settings of it.
std::vector<NamedMixer> all_mixers() {
  std::vector<NamedMixer> all;
  for (const auto& entry : mixers::registry().entries()) {
    if (!mixers::is_causal(entry.info)) continue;  // trials predict the next token
    all.push_back({entry.name, entry.name});
    for (const auto& [name, options] : entry.info.settings) {
      Json mixer = json_of(options);
      mixer["name"] = entry.name;
      all.push_back({entry.name + ": " + name, mixer});
    }
  }
  return all;
}

std::vector<NamedMixer> chosen(const std::vector<std::string>& names) {
  std::vector<NamedMixer> some;
  for (const std::string& name : names) {
    if (name != "all" && !mixers::is_causal(mixers::registry().find(name, "--mixers").info))
      fail({"compare", "causal mixers, since models are to predict the next token", name, "--mixers"});
    for (const NamedMixer& m : all_mixers())
      if (name == "all" || m.first == name || m.first.rfind(name + ": ", 0) == 0) some.push_back(m);
  }
  return some;
}

void write(const std::vector<measure::TrialResult>& trials, const measure::TrialOptions& options, const MixerTrials::Output& to) {
  if (!to.markdown.empty()) io::write_file(to.markdown, trial_table(trials).markdown());
  if (!to.html.empty()) io::write_file(to.html, trial_html(trials, options));
  if (!to.json) {
    fmt::print("{}", trial_table(trials).text());
    return;
  }
  Json rows = Json::array();
  for (const auto& r : trials) rows.push_back(measure::to_json(r));
  fmt::print("{}\n", json_text(Json{{"machine", machine_text()}, {"task", options.task}, {"trials", rows}}));
}

}  // namespace

void MixerTrials::add_flags(CLI::App& app) {
  const std::string group = "Trials: train small models on a task made by a generator";
  const CLI::Range count(int64_t{1}, int64_t{1} << 32);
  app.add_option("--mixers", mixers, "mixers to try, separated by commas, or all")->delimiter(',')->group(group);
  app.add_option("--task", task, "what to learn (see `sennit list tasks`)")->capture_default_str()->group(group);
  app.add_option("--task-set", settings, "a setting of the task: pairs=16 (repeatable)")->allow_extra_args(false)->group(group);
  app.add_option("--steps", options.steps, "optimizer steps")->capture_default_str()->check(count)->group(group);
  app.add_option("--sequences", options.rows, "sequences in a step")->capture_default_str()->check(CLI::Range(int64_t{1}, int64_t{1} << 16))->group(group);
  app.add_option("--d-model", options.d_model, "width")->capture_default_str()->check(CLI::Range(int64_t{1}, int64_t{1} << 17))->group(group);
  app.add_option("--blocks", options.blocks, "blocks")->capture_default_str()->check(CLI::Range(int64_t{1}, int64_t{4096}))->group(group);
  app.add_option("--rate", options.rate, "peak learning rate")->capture_default_str()->check(CLI::Range(0.0, 1e3))->group(group);
  app.add_option("--seed", options.seed, "of weights and sequences")->capture_default_str()->group(group);
}

int MixerTrials::run(const Output& to) {
  FlushDenormals flush;
  options.precision = parse_precision(to.precision, "--precision");
  options.task = Json{{"name", task}};
  for (const std::string& s : settings) set_model_key(options.task, s);
  const std::vector<NamedMixer> some = chosen(mixers);
  std::vector<measure::TrialResult> trials;
  ProgressBar bar(to.quiet || to.json);
  const double total = static_cast<double>(std::ssize(some) * options.steps);
  double done = 0;
  for (const auto& [name, mixer] : some) {
    auto result = measure::trial(name, mixer, options, [&](const std::string& what) {
      bar.update(done++, total, what);
      return !interrupted();
    });
    if (!result) return 130;
    trials.push_back(std::move(*result));
  }
  bar.finish();
  write(trials, options, to);
  return 0;
}

}  // namespace sennit::cli
