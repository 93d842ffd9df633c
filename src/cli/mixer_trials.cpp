#include "cli/mixer_trials.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/comparison_report.h"
#include "cli/progress_bar.h"
#include "cli/trial_report.h"
#include "io/atomic_file.h"
#include "mixers/capabilities.h"
#include "model/model_file.h"
#include "tasks/task.h"

namespace sennit::cli {
namespace {

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

std::vector<NamedMixer> chosen(const std::vector<std::string>& names, bool defaults) {
  std::vector<NamedMixer> some;
  const std::vector<NamedMixer> all = all_mixers();
  for (const std::string& name : names) {
    const std::string mixer = name.substr(0, name.find(": "));
    if (name != "all" && !mixers::is_causal(mixers::registry().find(mixer, "--mixers").info))
      fail({"compare", "causal mixers, since models are to predict the next token", name, "--mixers"});
    const size_t before = some.size();
    for (const NamedMixer& m : all)
      if (m.first == name ||
          ((name == "all" || m.first.rfind(name + ": ", 0) == 0) && (!defaults || m.second.is_string())))
        some.push_back(m);
    if (some.size() == before)
      fail({"compare", fmt::format("a named setting of {} (see `sennit list mixers {}`)", mixer, mixer), name,
            "--mixers"});
  }
  return some;
}

// Mixers that look both ways would see what they are asked for.
std::string without_trials() {
  std::string names;
  for (const auto& entry : mixers::registry().entries())
    if (!mixers::is_causal(entry.info)) names += (names.empty() ? "" : ", ") + entry.name;
  return names;
}

struct Report {
  std::vector<measure::TrialResult> trials;
  const MixerTrials& of;
  bool complete;

  std::vector<std::string> notes() const {
    std::vector<std::string> all;
    for (const auto& r : trials)
      if (!r.failed.empty()) all.push_back(fmt::format("{} was not trained: {}", r.name, r.failed));
    if (std::count(of.mixers.begin(), of.mixers.end(), "all"))
      all.push_back("No rows for mixers that see what comes later and so cannot predict the next token: " +
                    without_trials());
    if (!complete) all.push_back("Stopped early: not all mixers are here.");
    return all;
  }
  void write(const MixerTrials::Output& to) const {
    const report::Table table = trial_table(trials);
    std::string below;
    for (const std::string& note : notes()) below += "\n" + note + "\n";
    if (!to.markdown.empty()) io::write_file(to.markdown, table.markdown() + below);
    if (!to.html.empty()) io::write_file(to.html, trial_html(trials, of.options, of.jobs, notes()));
    if (!to.json) return fmt::print("{}{}", table.text(), below);
    Json rows = Json::array();
    for (const auto& r : trials) rows.push_back(measure::to_json(r));
    const Json all{{"machine", machine_text()},  {"task", of.options.task},
                   {"at_once", of.jobs.at_once}, {"threads_each", of.jobs.threads_each()},
                   {"complete", complete},       {"trials", rows}};
    fmt::print("{}\n", json_text(all));
  }
};

}  // namespace

void MixerTrials::add_flags(CLI::App& app) {
  const std::string group = "Trials: train small models on a task made by a generator";
  const CLI::Range count(int64_t{1}, int64_t{1} << 32);
  app.add_option(
         "--mixers", mixers,
         "mixers to try with their named settings, separated by commas, or all; `gla: linear attention` is one setting")
      ->delimiter(',')
      ->group(group);
  app.add_option("--task", task, "what to learn (see `sennit list tasks`)")->capture_default_str()->group(group);
  app.add_option("--task-set", settings, "a setting of the task: pairs=16 (repeatable)")
      ->allow_extra_args(false)
      ->group(group);
  app.add_option("--steps", options.steps, "optimizer steps")->capture_default_str()->check(count)->group(group);
  app.add_option("--sequences", options.rows, "sequences in a step")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16))
      ->group(group);
  app.add_option("--d-model", options.d_model, "width")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 17))
      ->group(group);
  app.add_option("--blocks", options.blocks, "blocks")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{2}, int64_t{4096}))
      ->group(group);
  app.add_option(
         "--first", first,
         "the mixer of the first block for those without a convolution of their own, or `same`: the one that is tried")
      ->capture_default_str()
      ->group(group);
  app.add_option("--rate", options.rate, "peak learning rate")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1e3))
      ->group(group);
  app.add_flag("--defaults", defaults, "mixers with their default options alone, without their named settings")
      ->group(group);
  app.add_option("--jobs", jobs.at_once, "trials at once, each in a process of its own; they share the threads")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1024}))
      ->group(group);
  app.add_option("--threads-each", jobs.threads, "threads of each trial; 0: an equal share")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1024}))
      ->group(group);
  app.add_option("--keep", jobs.keep,
                 "a folder that keeps each result as its trial ends: the same command again goes on from there")
      ->group(group);
  app.add_option("--seed", options.seed, "of weights and sequences")->capture_default_str()->group(group);
}

int MixerTrials::run(const Output& to) {
  options.precision = parse_precision(to.precision, "--precision");
  options.task = Json{{"name", task}};
  for (const std::string& s : settings) set_model_key(options.task, s);
  tasks::registry().make(options.task, {}, Rng(), "--task");
  options.first = first == "same" ? Json() : chosen({first}, true).front().second;
  const std::vector<NamedMixer> some = chosen(mixers, defaults);
  ProgressBar bar(to.quiet || to.json);
  const double total = static_cast<double>(std::ssize(some) * options.steps);
  auto trials =
      run_trials(some, options, jobs, [&](double steps, const std::string& who) { bar.update(steps, total, who); });
  bar.finish();
  const bool complete = trials.size() == some.size();
  if (!trials.empty()) Report{std::move(trials), *this, complete}.write(to);
  return complete ? 0 : 130;
}

}  // namespace sennit::cli
