#include "sequence/block_choice.h"

#include <algorithm>
#include <cmath>

namespace sennit {

int64_t choose_highest(const float* scores, int64_t n, int64_t most, int32_t* chosen, float* scratch) {
  int64_t open = 0, count = 0;
  for (int64_t i = 0; i < n; ++i)
    if (scores[i] != -INFINITY) scratch[open++] = scores[i];
  if (most <= 0 || open == 0) return 0;
  // Everything above the bound is chosen, and of what is at it as many as there is room for.
  float bound = -INFINITY;
  int64_t room = 0;
  if (open > most) {
    std::nth_element(scratch, scratch + most - 1, scratch + open, std::greater<>());
    bound = scratch[most - 1];
    room = most - std::count_if(scratch, scratch + most, [&](float s) { return s > bound; });
  }
  for (int64_t i = 0; i < n; ++i)
    if (scores[i] > bound || (scores[i] == bound && room-- > 0)) chosen[count++] = static_cast<int32_t>(i);
  return count;
}

void BlockChoice::add_tiles(int64_t group, TileList& tiles) const {
  const Places range = tiles.queries();
  const int64_t blocks = (std::min(range.end, tiles.keys()) + block_ - 1) / block_;
  Pooled<int32_t> ends(blocks + 1), queries;
  for (int64_t p = range.begin; p < range.end; ++p)
    for (const int32_t b : chosen(group, p - offset_)) ++ends[b + 1];
  for (int64_t b = 0; b < blocks; ++b) ends[b + 1] += ends[b];
  queries.resize(ends[blocks]);
  Pooled<int32_t> next(ends.begin(), ends.end() - 1);
  for (int64_t p = range.begin; p < range.end; ++p)
    for (const int32_t b : chosen(group, p - offset_)) queries[next[b]++] = static_cast<int32_t>(p);
  for (int64_t b = 0; b < blocks; ++b)
    tiles.add(Places{b * block_, (b + 1) * block_},
              std::span<const int32_t>(queries.data() + ends[b], ends[b + 1] - ends[b]), 0);
}

}  // namespace sennit
