#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "data/packer.h"
#include "train/evaluate.h"
#include "train/run_folder.h"

namespace sennit::train {

struct StepReport {
  int64_t step, steps;
  double loss, rate, gradient_norm;
  double seconds;          // of this step
  double tokens_per_second;  // over the last steps
  int64_t tokens;          // of the run so far
};

// What a run tells whoever watches it; every function may be empty.
struct Watcher {
  std::function<void(const StepReport&)> step;
  std::function<void(int64_t step, const Evaluation&)> evaluation;
  std::function<void(int64_t step, const std::string& folder)> saved;
  std::function<void(const std::string& text)> note;
};

struct RunSettings {
  Json model;               // a model file
  std::string model_path;   // where it came from, for errors
  std::string data;         // a folder of token files
  std::string out;          // the run's folder
  Options options;
};

struct RunResult {
  int64_t step = 0;
  bool finished = false;  // false: stopped by request, saved and ready to go on
  double loss = 0;        // the last step's
  Evaluation evaluation;  // the last one
};

// Trains, or goes on where the run in `out` stopped (its model, data and options must be the same, intervals of
// evaluation and saving aside). When `stop` turns true the run is saved after the step in progress. Killed at any moment
// and started again, a run ends with the same weights to the bit as one that was not. Throws Error on bad settings or
// data, and when the loss is not finite: the last checkpoint stays.
RunResult run(const RunSettings& settings, const Watcher& watcher, const std::atomic<bool>& stop);

}  // namespace sennit::train
