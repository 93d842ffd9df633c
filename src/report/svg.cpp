#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "report/plot.h"
#include "report/table.h"

namespace sennit::report {
namespace {

// Sizes in units of the view box: small, so that text stays readable when a phone scales the drawing down.
constexpr double kWidth = 460, kHeight = 300, kLeft = 52, kTop = 26, kBottom = 40, kLetter = 7.4, kLabelGap = 13;
constexpr size_t kLongestLabel = 16;
constexpr size_t kMostTold = 40;  // points of a faint line that say what they are

std::string shortened(const std::string& name) {
  if (shown_width(name) <= kLongestLabel) return name;
  std::string s = name.substr(0, kLongestLabel - 1);
  while (!s.empty() && (static_cast<unsigned char>(s.back()) & 0xc0) == 0x80) s.pop_back();
  return s + "…";
}

struct Drawing {
  const Plot& plot;
  Scale x = x_scale(plot, 6), y = y_scale(plot, 6);
  double right = margin(), bottom = kHeight - kBottom;
  std::string out{};

  double margin() const {
    size_t longest = 0;
    for (const Line& l : plot.lines)
      if (l.labelled) longest = std::max(longest, shown_width(shortened(l.name)));
    return kWidth - (longest ? 12 + kLetter * static_cast<double>(longest) : 14);
  }
  double px(double v) const { return kLeft + x.at(v) * (right - kLeft); }
  double py(double v) const { return bottom - y.at(v) * (bottom - kTop); }
  bool drawable(const std::pair<double, double>& p) const {
    return std::isfinite(p.first) && std::isfinite(p.second) && (!x.logarithmic || p.first > 0) &&
           (!y.logarithmic || p.second > 0);
  }

  template <class... Args>
  void put(fmt::format_string<Args...> f, Args&&... args) {
    fmt::format_to(std::back_inserter(out), f, std::forward<Args>(args)...);
  }

  void axes() {
    for (const auto& [v, label] : y.ticks) {
      put("<line class=\"grid\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", kLeft, right, py(v), py(v));
      put("<text class=\"tick\" text-anchor=\"end\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", kLeft - 6, py(v) + 4,
          escape_html(label));
    }
    put("<line class=\"axis\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>\n", kLeft, right, bottom,
        bottom);
    for (const auto& [v, label] : x.ticks) {
      put("<line class=\"axis\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\"/>", px(v), bottom,
          bottom + 4);
      put("<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", px(v), bottom + 16,
          escape_html(label));
    }
    put("<text class=\"name\" text-anchor=\"middle\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", (kLeft + right) / 2,
        kHeight - 6, escape_html(plot.x.title));
    put("<text class=\"name\" x=\"4\" y=\"{:.1f}\">{}</text>\n", kTop - 13, escape_html(plot.y.title));
  }

  void line(const Line& l) {
    const int colour = l.colour % kColours;
    std::string path;
    for (const auto& p : l.points)
      if (drawable(p)) path += fmt::format("{}{:.1f},{:.1f}", path.empty() ? "" : " ", px(p.first), py(p.second));
    put("<polyline class=\"{} k{}\" points=\"{}\"/>\n", l.style == Line::Style::faint ? "faint" : "line", colour, path);
    if (l.style == Line::Style::faint && l.points.size() > kMostTold) return;
    const size_t stride = l.style == Line::Style::marked ? 1 : std::max<size_t>(1, l.points.size() / 40);
    for (size_t i = 0; i < l.points.size(); i += stride) {
      const auto& p = l.points[i];
      if (!drawable(p)) continue;
      if (l.style == Line::Style::marked) marker(colour, px(p.first), py(p.second));
      put("<circle class=\"hit\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"9\" data-tip=\"{}: {}, {}\"/>\n", px(p.first),
          py(p.second), escape_html(l.name), unit_text(p.first, plot.x.unit), unit_text(p.second, plot.y.unit));
    }
  }

  // A shape for each colour, for eyes and printers that tell colours badly.
  void marker(int colour, double cx, double cy) {
    switch (colour % 4) {
      case 0:
        put("<circle class=\"mark k{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.4\"/>", colour, cx, cy);
        break;
      case 1:
        put("<rect class=\"mark k{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"6.2\" height=\"6.2\"/>", colour, cx - 3.1,
            cy - 3.1);
        break;
      case 2:
        put("<path class=\"mark k{}\" d=\"M{:.1f},{:.1f}l4.2,7h-8.4z\"/>", colour, cx, cy - 4.4);
        break;
      default:
        put("<path class=\"mark k{}\" d=\"M{:.1f},{:.1f}l4.4,4.4l-4.4,4.4l-4.4,-4.4z\"/>", colour, cx, cy - 4.4);
    }
  }

  struct Label {
    double x, y;
    const Line* line;
  };
  // Names at the ends of their lines; in the margin, where most lines end, they are pushed apart.
  void labels() {
    std::vector<Label> margin_labels;
    for (const Line& l : plot.lines) {
      const auto last = std::find_if(l.points.rbegin(), l.points.rend(), [&](const auto& p) { return drawable(p); });
      if (!l.labelled || last == l.points.rend()) continue;
      const Label label{px(last->first) + 8, std::clamp(py(last->second), kTop, bottom), &l};
      if (label.x > right - 4)
        margin_labels.push_back(label);
      else
        put_label({label.x - 4, label.y + (label.y > bottom - 20 ? -12.0 : 12.0), &l});
    }
    std::stable_sort(margin_labels.begin(), margin_labels.end(),
                     [](const Label& a, const Label& b) { return a.y < b.y; });
    for (size_t i = 1; i < margin_labels.size(); ++i)
      margin_labels[i].y = std::max(margin_labels[i].y, margin_labels[i - 1].y + kLabelGap);
    if (!margin_labels.empty()) margin_labels.back().y = std::min(margin_labels.back().y, bottom);
    for (size_t i = margin_labels.size(); i-- > 1;)
      margin_labels[i - 1].y = std::min(margin_labels[i - 1].y, margin_labels[i].y - kLabelGap);
    for (const Label& l : margin_labels) put_label(l);
  }
  void put_label(const Label& l) {
    put("<text class=\"label t{}\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", l.line->colour % kColours, l.x, l.y + 4,
        escape_html(shortened(l.line->name)));
  }
};

}  // namespace

std::string svg(const Plot& plot) {
  Drawing d{plot};
  const std::string clip = fmt::format("clip{:08x}", hash64(plot.title + plot.x.title) & 0xffffffff);
  d.put("<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\">\n", kWidth, kHeight,
        escape_html(plot.title + ": " + plot.y.title + " against " + plot.x.title));
  d.put("<clipPath id=\"{}\"><rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/></clipPath>\n", clip,
        kLeft - 5, kTop - 5, d.right - kLeft + 10, d.bottom - kTop + 8);
  d.axes();
  d.put("<g clip-path=\"url(#{})\">\n", clip);
  for (const Line& l : plot.lines)
    if (l.style == Line::Style::faint) d.line(l);
  for (const Line& l : plot.lines)
    if (l.style != Line::Style::faint) d.line(l);
  d.put("</g>\n");
  d.labels();
  return d.out + "</svg>\n";
}

}  // namespace sennit::report
