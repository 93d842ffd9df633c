#pragma once
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/trial_jobs.h"

namespace sennit::cli {

// `sennit compare --mixers`: a small model of every mixer, trained on a generated task.
struct MixerTrials {
  struct Output {
    std::string precision, markdown, html;
    bool json, quiet;
  };
  std::vector<std::string> mixers, settings;
  std::string task = "recall", first = "gam: convolution alone";
  bool defaults = false;
  measure::TrialOptions options;
  TrialJobs jobs;

  void add_flags(CLI::App& app);
  int run(const Output& to);  // the exit code
};

}  // namespace sennit::cli
