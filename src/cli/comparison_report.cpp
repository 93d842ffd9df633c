#include "cli/comparison_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/cpu.h"
#include "base/parallel.h"
#include "cli/progress_bar.h"

namespace sennit::cli {
namespace {

using measure::RunFacts;
using report::Line;
using report::Plot;
using report::Table;

constexpr int64_t kPrompt = 1024;

struct Column {
  const char* title;
  std::function<double(const RunFacts&)> value;  // 0 or NaN: nothing to show
  std::function<std::string(double)> text;
  int better = 0;  // 1: more, -1: less, 0: neither
};

std::vector<Column> columns() {
  auto count = [](double v) { return count_text(v); };
  auto bytes = [](double v) { return bytes_text(v); };
  auto prefill = [](const RunFacts& f) {
    const auto* c = f.prefill_at(kPrompt);
    return c ? static_cast<double>(kPrompt) / c->seconds : 0;
  };
  auto decode = [](const RunFacts& f) {
    const auto* c = f.decode_at(kPrompt);
    return c ? 1 / c->seconds : 0;
  };
  auto prefill_memory = [](const RunFacts& f) {
    const auto* c = f.prefill_at(kPrompt);
    return c ? static_cast<double>(c->peak_bytes) : 0;
  };
  return {{"parameters", [](const RunFacts& f) { return static_cast<double>(f.parameters); }, count},
          {"steps", [](const RunFacts& f) { return static_cast<double>(f.steps); }, count},
          {"trained tokens", [](const RunFacts& f) { return static_cast<double>(f.tokens); }, count},
          {"valid bits/byte", [](const RunFacts& f) { return f.bits_per_byte; },
           [](double v) { return fmt::format("{:.4f}", v); }, -1},
          {"training tokens/s", [](const RunFacts& f) { return f.train_rate; }, count, 1},
          {"prefill tokens/s", prefill, count, 1},
          {"decode tokens/s", decode, count, 1},
          {"training memory",
           [](const RunFacts& f) { return f.training ? static_cast<double>(f.training->peak_bytes) : 0; }, bytes, -1},
          {"prefill memory", prefill_memory, bytes, -1},
          {"state at 1k", [](const RunFacts& f) { return static_cast<double>(f.state_bytes_at(1024)); }, bytes, -1},
          {"state at 64k", [](const RunFacts& f) { return static_cast<double>(f.state_bytes_at(65536)); }, bytes, -1}};
}

Plot cost_plot(const Facts& facts, const char* title, report::Axis x, report::Axis y,
               const std::function<measure::Curve(const RunFacts&)>& curve) {
  Plot p{title, std::move(x), std::move(y), {}};
  for (size_t i = 0; i < facts.size(); ++i)
    p.lines.push_back({facts[i].name, curve(facts[i]), static_cast<int>(i), Line::Style::marked});
  return p;
}

Plot prefill_plot(const Facts& facts) {
  return cost_plot(facts, "Reading a prompt", {"length of the prompt (tokens)", true, report::Unit::tokens},
                   {"time per token", true, report::Unit::seconds}, [](const RunFacts& f) {
                     measure::Curve c;
                     for (const auto& p : f.inference.prefill)
                       c.push_back({p.length, p.seconds / static_cast<double>(p.length)});
                     return c;
                   });
}

Plot decode_plot(const Facts& facts) {
  return cost_plot(facts, "Writing a token", {"position in the text (tokens)", true, report::Unit::tokens},
                   {"time of one token", true, report::Unit::seconds}, [](const RunFacts& f) {
                     measure::Curve c;
                     for (const auto& d : f.inference.decode) c.push_back({d.position, d.seconds});
                     return c;
                   });
}

Plot memory_plot(const Facts& facts) {
  return cost_plot(facts, "Working memory of a prompt", {"length of the prompt (tokens)", true, report::Unit::tokens},
                   {"peak above the weights", true, report::Unit::bytes}, [](const RunFacts& f) {
                     measure::Curve c;
                     for (const auto& p : f.inference.prefill) c.push_back({p.length, p.peak_bytes});
                     return c;
                   });
}

Plot state_plot(const Facts& facts) {
  return cost_plot(facts, "What a text leaves in memory", {"length of the text (tokens)", true, report::Unit::tokens},
                   {"state of one text", true, report::Unit::bytes}, [](const RunFacts& f) {
                     measure::Curve c;
                     for (const auto& [n, bytes] : f.state_bytes) c.push_back({n, bytes});
                     return c;
                   });
}

Table cost_table(const Facts& facts) {
  Table t{{{"run"},
           {"tokens", true},
           {"prefill ms", true},
           {"prefill tokens/s", true},
           {"peak", true},
           {"decode ms", true},
           {"decode tokens/s", true},
           {"state", true}},
          {}};
  for (const RunFacts& f : facts)
    for (size_t i = 0; i < f.inference.decode.size(); ++i) {
      const auto& p = f.inference.prefill[i];
      const auto& d = f.inference.decode[i];
      t.add({f.name, fmt::format("{}", p.length), fmt::format("{:.2f}", p.seconds * 1e3),
             count_text(static_cast<double>(p.length) / p.seconds), bytes_text(static_cast<double>(p.peak_bytes)),
             fmt::format("{:.3f}", d.seconds * 1e3), count_text(1 / d.seconds),
             bytes_text(static_cast<double>(d.state_bytes))});
    }
  return t;
}

bool trained(const Facts& facts) {
  return std::any_of(facts.begin(), facts.end(),
                     [](const RunFacts& f) { return !f.valid_by_tokens.empty() || !f.train_by_tokens.empty(); });
}

}  // namespace

std::string machine_text() {
  return fmt::format("{}, {}, {} thread{}", cpu_name(), to_string(isa_level()), thread_count(),
                     thread_count() == 1 ? "" : "s");
}

Table comparison_table(const Facts& facts) {
  Table t{{{"model"}}, {}};
  for (const RunFacts& f : facts) t.rows.push_back({{f.name}});
  for (const Column& c : columns()) {
    t.columns.push_back({c.title, true});
    double best = std::nan("");
    for (const RunFacts& f : facts)
      if (const double v = c.value(f); v > 0 && (std::isnan(best) || c.better * (v - best) > 0)) best = v;
    for (size_t i = 0; i < facts.size(); ++i) {
      const double v = c.value(facts[i]);
      t.rows[i].push_back({v > 0 ? c.text(v) : "–", facts.size() > 1 && c.better != 0 && v == best});
    }
  }
  return t;
}

Plot loss_plot(const Facts& facts, bool by_seconds) {
  Plot p{by_seconds ? "Loss against time" : "Loss against data",
         {by_seconds ? "time in training steps" : "tokens seen", false,
          by_seconds ? report::Unit::seconds : report::Unit::plain},
         {"loss (nats per token)"},
         {}};
  for (size_t i = 0; i < facts.size(); ++i) {
    const auto& train = by_seconds ? facts[i].train_by_seconds : facts[i].train_by_tokens;
    const auto& valid = by_seconds ? facts[i].valid_by_seconds : facts[i].valid_by_tokens;
    if (!train.empty()) {
      p.lines.push_back({facts[i].name + " (training)", train, static_cast<int>(i), Line::Style::faint, valid.empty()});
      p.highest =
          std::max(p.highest, train[train.size() / 25].second);  // the first plunge would flatten all that follows
    }
    if (!valid.empty())
      p.lines.push_back(
          {facts[i].name, valid, static_cast<int>(i), valid.size() > 30 ? Line::Style::plain : Line::Style::marked});
  }
  return p;
}

std::string comparison_html(const Facts& facts, const measure::CompareOptions& options) {
  std::string names;
  for (const RunFacts& f : facts) names += (names.empty() ? "" : ", ") + f.name;
  report::Page page("Sennit: " + names);
  page.paragraph(fmt::format("Measured on {}, products in {}{}.", machine_text(), to_string(options.context.precision),
                             options.context.exact ? ", exact mode" : ""));
  page.table(comparison_table(facts));
  page.paragraph(
      fmt::format("Bold is best. Prefill reads a prompt of {} tokens; decode writes tokens after it. Training memory "
                  "is the peak of a step of {} × {} tokens: weights, gradients, "
                  "optimizer and activations. Prefill memory is the peak above the weights. State is what one text "
                  "leaves in memory.",
                  kPrompt, options.rows, options.length));
  if (trained(facts)) {
    page.heading("Learning");
    page.begin_figures();
    const char* caption = "solid with marks: validation; faint: training, averaged";
    page.figure(loss_plot(facts, false), caption);
    page.figure(loss_plot(facts, true), caption);
    page.end_figures();
  }
  page.heading("Cost against length");
  page.begin_figures();
  if (options.measure) {
    page.figure(prefill_plot(facts), "whole prompt divided by its length; lower is better");
    page.figure(decode_plot(facts), "one text at a time; lower is better");
    page.figure(memory_plot(facts), "tensors alive at once, without the weights");
  }
  page.figure(state_plot(facts), "lower leaves room for more texts at once");
  page.end_figures();
  if (options.measure) page.folded("Measurements", cost_table(facts));
  page.heading("Models");
  for (const RunFacts& f : facts) page.folded(f.name + " — " + f.checkpoint, json_text(f.model, 1));
  return page.html();
}

}  // namespace sennit::cli
