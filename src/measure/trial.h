#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "measure/comparison.h"
#include "tasks/task.h"

// A small model trained on a generated task for a fixed budget: what a mixer can learn, and at what cost.
namespace sennit::measure {

struct TrialOptions {
  Json task = "recall";               // a name, or an object with "name" and options
  int64_t d_model = 192, blocks = 2;  // with swiglu: about a million parameters
  // The mixer of the first block, of two or more, where the one that is tried has no short convolution of its own;
  // null: the one that is tried. So all show what they remember, rather than how soon they learn to look one token
  // back.
  Json first = {{"name", "gam"}, {"slots", 0}, {"conv", 4}};
  int64_t steps = 300, rows = 64;
  double rate = 3e-3;
  int64_t asked = 512;  // sequences to measure accuracy on at the end, none of them seen in training
  int64_t seed = 1;
  Precision precision = Precision::bf16;
};

struct TrialResult {
  std::string name;    // of the mixer
  std::string failed;  // why it could not be trained; nothing below means anything then
  Json model;
  int64_t parameters = 0;
  double accuracy = 0, loss = 0;                 // of the sequences kept apart, at the end
  Curve accuracy_by_steps;                       // ten points
  double seconds = 0, tokens_per_second = 0;     // of the training steps
  int64_t peak_bytes = 0;                        // of tensors in training
  int64_t state_bytes = 0, state_bytes_64k = 0;  // of one sequence of the task's length, and of 65536 tokens
};

// `mixer` is a name or an object with "name" and options. Watch is asked before every step; nullopt when it ends the
// trial. Throws Error for bad options and when the loss is not finite.
std::optional<TrialResult> trial(const std::string& name, const Json& mixer, const TrialOptions& options,
                                 const Watch& watch = {});

Json to_json(const TrialResult& result);
TrialResult trial_from_json(const Json& json);  // throws Error where to_json did not write it
Json to_json(const TrialOptions& options);

}  // namespace sennit::measure
