#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"
#include "io/json_file.h"

// Any bytes are one JSON value or one Error; what is one agrees with another parser and survives being written.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sennit;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const bool comparable = text.find('\0') == text.npos;  // the other parser stops at a zero byte
  const io::JsonLimits limits{.max_bytes = 1 << 20, .max_values = 10000};
  try {
    const Json value = io::parse_json(text, "fuzz", limits);
    SENNIT_CHECK(!comparable || Json::parse(text) == value);
    SENNIT_CHECK(io::parse_json(json_text(value), "again", limits) == value);
  } catch (const Error& e) {
    const std::string_view why = e.what();
    const bool ours = why.find("each key once") != why.npos || why.find("at most") != why.npos;
    SENNIT_CHECK(ours || !comparable || !Json::accept(text), "{}", why);
  }
  try {
    io::parse_json(text, "fuzz", {.max_bytes = 1 << 20, .max_values = 10000, .non_finite = true});
  } catch (const Error&) {
  }
  return 0;
}
