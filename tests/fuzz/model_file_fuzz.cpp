#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"
#include "io/json_file.h"
#include "model/model.h"

namespace {

// Whether every number in the file is small, so that the model it means is too.
bool small(const sennit::Json& value) {
  if (value.is_number()) return std::abs(value.get<double>()) <= 64;
  return !value.is_structured() || std::all_of(value.begin(), value.end(), small);
}

}  // namespace

// Any text is a model file or one Error; what is one is written as it is read, and a small one can be built and run.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sennit;
  try {
    const Json file =
        io::parse_json({reinterpret_cast<const char*>(data), size}, "fuzz", {.max_bytes = 1 << 16, .max_values = 1000});
    const ModelSpec spec = read_model_spec(file, "fuzz");
    const Json written = write_model_spec(spec);
    SENNIT_CHECK(write_model_spec(read_model_spec(written, "fuzz")) == written);
    if (!small(file) || spec.blocks.size() > 4) return 0;
    Model model(spec, Rng(1), "fuzz");
    NoGrad off;
    const Context context;
    const int32_t tokens[] = {0, 0, 0};
    const Segment segment[] = {{0, 3, 0, nullptr}};
    SENNIT_CHECK(model.hidden(tokens, {segment, &context}).rows() == 3);
  } catch (const Error&) {
  }
  return 0;
}
