#pragma once
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "measure/trial.h"

namespace sennit::cli {

using NamedMixer = std::pair<std::string, Json>;

// Trials in processes of their own, several at once. Threads and company change no result but its times, and a trial
// that cannot be trained takes no other along.
struct TrialJobs {
  int64_t at_once = 1;
  int64_t threads = 0;  // of each; 0: an equal share of all
  std::string keep;     // a folder that gets each result when it is there; empty: none

  int threads_each() const;
};

// In the order of `mixers`. Results that `keep` has from the same options are taken from there. After an interrupt only
// those that ended; `progress` hears the steps done of all, and who is at work. Throws Error when no trial could be
// trained, with the reason of the first.
std::vector<measure::TrialResult> run_trials(const std::vector<NamedMixer>& mixers,
                                             const measure::TrialOptions& options, const TrialJobs& jobs,
                                             const std::function<void(double steps, const std::string& who)>& progress);

}  // namespace sennit::cli
