#include "cli/trial_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/comparison_report.h"
#include "cli/progress_bar.h"
#include "report/html.h"

namespace sennit::cli {
namespace {

using measure::TrialResult;

std::vector<TrialResult> best_first(std::vector<TrialResult> trials) {
  std::stable_sort(trials.begin(), trials.end(), [](const TrialResult& a, const TrialResult& b) {
    return std::pair(a.failed.empty(), a.accuracy) > std::pair(b.failed.empty(), b.accuracy);
  });
  return trials;
}

// More lines than colours would not be told apart: the rest stay faint.
report::Plot learning_plot(const std::vector<TrialResult>& trials) {
  report::Plot p{"Learning", {"steps"}, {"accuracy (%)"}, {}};
  for (size_t i = 0; i < trials.size(); ++i) {
    measure::Curve percent = trials[i].accuracy_by_steps;
    for (auto& point : percent) point.second *= 100;
    const bool shown = i < report::kColours;
    p.lines.push_back({trials[i].name, percent, static_cast<int>(i % report::kColours),
                       shown ? report::Line::Style::plain : report::Line::Style::faint, shown});
  }
  return p;
}

// Nothing with as small a state answers as much.
bool at_the_front(const TrialResult& r, const std::vector<TrialResult>& trials) {
  return std::none_of(trials.begin(), trials.end(), [&](const TrialResult& o) {
    return o.state_bytes <= r.state_bytes && o.accuracy >= r.accuracy &&
           std::pair(-o.state_bytes, o.accuracy) != std::pair(-r.state_bytes, r.accuracy);
  });
}

// All are there, those at the front have their names beside them; the others say theirs when pointed at.
report::Plot state_plot(const std::vector<TrialResult>& trials) {
  report::Plot p{"Accuracy against state", {"state of one sequence", true, report::Unit::bytes}, {"accuracy (%)"}, {}};
  for (size_t i = 0; i < trials.size(); ++i)
    p.lines.push_back({trials[i].name,
                       {{static_cast<double>(std::max<int64_t>(1, trials[i].state_bytes)), 100 * trials[i].accuracy}},
                       static_cast<int>(i % report::kColours),
                       report::Line::Style::marked,
                       at_the_front(trials[i], trials)});
  return p;
}

// "recall", or "recall: pairs 16, length 64".
std::string task_text(const Json& task) {
  if (task.is_string()) return task.get<std::string>();
  std::string settings;
  for (const auto& [key, value] : task.items())
    if (key != "name") settings += fmt::format("{} {} {}", settings.empty() ? ":" : ",", key, json_text(value));
  return task.at("name").get<std::string>() + settings;
}

}  // namespace

report::Table trial_table(const std::vector<TrialResult>& trials) {
  report::Table t{{{"mixer"},
                   {"accuracy", true},
                   {"loss", true},
                   {"parameters", true},
                   {"tokens/s", true},
                   {"training memory", true},
                   {"state", true},
                   {"state at 64k", true}},
                  {}};
  const auto bytes = [](int64_t n) { return bytes_text(static_cast<double>(n)); };
  for (const TrialResult& r : best_first(trials)) {
    if (!r.failed.empty()) {
      t.add({r.name, "–", "–", "–", "–", "–", "–", "–"});
      continue;
    }
    t.add({r.name, fmt::format("{:.1f} %", 100 * r.accuracy), fmt::format("{:.3f}", r.loss),
           count_text(static_cast<double>(r.parameters)), count_text(r.tokens_per_second), bytes(r.peak_bytes),
           bytes(r.state_bytes), bytes(r.state_bytes_64k)});
  }
  return t;
}

std::string trial_html(const std::vector<TrialResult>& trials, const measure::TrialOptions& options,
                       const TrialJobs& jobs, const std::vector<std::string>& notes) {
  auto sorted = best_first(trials);
  report::Page page("Sennit: mixers on " + task_text(options.task));
  page.paragraph(
      fmt::format("{} blocks of width {}, {} steps of {} sequences, seed {}; products in {}. Measured on {}, {} trials "
                  "at once with {} threads each. Accuracy is the share of asked tokens that the largest logit names, "
                  "in {} sequences that training never showed.",
                  options.blocks, options.d_model, options.steps, options.rows, options.seed,
                  to_string(options.precision), machine_text(), jobs.at_once, jobs.threads_each(), options.asked));
  page.table(trial_table(trials));
  for (const std::string& note : notes) page.paragraph(note);
  std::erase_if(sorted, [](const TrialResult& r) { return !r.failed.empty(); });
  page.begin_figures();
  page.figure(learning_plot(sorted), "higher is better");
  page.figure(state_plot(sorted), "up and to the left is better");
  page.end_figures();
  page.heading("Models");
  for (const TrialResult& r : sorted) page.folded(r.name, json_text(r.model, 1));
  return page.html();
}

}  // namespace sennit::cli
