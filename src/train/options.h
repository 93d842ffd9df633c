#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "base/fields.h"

namespace sennit::train {

// Everything that decides what a run computes, apart from the model file and the data.
struct Options {
  int64_t steps = 0;    // 0: as many as fit into `minutes`
  double minutes = 0;   // measured once at the start and turned into steps; 0: `steps` decides
  int64_t rows = 4;     // sequences a micro-batch
  int64_t length = 512;  // tokens a sequence
  int64_t accumulate = 1;  // micro-batches a step
  std::string optimizer = "adamw";
  double rate = 3e-3, min_rate = 0.1;  // the peak, and the end as a share of it
  int64_t warmup = 100;
  double weight_decay = 0.1, clip = 1;
  std::string precision = "bf16";
  bool checkpointed = false;  // recompute the inside of blocks in backward
  bool carry = false;         // stream the data and carry states from step to step (truncated backpropagation)
  int64_t seed = 1;
  int64_t eval_every = 200, eval_tokens = 32768;
  int64_t save_every = 500, keep = 2;

  Fields fields();
};

// The rate at a step (from 1): linear warm-up, then half a cosine down to min_rate * rate at the last step.
double rate_at(const Options& options, int64_t step);

}  // namespace sennit::train
