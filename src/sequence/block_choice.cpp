#include "sequence/block_choice.h"

#include <cmath>

#include "base/error.h"

namespace sennit {

namespace {

// Keeps all that can be among the `most` highest, and not much more: what is no lower than the least of the highest
// ones of `most` parts. Returns how many.
int64_t keep_likely(float* scores, int64_t n, int64_t most) {
  const int64_t part = n / most;
  float least = INFINITY;
  for (int64_t p = 0; p < most; ++p) {
    float top = scores[p * part];
    for (int64_t i = 1; i < part; ++i) top = std::max(top, scores[p * part + i]);
    least = std::min(least, top);
  }
  int64_t kept = 0;
  for (int64_t i = 0; i < n; ++i) {
    scores[kept] = scores[i];
    kept += scores[i] >= least;
  }
  return kept;
}

}  // namespace

int64_t choose_highest(const float* scores, int64_t n, int64_t most, int32_t* chosen, float* scratch) {
  int64_t open = 0, count = 0;
  for (int64_t i = 0; i < n; ++i)
    if (scores[i] != -INFINITY) scratch[open++] = scores[i];
  if (most <= 0 || open == 0) return 0;
  // Everything above the bound is chosen, and of what is at it as many as there is room for.
  float bound = -INFINITY;
  int64_t room = 0;
  if (open > most) {
    open = keep_likely(scratch, open, most);
    std::nth_element(scratch, scratch + most - 1, scratch + open, std::greater<>());
    bound = scratch[most - 1];
    room = most - std::count_if(scratch, scratch + most, [&](float s) { return s > bound; });
  }
  for (int64_t i = 0; i < n; ++i)
    if (scores[i] > bound || (scores[i] == bound && room-- > 0)) chosen[count++] = static_cast<int32_t>(i);
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
