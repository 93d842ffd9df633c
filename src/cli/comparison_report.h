#pragma once
#include <string>
#include <vector>

#include "measure/comparison.h"
#include "report/html.h"

namespace sennit::cli {

using Facts = std::vector<measure::RunFacts>;

report::Table comparison_table(const Facts& facts);  // one row a run, the best of each column strong
report::Plot loss_plot(const Facts& facts, bool by_seconds);
std::string comparison_html(const Facts& facts, const measure::CompareOptions& options);
std::string machine_text();  // "AMD EPYC ..., avx512, 2 threads"

}  // namespace sennit::cli
