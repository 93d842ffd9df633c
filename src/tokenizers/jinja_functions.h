#pragma once
#include <string>
#include <utility>
#include <vector>

#include "tokenizers/jinja_value.h"

// Filters, tests and methods of templates, as Jinja2 and Python have them.
namespace sennit::tokenizers::jinja {

// Something that a template may not do, at a place that the evaluator knows.
struct Complaint {
  std::string expected, found;
};

// What a run of a template may cost: bytes that it makes and steps that it takes, together.
class Budget {
 public:
  static constexpr int64_t kMost = int64_t{64} << 20;
  void spend(size_t cost);  // throws Complaint when all is spent

 private:
  int64_t left_ = kMost;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument of that place or name; nullptr without one.
  const Value* get(size_t place, const std::string& name) const;
  std::string text(size_t place, const std::string& name, const std::string& otherwise) const;
  int64_t integer(size_t place, const std::string& name, int64_t otherwise) const;
};

Value apply_filter(const std::string& name, const Value& v, const Arguments& a, Budget& budget);
bool apply_test(const std::string& name, const Value& v, const Arguments& a);
// Throws Complaint when values of this kind have no such method.
Value call_method(const Value& of, const std::string& name, const Arguments& a, Budget& budget);

// Complains when `v` holds the list or dictionary at `holder`, into which it is to be put.
void check_apart(const Value& v, const void* holder, int depth = 0);

// The member of a dictionary or item of a list or text; an undefined value when there is none.
Value item_of(const Value& of, const Value& key);
// of[from:to:step], where bounds may be absent.
Value slice_of(const Value& of, const Value* from, const Value* to, const Value* step, Budget& budget);
// What a loop over it would visit: items, keys, or characters.
std::vector<Value> items_of(const Value& v, Budget& budget);
int64_t length_of(const Value& v);
bool contains(const Value& in, const Value& v);
bool less(const Value& a, const Value& b);

}  // namespace sennit::tokenizers::jinja
