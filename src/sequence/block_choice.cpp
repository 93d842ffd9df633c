#include "sequence/block_choice.h"

#include <cfloat>

#include "base/error.h"

namespace sennit {

namespace {

// At least `most` of n scores are as high as this, and not many more: the least of the highest ones of `most` parts or
// a few more, which lie interleaved so that compilers turn them into vectors. -FLT_MAX where that says nothing.
float likely_bound(const float* scores, int64_t n, int64_t most, float* tops) {
  const int64_t parts = (most + 7) / 8 * 8;
  if (n < 2 * parts) return -FLT_MAX;
  std::copy_n(scores, parts, tops);
  int64_t i = parts;
  for (; i + parts <= n; i += parts)
    for (int64_t p = 0; p < parts; ++p) tops[p] = scores[i + p] > tops[p] ? scores[i + p] : tops[p];
  for (; i < n; ++i) tops[0] = std::max(tops[0], scores[i]);
  return std::max(-FLT_MAX, *std::min_element(tops, tops + parts));
}

}  // namespace

int64_t choose_highest(const float* scores, int64_t n, int64_t most, int32_t* chosen, float* scratch) {
  if (most <= 0) return 0;
  float* const open = scratch;
  auto* const places = reinterpret_cast<int32_t*>(scratch + n);
  const float likely = likely_bound(scores, n, most, open);
  int64_t kept = 0;
  for (int64_t i = 0; i < n; ++i) {
    open[kept] = scores[i];
    places[kept] = static_cast<int32_t>(i);
    kept += scores[i] >= likely;
  }
  if (kept <= most) {
    std::copy_n(places, kept, chosen);
    return kept;
  }
  // Everything above the bound is chosen, and of what is at it as many as there is room for.
  std::nth_element(open, open + most - 1, open + kept, std::greater<>());
  const float bound = open[most - 1];
  int64_t room = most - std::count_if(open, open + most, [&](float s) { return s > bound; }), count = 0;
  for (int64_t i = 0; i < kept; ++i) {
    const float s = scores[places[i]];
    if (s > bound || (s == bound && room-- > 0)) chosen[count++] = places[i];
  }
  return count;
}

void BlockChoice::take(int64_t group, int64_t query, std::span<const int32_t> blocks) {
  SENNIT_CHECK(std::ssize(blocks) <= most_, "{} blocks where {} may be chosen", blocks.size(), most_);
  const int64_t at = place_of(group, query);
  std::copy(blocks.begin(), blocks.end(), blocks_.begin() + at * most_);
  counts_[at] = static_cast<int32_t>(blocks.size());
}

void BlockChoice::take_highest(int64_t group, int64_t query, const float* scores, float* scratch) {
  const int64_t at = place_of(group, query);
  counts_[at] =
      static_cast<int32_t>(choose_highest(scores, own(query) + 1, most_, blocks_.data() + at * most_, scratch));
}

void BlockChoice::add_tiles(int64_t group, TileList& tiles) const {
  const Places range = tiles.queries();
  const int64_t first = std::clamp(all_ + offset_, range.begin, range.end);
  tiles.add(Places{0, first}, Places{range.begin, first}, 0);
  if (first == range.end) return;
  const int64_t blocks = (range.end + block_ - 1) / block_;
  Pooled<int32_t> ends(blocks + 1), queries;
  for (int64_t p = first; p < range.end; ++p)
    for (const int32_t b : taken(group, p - offset_)) ++ends[b + 1];
  for (int64_t b = 0; b < blocks; ++b) ends[b + 1] += ends[b];
  queries.resize(ends[blocks]);
  Pooled<int32_t> next(ends.begin(), ends.end() - 1);
  for (int64_t p = first; p < range.end; ++p)
    for (const int32_t b : taken(group, p - offset_)) queries[next[b]++] = static_cast<int32_t>(p);
  for (int64_t b = 0; b < blocks; ++b)
    tiles.add(Places{b * block_, (b + 1) * block_},
              std::span<const int32_t>(queries.data() + ends[b], ends[b + 1] - ends[b]), 0);
}

}  // namespace sennit
