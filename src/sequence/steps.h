#pragma once
#include <algorithm>

#include "sequence/batch.h"
#include "tensor/pooled.h"

namespace sennit {

// The tokens of a batch by their place in their sequences: step t holds token t of every sequence that has one.
// Sequences go from the longest to the shortest, so that those of a step are the first ones.
class Steps {
 public:
  explicit Steps(std::span<const Segment> segments) {
    sequences_.reserve(segments.size());
    for (int64_t i = 0; i < std::ssize(segments); ++i)
      if (segments[i].length > 0) sequences_.push_back(i);
    std::sort(sequences_.begin(), sequences_.end(), [&](int64_t a, int64_t b) {
      return segments[a].length != segments[b].length ? segments[a].length > segments[b].length : a < b;
    });
    first_.reserve(static_cast<size_t>(1 + (sequences_.empty() ? 0 : segments[segment(0)].length)));
    first_.push_back(0);
    for (int64_t t = 0, here = sequences(); here > 0; ++t) {
      while (here > 0 && segments[segment(here - 1)].length <= t) --here;
      if (here > 0) first_.push_back(first_.back() + here);
    }
  }
  int64_t sequences() const { return std::ssize(sequences_); }
  int64_t segment(int64_t sequence) const { return sequences_[static_cast<size_t>(sequence)]; }
  int64_t count() const { return std::ssize(first_) - 1; }
  int64_t tokens() const { return first_.back(); }
  int64_t first(int64_t t) const { return first_[static_cast<size_t>(t)]; }  // how many tokens came before step t
  int64_t width(int64_t t) const { return first(t + 1) - first(t); }         // sequences that have a token t

 private:
  Pooled<int64_t> sequences_, first_;
};

}  // namespace sennit
