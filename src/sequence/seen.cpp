#include "sequence/seen.h"

#include "ops/layout.h"

namespace sennit {

const Var& looked_at(const Var& x, const Batch& batch) {
  return batch.pattern == Pattern::cross ? *batch.memory : x;
}

std::span<const Segment> looked_at_segments(const Batch& batch) {
  return batch.pattern == Pattern::cross ? batch.memory_segments : batch.segments;
}

SeenRows seen_rows(std::initializer_list<Var> parts, const Batch& batch, size_t field, int64_t window, int64_t heads) {
  SeenRows seen;
  for (const Var& part : parts) seen.parts.push_back({part});
  for (size_t i = 0; i < batch.segments.size(); ++i) {
    const Segment &s = batch.segments[i], &k = looked_at_segments(batch)[i];
    AttentionSegment a{s.begin, s.length, 0, k.begin, k.length, s.position - k.position, s.position};
    if (LayerState* state = batch.pattern == Pattern::cross ? nullptr : batch.state(s)) {
      a.source = seen.parts[0].size();
      for (size_t p = 0; p < seen.parts.size(); ++p)
        seen.parts[p].push_back(state->append(field + p, rows(seen.parts[p][0], s.begin, s.length), window, heads));
      a.key_begin = 0;
      a.keys = seen.parts[0].back().rows();
      a.offset = a.keys - s.length;
    }
    seen.segments.push_back(a);
  }
  return seen;
}

}  // namespace sennit
