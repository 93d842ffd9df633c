#pragma once
#include <cstdint>
#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace sennit {

using Json = nlohmann::ordered_json;

// JSON's text, on one line or with `indent` spaces for each depth; broken UTF-8 becomes U+FFFD. These two are compiled once,
// where the library's own dump() and parse() are templates that every file would compile again.
std::string json_text(const Json& value, int indent = -1);
// The value of a text of the program's own; another's goes through io::parse_json. Throws the library's exception.
Json json_of(std::string_view text);

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
