#include "cli/growth_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "cli/comparison_report.h"
#include "cli/progress_bar.h"
#include "report/html.h"

namespace sennit::cli {
namespace {

using bench::Growth;

std::string length_text(double n) {
  return report::unit_text(n, report::Unit::tokens);
}

std::string crossover_text(const Growth& g) {
  if (g.mixer == "softmax") return "";
  return g.crossover == 0 ? "always" : std::isinf(g.crossover) ? "not here" : fmt::format("{:.0f}", g.crossover);
}

// The identity takes no time: its line would stretch the axis over decades.
bool drawn(const Growth& g) {
  return !g.points.empty() && (g.points.size() == 1 || g.declared > 0);
}

// As many mixers as there are colours: exact attention, and others spread evenly from the fastest to the slowest at the
// longest length. More lines would not be told apart: the rest stay faint, and say their names when pointed at.
std::vector<size_t> shown(const std::vector<Growth>& growths) {
  std::vector<size_t> order(growths.size() - 1), some = {0};
  std::iota(order.begin(), order.end(), 1);
  std::erase_if(order, [&](size_t i) { return !drawn(growths[i]); });
  const auto slowness = [&](size_t i) {
    const auto& last = growths[i].points.back();
    return last.seconds / static_cast<double>(last.length);
  };
  std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return slowness(i) < slowness(j); });
  const size_t most = std::min<size_t>(report::kColours - 1, order.size());
  for (size_t i = 0; i < most; ++i) some.push_back(order[most > 1 ? i * (order.size() - 1) / (most - 1) : 0]);
  return some;
}

report::Plot growth_plot(const std::vector<Growth>& growths, bool memory) {
  report::Plot p{memory ? "Memory" : "Time",
                 {"length", true, report::Unit::tokens},
                 memory ? report::Axis{"peak of a pass", true, report::Unit::bytes}
                        : report::Axis{"time a token", true, report::Unit::seconds},
                 {}};
  const std::vector<size_t> some = shown(growths);
  for (size_t i = 0; i < growths.size(); ++i) {
    if (!drawn(growths[i])) continue;
    const auto place = std::find(some.begin(), some.end(), i);
    const bool named = place != some.end();
    report::Line line{growths[i].mixer,
                      {},
                      static_cast<int>(named ? place - some.begin() : static_cast<int64_t>(i) % report::kColours),
                      named ? report::Line::Style::marked : report::Line::Style::faint,
                      named};
    for (const auto& at : growths[i].points)
      line.points.push_back({static_cast<double>(at.length), memory ? static_cast<double>(at.peak_bytes)
                                                                    : at.seconds / static_cast<double>(at.length)});
    p.lines.push_back(line);
  }
  return p;
}

int64_t parse_length(std::string_view text, const std::string& whole) {
  int64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  const bool thousands = error == std::errc() && end + 1 == text.data() + text.size() && *end == 'k';
  if (error != std::errc() || (!thousands && end != text.data() + text.size()) || n < 1 || n > (1 << 24))
    fail({"--lengths", "lengths like 1k..64k or 512,4k", whole});
  return thousands ? 1024 * n : n;
}

}  // namespace

report::Table growth_table(const std::vector<Growth>& growths, const std::vector<int64_t>& lengths) {
  report::Table t{{{"mixer"}}, {}};
  for (const int64_t n : lengths) t.columns.push_back({length_text(static_cast<double>(n)), true});
  for (const char* title : {"time ~ n^", "declared", "peak at the longest", "faster than attention from"})
    t.columns.push_back({title, true});
  for (const Growth& g : growths) {
    std::vector<std::string> row = {g.mixer};
    for (size_t i = 0; i < lengths.size(); ++i)
      row.push_back(i < g.points.size()
                        ? fmt::format("{:.2f}", 1e6 * g.points[i].seconds / static_cast<double>(g.points[i].length))
                        : "–");
    if (g.points.empty())  // too slow for the shortest length
      row.insert(row.end(), {"–", "–", "–", "–"});
    else
      row.insert(row.end(), {fmt::format("{:.2f}", g.measured), fmt::format("{:.2f}", g.declared),
                             bytes_text(static_cast<double>(g.points.back().peak_bytes)), crossover_text(g)});
    t.add(row);
  }
  return t;
}

std::string growth_html(const std::vector<Growth>& growths, const bench::GrowthOptions& options) {
  report::Page page("Sennit: mixers against length");
  page.paragraph(
      fmt::format("Forward passes over one sequence at width {}, microseconds a token, medians of {} interleaved runs "
                  "on {}. The exponents are of the longer half of the lengths.",
                  options.d_model, options.repeats, machine_text()));
  page.table(growth_table(growths, options.lengths));
  page.begin_figures();
  page.figure(growth_plot(growths, false), "lower is better; a straight rise is a sum over all that came before");
  page.figure(growth_plot(growths, true), "tensors alive at once, without weights and input");
  page.end_figures();
  return page.html();
}

std::vector<int64_t> parse_lengths(const std::string& text) {
  std::vector<int64_t> lengths;
  if (const size_t dots = text.find(".."); dots != std::string::npos) {
    const int64_t last = parse_length(std::string_view(text).substr(dots + 2), text);
    for (int64_t n = parse_length(std::string_view(text).substr(0, dots), text); n <= last; n *= 2)
      lengths.push_back(n);
  } else {
    for (size_t at = 0; at <= text.size();) {
      const size_t comma = std::min(text.find(',', at), text.size());
      lengths.push_back(parse_length(std::string_view(text).substr(at, comma - at), text));
      at = comma + 1;
    }
  }
  if (lengths.empty() || !std::is_sorted(lengths.begin(), lengths.end())) fail({"--lengths", "rising lengths", text});
  return lengths;
}

}  // namespace sennit::cli
