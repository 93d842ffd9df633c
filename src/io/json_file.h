#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "base/fields.h"

namespace sennit::io {

// What a JSON text may cost.
struct JsonLimits {
  int64_t max_bytes = int64_t{256} << 20;
  int64_t max_values = int64_t{16} << 20;  // objects, lists, numbers, texts: each takes some tens of bytes
  int max_depth = 64;
  bool non_finite = false;  // take NaN, Infinity and -Infinity, which Python writes, for numbers
};

// Reads one JSON value (RFC 8259) of UTF-8 text, with a byte-order mark allowed. Repeated keys of an object, broken
// UTF-8, lone surrogates and numbers beyond double are errors. Members keep their order, and reading takes time
// n log n in their number. Throws Error with `where`, line and column.
Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits = {});
Json read_json_file(const std::string& path, const JsonLimits& limits = {});

// Adds a member without looking for its key among those that are there, so that n of them take time n.
void append_member(Json& object, std::string key, Json value);

// Writes atomically, indented by two spaces; numbers that are not finite become null.
void write_json_file(const std::string& path, const Json& value);

}  // namespace sennit::io
