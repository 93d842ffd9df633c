#pragma once
#include <string>
#include <vector>

#include "measure/trial.h"
#include "report/table.h"

namespace sennit::cli {

// The trials' table, best accuracy first.
report::Table trial_table(const std::vector<measure::TrialResult>& trials);
// A page with the table, accuracy against steps, and accuracy against the state that a sequence leaves in memory.
std::string trial_html(const std::vector<measure::TrialResult>& trials, const measure::TrialOptions& options);

}  // namespace sennit::cli
