#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/fields.h"

namespace sennit::tokenizers::jinja {

class Value;
struct Statement;

struct Undefined {
  std::string name;  // of what is not there
};
struct None {};
using List = std::shared_ptr<std::vector<Value>>;
// Members keep their order. Shared, as in Python: what one name changes, another sees.
struct DictData {
  std::vector<std::pair<std::string, Value>> members;
  bool is_namespace = false;  // `set` may change its members
};
using Dict = std::shared_ptr<DictData>;
// Something that can be called: a macro of the template, or a function by name.
struct Callable {
  const Statement* macro = nullptr;
  std::string function = {};
};

// A value of a template, as Python has them. Keys of dictionaries are texts.
class Value {
 public:
  using Data = std::variant<Undefined, None, bool, int64_t, double, std::string, List, Dict, Callable>;

  Value() = default;
  Value(Data data) : data_(std::move(data)) {}
  Value(bool b) : data_(b) {}
  Value(int64_t i) : data_(i) {}
  Value(std::string s) : data_(std::move(s)) {}
  Value(const char* s) : data_(std::string(s)) {}
  static Value list(std::vector<Value> items = {}) {
    return Data(std::make_shared<std::vector<Value>>(std::move(items)));
  }
  static Value dict() { return Data(std::make_shared<DictData>()); }
  static Value of_json(const Json& json);

  template <class T>
  bool is() const {
    return std::holds_alternative<T>(data_);
  }
  template <class T>
  const T& as() const {
    return std::get<T>(data_);
  }
  bool is_number() const { return is<int64_t>() || is<double>() || is<bool>(); }
  double number() const;  // of a number
  bool truthy() const;
  const char* type() const;  // "text", "list", ...

  // A member of a dictionary; nullptr when it has none.
  const Value* find(const std::string& key) const;
  void set(const std::string& key, Value value) const;

 private:
  Data data_;
};

// Lists that share parts can be small and yet take for ever to walk through: every visit to a value counts, up to a
// bound since the last reset on this thread. Throws Error beyond it, and for values that are too deep.
void reset_visits();
void count_visit(int depth);

bool equal(const Value& a, const Value& b, int depth = 0);
// As Python's str() and repr() write it; an undefined value is "".
std::string to_text(const Value& v);
std::string to_repr(const Value& v, int depth = 0);
// As json.dumps(v, ensure_ascii=False) writes it; with `indent` >= 0, on lines.
std::string to_json(const Value& v, int64_t indent = -1, int depth = 0);

}  // namespace sennit::tokenizers::jinja
