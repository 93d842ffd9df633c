#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "report/plot.h"

namespace sennit::report {
namespace {

std::string short_number(double v) {
  const std::string s = fmt::format("{:.3g}", v == 0 ? 0.0 : v);  // never -0
  return s.find('e') == std::string::npos ? s : fmt::format("{:.0f}", v);
}

// Marks at multiples of 1, 2 or 5 times a power of ten.
std::vector<double> linear_marks(double low, double high, int about) {
  const double raw = (high - low) / about, power = std::pow(10, std::floor(std::log10(raw)));
  double step = power;
  for (const double m : {1.0, 2.0, 5.0, 10.0})
    if ((step = m * power) >= raw * 0.999) break;
  std::vector<double> marks;
  for (double k = std::ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; ++k) marks.push_back(k * step);
  return marks;
}

// Marks at powers of `base`, every so many that there are about `about`.
std::vector<double> powers(double low, double high, double base, int about) {
  const double first = std::ceil(std::log(low) / std::log(base) - 1e-9),
               last = std::floor(std::log(high) / std::log(base) + 1e-9);
  const double stride = std::max(1.0, std::ceil((last - first + 1) / about));
  std::vector<double> marks;
  for (double k = first; k <= last; k += stride) marks.push_back(std::pow(base, k));
  return marks;
}

// Marks at powers of ten, and at 2 and 5 times them, or 3 times, where that leaves too few.
std::vector<double> logarithmic_marks(double low, double high, int about) {
  std::vector<double> marks = powers(low, high, 10, about);
  for (const std::vector<double>& between : {std::vector<double>{3}, {2, 5}}) {
    if (std::ssize(marks) >= about / 2) break;
    marks.clear();
    for (double power = std::pow(10, std::floor(std::log10(low))); power <= high; power *= 10) {
      marks.push_back(power);
      for (const double m : between) marks.push_back(m * power);
    }
    std::erase_if(marks, [&](double m) { return m < low * 0.999 || m > high * 1.001; });
  }
  return marks;
}

template <class Value>
Scale make_scale(const Plot& plot, const Axis& axis, Value value) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const Line& line : plot.lines)
    for (const auto& p : line.points) {
      const double v = value(p);
      if (!std::isfinite(v) || (axis.logarithmic && v <= 0)) continue;
      low = std::min(low, v), high = std::max(high, v);
    }
  if (low > high) low = axis.logarithmic ? 1 : 0, high = axis.logarithmic ? 10 : 1;
  if (low == high) low = axis.logarithmic ? low / 2 : low - 0.5, high = axis.logarithmic ? high * 2 : high + 0.5;
  return {low, high, axis.logarithmic, {}};
}

void add_ticks(Scale& s, Unit unit, int about) {
  std::vector<double> marks;
  if (s.logarithmic)
    marks = unit == Unit::tokens ? powers(s.low, s.high, 2, about) : logarithmic_marks(s.low, s.high, about);
  if (marks.size() < 2) marks = linear_marks(s.low, s.high, about);  // a range so short that both are alike
  for (const double m : marks) s.ticks.push_back({m, unit_text(m, unit)});
}

}  // namespace

std::string unit_text(double v, Unit unit) {
  const double size = std::abs(v);
  if (unit == Unit::seconds) {
    if (size == 0) return "0 s";
    if (size >= 120) return short_number(v / 60) + " min";
    if (size >= 1) return short_number(v) + " s";
    if (size >= 1e-3) return short_number(v * 1e3) + " ms";
    return short_number(v * 1e6) + " µs";
  }
  if (unit == Unit::tokens && size >= 1024 && std::fmod(size, 1024) == 0)
    return size >= 1 << 20 ? short_number(v / (1 << 20)) + "M" : short_number(v / 1024) + "k";
  const char* tail = unit == Unit::bytes ? "B" : "";
  const char* gap = unit == Unit::bytes ? " " : "";
  for (const auto& [scale, letter] : {std::pair{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}})
    if (size >= scale) return short_number(v / scale) + gap + letter + tail;
  return short_number(v) + gap + tail;
}

double Scale::at(double v) const {
  if (logarithmic) return (std::log(v) - std::log(low)) / (std::log(high) - std::log(low));
  return (v - low) / (high - low);
}

Scale x_scale(const Plot& plot, int about) {
  Scale s = make_scale(plot, plot.x, [](const auto& p) { return p.first; });
  if (!s.logarithmic && s.low > 0 && s.low < 0.3 * s.high) s.low = 0;
  add_ticks(s, plot.x.unit, about);
  return s;
}

Scale y_scale(const Plot& plot, int about) {
  Scale s = make_scale(plot, plot.y, [](const auto& p) { return p.second; });
  if (plot.highest > s.low) s.high = std::min(s.high, plot.highest);
  if (s.logarithmic) {
    const double margin = std::pow(s.high / s.low, 0.06);
    s.low /= margin, s.high *= margin;
  } else {
    const double margin = 0.05 * (s.high - s.low);
    s.low = s.low >= 0 && s.low < 0.3 * s.high ? 0 : s.low - margin, s.high += margin;
  }
  add_ticks(s, plot.y.unit, about);
  return s;
}

}  // namespace sennit::report
