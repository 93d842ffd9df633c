#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/utf8.h"
#include "report/plot.h"
#include "report/table.h"

namespace sennit::report {
namespace {

constexpr int kAnsi[kColours] = {34, 33, 32, 35, 36, 31, 37};

// A grid of braille cells, two dots wide and four high; a cell has the colour of the line drawn last through it.
class Canvas {
 public:
  Canvas(int columns, int rows)
      : columns_(columns), rows_(rows), dots_(columns * rows, 0), colours_(columns * rows, -1) {}
  int width() const { return 2 * columns_; }
  int height() const { return 4 * rows_; }

  void dot(int x, int y, int colour) {
    if (x < 0 || y < 0 || x >= width() || y >= height()) return;
    static constexpr unsigned char kBits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    const int cell = y / 4 * columns_ + x / 2;
    dots_[cell] |= kBits[y % 4][x % 2], colours_[cell] = colour;
  }
  void stroke(double x0, double y0, double x1, double y1, int colour) {
    const int steps = std::clamp(static_cast<int>(std::max(std::abs(x1 - x0), std::abs(y1 - y0))), 1, 4096);
    for (int i = 0; i <= steps; ++i)
      dot(static_cast<int>(x0 + (x1 - x0) * i / steps), static_cast<int>(y0 + (y1 - y0) * i / steps), colour);
  }
  std::string row(int r, bool colour) const {
    std::string out;
    for (int c = 0; c < columns_; ++c) {
      const int cell = r * columns_ + c;
      if (!dots_[cell]) {
        out += ' ';
        continue;
      }
      if (colour) out += fmt::format("\x1b[{}m", kAnsi[colours_[cell] % kColours]);
      append_utf8(out, 0x2800 + dots_[cell]);
      if (colour) out += "\x1b[0m";
    }
    return out;
  }

 private:
  int columns_, rows_;
  std::vector<unsigned char> dots_;
  std::vector<int> colours_;
};

std::string x_axis(const Scale& x, int columns, size_t margin) {
  std::string labels(columns + 8, ' '), rule;
  std::vector<bool> marks(columns, false);
  size_t free = 0;
  for (const auto& [v, label] : x.ticks) {
    const size_t at = std::min<size_t>(static_cast<size_t>(x.at(v) * (columns - 1) + 0.5), columns - 1),
                 begin = at > label.size() / 2 ? at - label.size() / 2 : 0;
    marks[at] = true;
    if (begin < free || begin + label.size() > labels.size()) continue;
    labels.replace(begin, label.size(), label);
    free = begin + label.size() + 1;
  }
  for (const bool m : marks) rule += m ? "┴" : "─";
  labels.erase(labels.find_last_not_of(' ') + 1);
  return std::string(margin - 1, ' ') + "└" + rule + "\n" + std::string(margin, ' ') + labels + "\n";
}

}  // namespace

std::string terminal_plot(const Plot& plot, int columns, int rows, bool colour) {
  constexpr size_t kMargin = 9;
  const int inner = std::max(16, columns - static_cast<int>(kMargin) - 1), high = std::max(4, rows);
  const Scale x = x_scale(plot, inner / 12), y = y_scale(plot, high / 3);
  Canvas canvas(inner, high);
  auto px = [&](double v) { return x.at(v) * (canvas.width() - 1); };
  auto py = [&](double v) { return (1 - y.at(v)) * (canvas.height() - 1); };
  const bool all_faint =
      std::all_of(plot.lines.begin(), plot.lines.end(), [](const Line& l) { return l.style == Line::Style::faint; });
  for (const Line& l : plot.lines) {
    if (l.style == Line::Style::faint && !all_faint) continue;
    const std::pair<double, double>* before = nullptr;
    for (const auto& p : l.points) {
      if (!std::isfinite(p.first) || !std::isfinite(p.second) || (x.logarithmic && p.first <= 0) ||
          (y.logarithmic && p.second <= 0))
        continue;
      if (before)
        canvas.stroke(px(before->first), py(before->second), px(p.first), py(p.second), l.colour);
      else
        canvas.dot(static_cast<int>(px(p.first)), static_cast<int>(py(p.second)), l.colour);
      before = &p;
    }
  }
  std::string out = plot.y.title + "\n";
  for (int r = 0; r < high; ++r) {
    std::string label;
    for (const auto& [v, text] : y.ticks)
      if (static_cast<int>(py(v)) / 4 == r) label = text;
    const size_t width = shown_width(label);
    out += std::string(kMargin - 2 - std::min(width, kMargin - 2), ' ') + label + (label.empty() ? " │" : " ┤") +
           canvas.row(r, colour) + "\n";
  }
  out += x_axis(x, inner, kMargin) + std::string(kMargin, ' ') + plot.x.title + ":";
  for (const Line& l : plot.lines) {
    if (!l.labelled) continue;
    out += colour ? fmt::format("  \x1b[{}m━━\x1b[0m {}", kAnsi[l.colour % kColours], l.name) : "  " + l.name;
  }
  return out + "\n";
}

}  // namespace sennit::report
