#pragma once
#include <memory>
#include <string>

#include "model/checkpoint.h"
#include "optimizers/optimizer.h"
#include "train/options.h"

namespace sennit::train {

// A training run on disk:
//   run.json                     the options, the model file and the data, fixed at the start
//   metrics.sqlite, events.*     what was measured
//   checkpoints/step-000000500/  a checkpoint (see model/checkpoint.h) with training.safetensors: the optimizer's state
class RunFolder {
 public:
  explicit RunFolder(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  bool begun() const;  // run.json is there
  Json read_settings() const;
  void write_settings(const Json& settings) const;

  // The newest checkpoint's step, 0 when there is none.
  int64_t last_step() const;
  std::string checkpoint(int64_t step) const;

  struct Parts {
    Model& model;
    Optimizer& optimizer;
    std::span<const NamedParameter> parameters;
    const tokenizers::Tokenizer& tokenizer;
    std::vector<SequenceState>* streams;  // carried states; nullptr when none are
  };
  // Writes step-N whole or not at all, then removes the oldest beyond `keep`.
  void save(int64_t step, const Parts& parts, int64_t keep) const;
  void load(int64_t step, const Parts& parts) const;

 private:
  std::string path_;
};

}  // namespace sennit::train
