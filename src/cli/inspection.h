#pragma once
#include <string>

#include "base/fields.h"
#include "report/table.h"

namespace sennit::cli {

// What stands at `path`, as an object whose "kind" says what it is. `stats` reads every tensor. Throws Error when it is
// missing, damaged, or nothing known.
Json inspection(const std::string& path, bool stats);

// The "tensors" of an inspection.
report::Table tensor_table(const Json& tensors);

}  // namespace sennit::cli
