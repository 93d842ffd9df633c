#pragma once
#include <string>
#include <utility>
#include <vector>

// Line plots as data, drawn as SVG for reports and with braille characters for terminals.
namespace sennit::report {

enum class Unit { plain, bytes, seconds, tokens };  // tokens: lengths, in doublings: 512, 1k = 1024
std::string unit_text(double value, Unit unit);     // "12k", "1.5 MB", "20 ms": short, for ticks and labels

struct Axis {
  std::string title;
  bool logarithmic = false;
  Unit unit = Unit::plain;
};

struct Line {
  enum class Style { plain, faint, marked };  // faint: context behind the others; marked: a marker at every point
  std::string name;
  std::vector<std::pair<double, double>> points;  // by rising x; points that are not finite are left out
  int colour = 0;                                 // the same number, the same thing, in every plot of a page
  Style style = Style::plain;
  bool labelled = true;  // its name stands at its end
};

struct Plot {
  std::string title;
  Axis x, y;
  std::vector<Line> lines;
  double highest = 0;  // where the y axis ends; 0: with the largest value
};

// What an axis shows: a range, and marks in it.
struct Scale {
  double low = 0, high = 1;
  bool logarithmic = false;
  std::vector<std::pair<double, std::string>> ticks;
  double at(double value) const;  // 0 at low, 1 at high
};
Scale x_scale(const Plot& plot, int about_ticks);
Scale y_scale(const Plot& plot, int about_ticks);

inline constexpr int kColours = 7;

// An <svg> element that scales to its container. Colours are the CSS variables --c0 to --c6, --ink, --quiet and --rule.
std::string svg(const Plot& plot);

// The plot in `columns` by `rows` characters, and a line that names the lines; ANSI colours when `colour`.
std::string terminal_plot(const Plot& plot, int columns, int rows, bool colour);

}  // namespace sennit::report
