#pragma once
#include <cstdint>
#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <variant>
#include <vector>

namespace sennit {

using Json = nlohmann::ordered_json;

// One setting of something, declared once: reading, writing, documentation and checks come from it.
struct Field {
  struct Limits {
    double min = -std::numeric_limits<double>::infinity();
    double max = std::numeric_limits<double>::infinity();
    std::vector<std::string> choices = {};
  };
  std::string name;
  std::variant<bool*, int64_t*, double*, std::string*, Json*> value;  // Json*: a part, by name or as an object
  std::string help;
  Limits limits = {};
};

// A struct of options offers `Fields fields()`, which lists its members.
using Fields = std::vector<Field>;

// Sets `field` from a JSON value; throws Error naming `who` and `where` on a wrong type or a value out of limits.
void read_field(const Field& field, const Json& value, const std::string& who, const std::string& where);

// Reads every key of `object` into the fields; an unknown key is an Error with a suggestion.
void read_fields(const Fields& fields, const Json& object, const std::string& who, const std::string& where);

Json write_fields(const Fields& fields);
std::string field_type(const Field& field);      // "integer", "number", "flag", "text", "part"
std::string field_default(const Field& field);   // the present value as text
[[noreturn]] void unknown_key(const std::string& key, const std::vector<std::string>& known, const std::string& who,
                              const std::string& where);

}  // namespace sennit
