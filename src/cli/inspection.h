#pragma once
#include <string>

#include "base/fields.h"
#include "report/table.h"
#include "sequence/cache.h"

namespace sennit::cli {

// What stands at `path`, as an object whose "kind" says what it is. `stats` reads every tensor. Throws Error when it is
// missing, damaged, or nothing known. Bytes of states are those with keys and values in `cache`.
Json inspection(const std::string& path, bool stats, CacheFormat cache = CacheFormat::f32);

// The "tensors" of an inspection.
report::Table tensor_table(const Json& tensors);

}  // namespace sennit::cli
