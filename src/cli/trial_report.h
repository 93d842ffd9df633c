#pragma once
#include <string>
#include <vector>

#include "cli/trial_jobs.h"
#include "report/table.h"

namespace sennit::cli {

// The trials' table, best accuracy first; those that failed have a row of dashes at the end.
report::Table trial_table(const std::vector<measure::TrialResult>& trials);
// A page with the table, accuracy against steps, and accuracy against the state that a sequence leaves in memory.
std::string trial_html(const std::vector<measure::TrialResult>& trials, const measure::TrialOptions& options,
                       const TrialJobs& jobs, const std::vector<std::string>& notes);

}  // namespace sennit::cli
