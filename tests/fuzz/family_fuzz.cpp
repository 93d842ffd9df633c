#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "families/family.h"
#include "io/json_file.h"
#include "model/stored_model.h"

namespace {

using namespace sennit;

// Whether every number in the file is small, so that the model it means is too.
bool small(const Json& value) {
  if (value.is_number()) return std::abs(value.get<double>()) <= 64;
  return !value.is_structured() || std::all_of(value.begin(), value.end(), small);
}

// A model that a family makes of a config.json has a rule for each parameter, and comes back from the family's own
// config.json, where that can say it.
void check(const Family& family, const Json& file, const std::string& target) {
  Config config(file, "fuzz");
  config.text("model_type", "");
  const Json model_file = write_model_spec(read_model_spec(family.from_config(config), "fuzz"));
  if (!small(model_file) || model_file.at("blocks").size() > 4) return;
  const auto shapes = parameter_shapes(model_file, "fuzz");
  const Described d = families::describe(model_file, shapes);
  std::set<std::string> named;
  for (const TensorRule& rule : family.rules(d, Layout::huggingface, target))
    for (const std::string& ours : rule.ours) SENNIT_CHECK(shapes.count(ours) && named.insert(ours).second, "{}", ours);
  SENNIT_CHECK(named.size() == shapes.size(), "{} of {}", named.size(), shapes.size());
  const Json again = family.to_config(d);
  Config second(again, "fuzz");
  SENNIT_CHECK(parameter_shapes(write_model_spec(read_model_spec(family.from_config(second), "fuzz")), "fuzz") ==
               shapes);
}

}  // namespace

// Any text is a config.json of a family's or one Error.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Json file;
  try {
    file = io::parse_json({reinterpret_cast<const char*>(data), size}, "fuzz",
                          {.max_bytes = 1 << 16, .max_values = 1000, .non_finite = true});
  } catch (const Error&) {
    return 0;
  }
  for (const auto& entry : families::registry().entries()) try {
      check(*families::registry().make(entry.name, {}, Rng(), "fuzz"), file, entry.info.model_types.front());
    } catch (const Error&) {
    }
  return 0;
}
