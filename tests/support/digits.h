#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "base/rng.h"

// Handwritten digits that are drawn here: strokes of a pen, turned, stretched, moved and shaken.
namespace sennit::digits {

struct Point {
  double x, y;  // in [0, 1], y down
};
using Stroke = std::vector<Point>;

// The strokes of a digit. Curves are given by points close enough together.
inline std::vector<Stroke> strokes_of(int digit) {
  const auto arc = [](Stroke s, double cx, double cy, double rx, double ry, double from, double to) {
    for (int i = 0; i <= 8; ++i) {
      const double a = (from + (to - from) * i / 8) * M_PI / 180;
      s.push_back({cx + rx * std::cos(a), cy + ry * std::sin(a)});
    }
    return s;
  };
  switch (digit) {
    case 0:
      return {arc({}, 0.5, 0.5, 0.26, 0.38, 0, 360)};
    case 1:
      return {{{0.36, 0.26}, {0.54, 0.12}, {0.54, 0.88}}};
    case 2: {
      Stroke s = arc({}, 0.5, 0.32, 0.24, 0.2, -170, 40);
      s.insert(s.end(), {{0.26, 0.86}, {0.78, 0.86}});
      return {s};
    }
    case 3:
      return {arc(arc({}, 0.46, 0.31, 0.24, 0.19, -150, 90), 0.46, 0.69, 0.26, 0.19, -90, 150)};
    case 4:
      return {{{0.6, 0.12}, {0.24, 0.6}, {0.8, 0.6}}, {{0.62, 0.38}, {0.62, 0.9}}};
    case 5:
      return {arc({{0.74, 0.14}, {0.34, 0.14}, {0.3, 0.46}}, 0.48, 0.64, 0.25, 0.22, -120, 140)};
    case 6:
      return {arc({{0.64, 0.1}, {0.36, 0.4}}, 0.5, 0.66, 0.22, 0.22, -180, 180)};
    case 7:
      return {{{0.24, 0.14}, {0.76, 0.14}, {0.44, 0.88}}};
    case 8:
      return {arc({}, 0.5, 0.31, 0.19, 0.19, 90, 450), arc({}, 0.5, 0.69, 0.23, 0.2, -90, 270)};
    default:
      return {arc({}, 0.5, 0.34, 0.21, 0.21, 0, 360), {{0.71, 0.34}, {0.68, 0.6}, {0.56, 0.9}}};
  }
}

inline double distance(Point p, Point a, Point b) {  // from p to the line between a and b
  const double dx = b.x - a.x, dy = b.y - a.y;
  const double along = std::clamp(((p.x - a.x) * dx + (p.y - a.y) * dy) / (dx * dx + dy * dy + 1e-12), 0.0, 1.0);
  return std::hypot(p.x - a.x - along * dx, p.y - a.y - along * dy);
}

// An image [side, side] of ink from 0 to 1.
inline std::vector<float> drawn(int digit, int64_t side, Rng rng) {
  const auto spread = [&](double by) { return by * (2 * rng.uniform() - 1); };
  const double turn = spread(0.2), slant = spread(0.25), wide = 0.95 + spread(0.15), high = 0.95 + spread(0.12);
  const double right = spread(0.06), down = spread(0.05), pen = 0.045 + 0.03 * rng.uniform();
  std::vector<Stroke> strokes = strokes_of(digit);
  for (Stroke& stroke : strokes)
    for (Point& p : stroke) {
      const double x = wide * (p.x - 0.5 + spread(0.02)), y = high * (p.y - 0.5 + spread(0.02)),
                   leaning = x - slant * y;
      p = {0.5 + right + std::cos(turn) * leaning - std::sin(turn) * y,
           0.5 + down + std::sin(turn) * leaning + std::cos(turn) * y};
    }
  std::vector<float> image;
  const double blur = 1 / static_cast<double>(side);
  for (int64_t i = 0; i < side * side; ++i) {
    const Point at{(static_cast<double>(i % side) + 0.5) * blur, (static_cast<double>(i / side) + 0.5) * blur};
    double near = 1;
    for (const Stroke& stroke : strokes)
      for (size_t s = 1; s < stroke.size(); ++s) near = std::min(near, distance(at, stroke[s - 1], stroke[s]));
    const double ink = std::clamp((pen + blur - near) / blur, 0.0, 1.0);
    image.push_back(static_cast<float>(std::clamp(ink + 0.05 * rng.normal(), 0.0, 1.0)));
  }
  return image;
}

}  // namespace sennit::digits
