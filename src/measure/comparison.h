#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "measure/cost.h"

// Training runs and checkpoints side by side: what they reached and what they cost.
namespace sennit::measure {

using Curve = std::vector<std::pair<double, double>>;

struct RunFacts {
  std::string name, path, checkpoint;
  Json model;  // its model file
  int64_t parameters = 0;
  // Of the training, when `path` is a run; zero or empty otherwise.
  int64_t steps = 0, tokens = 0;
  double seconds = 0, train_rate = 0;  // of the steps alone; tokens a second
  double valid_loss = 0, bits_per_byte = 0;
  Curve train_by_tokens, train_by_seconds, valid_by_tokens,
      valid_by_seconds;  // loss in nats a token, training smoothed
  // Measured here.
  InferenceCost inference;
  std::optional<TrainingCost> training;
  std::vector<std::pair<int64_t, int64_t>> state_bytes;  // (tokens, bytes of one sequence)

  // The measurement at a length, nullptr when there is none.
  const PrefillCost* prefill_at(int64_t length) const;
  const DecodeCost* decode_at(int64_t position) const;
  int64_t state_bytes_at(int64_t length) const;
};

struct CompareOptions {
  std::vector<int64_t> lengths = {256, 512, 1024, 2048, 4096, 8192, 16384};
  Context context;
  bool measure = true;             // false: only what the runs themselves wrote down
  int64_t rows = 4, length = 512;  // of the training step
};

// Throws Error when `path` is neither a run nor a checkpoint.
RunFacts facts_of(const std::string& path, const CompareOptions& options, const Watch& watch = {});

Json to_json(const RunFacts& facts);

}  // namespace sennit::measure
