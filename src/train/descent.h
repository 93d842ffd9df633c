#pragma once
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "optimizers/optimizer.h"
#include "train/options.h"

namespace sennit::train {

// The steps of a small training in memory: an optimizer, the schedule of its rate, and gradients that are cut to a
// length. Runs that are saved and go on are trainer.h's.
class Descent {
 public:
  // `optimizer` as a model file names parts; of the options: steps, rate, min_rate, warmup and clip.
  Descent(std::vector<NamedParameter> parameters, const Options& options, const Json& optimizer = "adamw");

  // Adds the gradients of the loss and of the auxiliary ones beside it to what the parameters have, makes step `at`,
  // counted from 1, and leaves no gradients.
  void step(const Var& loss, std::span<const Var> auxiliary, int64_t at);
  std::span<const NamedParameter> parameters() const { return parameters_; }

 private:
  std::vector<NamedParameter> parameters_;
  Options options_;
  std::unique_ptr<Optimizer> optimizer_;
};

}  // namespace sennit::train
