#include <algorithm>

#include "mixers/mixer.h"

namespace sennit {

bool Mixer::rewinds() const {
  const StateSpec spec = state_spec();
  return std::all_of(spec.begin(), spec.end(), [](const StateField& f) { return f.growth == Growth::per_token; });
}

namespace mixers {

void check_batch(const MixerInfo& info, const char* name, const Batch& batch) {
  if (std::find(info.patterns.begin(), info.patterns.end(), batch.pattern) == info.patterns.end()) {
    std::string known;
    for (const Pattern p : info.patterns) known += (known.empty() ? "" : " or ") + std::string(to_string(p));
    fail({name, fmt::format("a {} batch: the patterns of this mixer", known), to_string(batch.pattern)});
  }
  const bool two_ways = batch.pattern == Pattern::bidirectional;
  if (batch.pattern == Pattern::cross || (!two_ways && info.no_state.empty())) return;
  for (const Segment& s : batch.segments)
    if (s.state)
      fail({name, fmt::format("whole sequences: {}", two_ways ? "every token sees those after it" : info.no_state),
            "a sequence that goes on from a state"});
}

Field columns_field(int64_t* columns) {
  return {"columns",
          columns,
          "columns of the grid that tokens lie in, row after row; 0: they are a line",
          {.min = 0, .max = 65536}};
}

void check_grid(const char* name, int64_t columns, const Batch& batch) {
  if (!batch.places.empty()) fail({name, "tokens that fill their grid", "tokens with places of their own"});
  if (batch.pattern != Pattern::bidirectional) return;
  for (const Segment& s : batch.segments)
    if (s.length % columns != 0)
      fail({name, fmt::format("sequences of whole rows of columns = {} tokens", columns),
            fmt::format("{} tokens", s.length)});
}

void check_places(const char* name, int64_t columns, const Batch& batch) {
  if (batch.places.empty()) return check_grid(name, columns, batch);
  if (std::ssize(batch.places) != batch.rows())
    fail({name, fmt::format("a place for each of {} tokens", batch.rows()), fmt::format("{}", batch.places.size())});
  for (const Place& p : batch.places)
    if (p.row < 0 || p.column < 0)
      fail({name, "places of rows and columns from 0 on", fmt::format("({}, {})", p.row, p.column)});
}

}  // namespace mixers
}  // namespace sennit
