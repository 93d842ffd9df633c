#include "sequence/windows.h"

#include <algorithm>
#include <utility>

namespace sennit {

Pooled<Place> filled_places(std::span<const Segment> segments, int64_t columns) {
  Pooled<Place> places;
  for (const Segment& s : segments)
    for (int64_t t = 0; t < s.length; ++t) places.push_back({t / columns, t % columns});
  return places;
}

Pooled<Place> places_of(const Batch& batch, int64_t columns) {
  if (batch.places.empty()) return filled_places(batch.segments, columns);
  return {batch.places.begin(), batch.places.end()};
}

Windows windows_of(std::span<const Segment> segments, std::span<const Place> places, int64_t side) {
  using Window = std::pair<int64_t, int64_t>;
  Windows w;
  w.back.resize(places.size());
  Pooled<std::pair<Window, int64_t>> rows;
  for (const Segment& s : segments) {
    rows.clear();
    for (int64_t row = s.begin; row < s.begin + s.length; ++row) {
      const Place& p = places[static_cast<size_t>(row)];
      rows.push_back({{p.row / side, p.column / side}, row});
    }
    std::sort(rows.begin(), rows.end());
    w.sequences.push_back({std::ssize(w.windows), 0, 0, nullptr});
    for (size_t i = 0; i < rows.size(); ++i) {
      if (i == 0 || rows[i].first != rows[i - 1].first) {
        w.windows.push_back({std::ssize(w.order), 0, 0, nullptr});
        ++w.sequences.back().length;
      }
      ++w.windows.back().length;
      w.back[static_cast<size_t>(rows[i].second)] = std::ssize(w.order);
      w.order.push_back(rows[i].second);
    }
  }
  return w;
}

}  // namespace sennit
