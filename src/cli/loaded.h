#pragma once
#include <string>
#include <vector>

#include "cli/command.h"
#include "model/checkpoint.h"
#include "sequence/batch.h"

namespace sennit::cli {

// What every command that runs a model asks for: which one, and how exactly to compute.
struct ModelChoice {
  std::string checkpoint, tokenizer, weights, adapter, prefill, precision = "bf16", cache = "f32";
  bool exact = false;

  void add(CLI::App& app);
  static CLI::Option* add_weights(CLI::App& app, std::string& weights);
  static CLI::Option* add_cache(CLI::App& app, std::string& cache);
  Context context() const;
  LoadedModel load() const;                 // with or without a tokenizer
  LoadedModel load_with_tokenizer() const;  // throws Error when it has none
};

}  // namespace sennit::cli
