#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/fields.h"

namespace sennit::tokenizers {

// One object of a tokenizer.json: reads its members and says where it stands when they are not what they should be.
// Members that nobody asks for are let be, since files carry more than a tokenizer needs. Keeps a reference to `value`.
class JsonPart {
 public:
  // Throws Error unless `value` is an object. `where` reads as "tokenizer.json: model".
  JsonPart(const Json& value, std::string where);

  bool has(const char* key) const;  // present, and not null
  std::string text(const char* key) const;
  std::string text(const char* key, const std::string& otherwise) const;
  bool flag(const char* key, bool otherwise) const;
  int64_t integer(const char* key, int64_t otherwise, int64_t min, int64_t max) const;
  const Json& member(const char* key) const;  // throws Error when it is missing
  JsonPart part(const char* key) const;
  std::vector<JsonPart> list(const char* key) const;

  const Json& value() const { return value_; }
  const std::string& where() const { return where_; }
  std::string where(const char* key) const { return where_ + "." + key; }
  [[noreturn]] void refuse(const char* key, const std::string& expected, const std::string& found) const;
  // For a "type" that is not among `known`.
  [[noreturn]] void refuse_type(const std::vector<std::string>& known) const;

 private:
  const Json& value_;
  std::string where_;
};

}  // namespace sennit::tokenizers
