#pragma once
#include <cstdint>
#include <vector>

#include "base/registry.h"

namespace sennit {

struct TaskInfo {
  std::string title, paper;
  std::string asks;  // what is shown and what is asked, in one line
};

// One sequence of a task: targets[t] is the token asked for after tokens[t], data::kIgnored where nothing is asked.
struct TaskSequence {
  std::vector<int32_t> tokens, targets;
};

// A problem made by a generator, so that it tests one ability and never runs out. Its metric is accuracy: the share of
// targets that the largest logit names.
class Task {
 public:
  using Info = TaskInfo;
  struct Dims {};
  virtual ~Task() = default;
  virtual int64_t vocab() const = 0;
  virtual int64_t length() const = 0;  // tokens of every sequence
  // A function of the options and the generator alone.
  virtual TaskSequence sequence(Rng rng) const = 0;
};

namespace tasks {
Registry<Task>& registry();
}

}  // namespace sennit
