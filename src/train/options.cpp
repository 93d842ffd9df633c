#include "train/options.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace sennit::train {

Fields Options::fields() {
  constexpr double kMany = 1e12;
  return {{"steps", &steps, "optimizer steps; 0: as many as fit into --minutes", {.min = 0, .max = kMany}},
          {"minutes", &minutes, "time to fill; the first steps are measured and the number of steps is then fixed", {.min = 0, .max = 1e6}},
          {"rows", &rows, "sequences in a micro-batch", {.min = 1, .max = 1 << 20}},
          {"length", &length, "tokens in a sequence", {.min = 1, .max = 1 << 24}},
          {"accumulate", &accumulate, "micro-batches in a step", {.min = 1, .max = 1 << 20}},
          {"optimizer", &optimizer, "how gradients change parameters"},
          {"rate", &rate, "peak learning rate", {.min = 0, .max = 100}},
          {"min_rate", &min_rate, "learning rate at the end, as a share of the peak", {.min = 0, .max = 1}},
          {"warmup", &warmup, "steps of linear warm-up", {.min = 0, .max = kMany}},
          {"weight_decay", &weight_decay, "of matrices", {.min = 0, .max = 10}},
          {"clip", &clip, "largest norm of the whole gradient; 0: any", {.min = 0, .max = kMany}},
          {"precision", &precision, "of the factors of matrix products", {.choices = {"f32", "bf16"}}},
          {"checkpointed", &checkpointed, "keep only the inputs of blocks and compute their inside again: less memory, a third more time"},
          {"carry", &carry, "read the data as streams and carry states from step to step (truncated backpropagation through time)"},
          {"seed", &seed, "of initial weights and data order", {.min = 0, .max = 9e15}},
          {"eval_every", &eval_every, "steps between evaluations; 0: only at the end", {.min = 0, .max = kMany}},
          {"eval_tokens", &eval_tokens, "tokens of each evaluation; 0: all", {.min = 0, .max = kMany}},
          {"save_every", &save_every, "steps between checkpoints; 0: only at the end", {.min = 0, .max = kMany}},
          {"keep", &keep, "checkpoints to keep", {.min = 1, .max = 1e6}}};
}

double rate_at(const Options& o, int64_t step) {
  const double at = static_cast<double>(step), warm = static_cast<double>(std::min(o.warmup, o.steps));
  if (at <= warm && warm > 0) return o.rate * at / warm;
  const double total = static_cast<double>(o.steps);
  const double done = total > warm ? std::min(1.0, (at - warm) / (total - warm)) : 1;
  return o.rate * (o.min_rate + (1 - o.min_rate) * 0.5 * (1 + std::cos(std::numbers::pi * done)));
}

}  // namespace sennit::train
