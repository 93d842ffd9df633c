#include "tokenizers/jinja_evaluator.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <unordered_map>

#include "base/error.h"
#include "tokenizers/jinja_functions.h"
#include "tokenizers/jinja_lexer.h"

namespace sennit::tokenizers::jinja {
namespace {

using Names = std::unordered_map<std::string, Value>;

Value arithmetic(const std::string& op, const Value& a, const Value& b) {
  if (!a.is_number() || !b.is_number())
    throw Complaint{fmt::format("numbers, or two texts or lists to add, for `{}`", op),
                    fmt::format("{} and {}", a.type(), b.type())};
  const double x = a.number(), y = b.number();
  if ((op == "/" || op == "//" || op == "%") && y == 0) throw Complaint{"a divisor", "0"};
  const bool whole = !a.is<double>() && !b.is<double>() && op != "/";
  if (!whole) {
    const double floor = std::floor(x / y);
    return Value::Data(op == "+"    ? x + y
                       : op == "-"  ? x - y
                       : op == "*"  ? x * y
                       : op == "/"  ? x / y
                       : op == "//" ? floor
                       : op == "%"  ? x - floor * y
                                    : std::pow(x, y));
  }
  const auto i = static_cast<int64_t>(a.is<bool>() ? a.as<bool>() : a.as<int64_t>());
  const auto j = static_cast<int64_t>(b.is<bool>() ? b.as<bool>() : b.as<int64_t>());
  int64_t out = 0;
  bool over = false;
  if (op == "+") over = __builtin_add_overflow(i, j, &out);
  if (op == "-") over = __builtin_sub_overflow(i, j, &out);
  if (op == "*") over = __builtin_mul_overflow(i, j, &out);
  if (op == "//" || op == "%") {
    over = i == INT64_MIN && j == -1;
    if (!over) out = op == "%" ? ((i % j) + j) % j : i / j - (i % j != 0 && (i < 0) != (j < 0));
  }
  if (op == "**") {
    const double power = std::pow(x, y);
    if (j < 0) return Value::Data(power);
    over = std::abs(power) > 9e15;
    out = over ? 0 : static_cast<int64_t>(power);
  }
  if (over) throw Complaint{"an integer of 64 bits", fmt::format("{} {} {}", i, op, j)};
  return out;
}

class Evaluator {
 public:
  Evaluator(std::string_view source, std::tm now) : source_(source), now_(now) {}

  std::string run(const std::vector<Statement>& statements, const Value& context) {
    reset_visits();
    scopes_.emplace_back();
    for (const char* name : {"range", "namespace", "raise_exception", "strftime_now", "dict"})
      scopes_[0][name] = Value::Data(Callable{nullptr, name});
    for (const auto& [name, value] : context.as<Dict>()->members) scopes_[0][name] = value;
    scopes_.emplace_back();
    execute(statements);
    return std::move(out_);
  }

 private:
  enum class Flow { on, leave_loop, next_turn };

  // Calls f; what it complains of happened at byte `at`.
  template <class F>
  auto placed(size_t at, F&& f) -> decltype(f()) {
    try {
      return f();
    } catch (const Complaint& c) {
      refuse(source_, at, c.expected, c.found);
    }
  }

  // --- Statements -------------------------------------------------------------------------------------------------

  Flow execute(const std::vector<Statement>& statements) {
    for (const Statement& s : statements)
      if (const Flow flow = execute(s); flow != Flow::on) return flow;
    return Flow::on;
  }

  Flow execute(const Statement& s) {
    placed(s.at, [&] { budget_.spend(1); });
    switch (s.kind) {
      case Statement::text:
        print(s.at, s.text_value);
        return Flow::on;
      case Statement::print:
        print(s.at, to_text(value(*s.expression)));
        return Flow::on;
      case Statement::branch:
        return execute(value(*s.expression).truthy() ? s.body : s.otherwise);
      case Statement::loop:
        return loop(s);
      case Statement::assign:
        assign(s);
        return Flow::on;
      case Statement::capture:
        scopes_.back()[s.targets[0]] = Value(captured([&] { execute(s.body); }));
        return Flow::on;
      case Statement::macro:
        scopes_.back()[s.text_value] = Value::Data(Callable{&s, s.text_value});
        return Flow::on;
      case Statement::body_only:
        return execute(s.body);
      case Statement::leave_loop:
        return Flow::leave_loop;
      case Statement::next_turn:
        return Flow::next_turn;
    }
    return Flow::on;
  }

  void print(size_t at, const std::string& text) {
    placed(at, [&] { budget_.spend(text.size()); });
    out_ += text;
  }

  template <class F>
  std::string captured(F&& f) {
    std::string outer = std::exchange(out_, "");
    f();
    return std::exchange(out_, std::move(outer));
  }

  void set_targets(const std::vector<std::string>& targets, size_t at, const Value& v) {
    if (targets.size() == 1) {
      scopes_.back()[targets[0]] = v;
      return;
    }
    const std::vector<Value> parts = placed(at, [&] { return items_of(v, budget_); });
    if (parts.size() != targets.size())
      refuse(source_, at, fmt::format("{} values", targets.size()), fmt::format("{}", parts.size()));
    for (size_t i = 0; i < parts.size(); ++i) scopes_.back()[targets[i]] = parts[i];
  }

  void assign(const Statement& s) {
    const Value v = value(*s.expression);
    if (!s.target) return set_targets(s.targets, s.at, v);
    const Value holder = value(*s.target->parts[0]);
    if (!holder.is<Dict>() || !holder.as<Dict>()->is_namespace)
      refuse(source_, s.at, "a namespace whose member is set", holder.type());
    placed(s.at, [&] { check_apart(v, holder.as<Dict>().get()); });
    holder.set(s.target->name, v);
  }

  Flow loop(const Statement& s) {
    std::vector<Value> items = placed(s.at, [&] { return items_of(value(*s.expression), budget_); });
    scopes_.emplace_back();
    if (s.filter)
      std::erase_if(items, [&](const Value& item) {
        set_targets(s.targets, s.at, item);
        return !value(*s.filter).truthy();
      });
    const auto n = static_cast<int64_t>(items.size());
    Flow flow = Flow::on;
    for (int64_t i = 0; i < n && flow != Flow::leave_loop; ++i) {
      placed(s.at, [&] { budget_.spend(100); });
      scopes_.back().clear();
      set_targets(s.targets, s.at, items[i]);
      scopes_.back()["loop"] = loop_value(items, i);
      flow = execute(s.body);
    }
    scopes_.pop_back();
    return n == 0 ? execute(s.otherwise) : Flow::on;
  }

  static Value loop_value(const std::vector<Value>& items, int64_t i) {
    const auto n = static_cast<int64_t>(items.size());
    Value loop = Value::dict();
    auto& members = loop.as<Dict>()->members;
    members = {{"index", Value(i + 1)},        {"index0", Value(i)}, {"first", Value(i == 0)},
               {"last", Value(i + 1 == n)},    {"length", Value(n)}, {"revindex", Value(n - i)},
               {"revindex0", Value(n - i - 1)}};
    if (i > 0) members.emplace_back("previtem", items[i - 1]);
    if (i + 1 < n) members.emplace_back("nextitem", items[i + 1]);
    return loop;
  }

  // --- Expressions ------------------------------------------------------------------------------------------------

  Value value(const Expression& e) {
    placed(e.at, [&] { budget_.spend(1); });
    switch (e.kind) {
      case Expression::literal:
        return e.value;
      case Expression::variable:
        return variable(e.name);
      case Expression::list: {
        std::vector<Value> items;
        for (const ExpressionPtr& p : e.parts) items.push_back(value(*p));
        return Value::list(std::move(items));
      }
      case Expression::dict:
        return dictionary(e);
      case Expression::attribute:
        return placed(e.at, [&] { return item_of(value(*e.parts[0]), Value(e.name)); });
      case Expression::item:
        return placed(e.at, [&] { return item_of(value(*e.parts[0]), value(*e.parts[1])); });
      case Expression::slice:
        return slice(e);
      case Expression::call:
        return call(e);
      case Expression::filter: {
        const Value of = value(*e.parts[0]);
        const Arguments a = arguments(e.arguments);
        return placed(e.at, [&] { return measured(apply_filter(e.name, of, a, budget_)); });
      }
      case Expression::test: {
        const Value of = value(*e.parts[0]);
        const Arguments a = arguments(e.arguments);
        return placed(e.at, [&] { return Value(apply_test(e.name, of, a)); });
      }
      case Expression::unary:
        return unary(e);
      case Expression::binary:
        return binary(e);
      case Expression::conditional:
        if (value(*e.parts[0]).truthy()) return value(*e.parts[1]);
        return e.parts.size() > 2 ? value(*e.parts[2]) : Value();
    }
    return {};
  }

  Value measured(Value v) {
    budget_.spend(v.is<std::string>() ? v.as<std::string>().size() : 1);
    return v;
  }

  Value variable(const std::string& name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
      if (const auto it = scope->find(name); it != scope->end()) return it->second;
    return Value::Data(Undefined{name});
  }

  Value dictionary(const Expression& e) {
    const Value d = Value::dict();
    for (size_t i = 0; i + 1 < e.parts.size(); i += 2) {
      const Value key = value(*e.parts[i]);
      if (!key.is<std::string>()) refuse(source_, e.parts[i]->at, "a text as a key", key.type());
      d.set(key.as<std::string>(), value(*e.parts[i + 1]));
    }
    return d;
  }

  Value slice(const Expression& e) {
    const Value of = value(*e.parts[0]);
    Value bounds[3];
    for (size_t i = 0; i < 3; ++i)
      if (e.parts[i + 1]) bounds[i] = value(*e.parts[i + 1]);
    const auto bound = [&](size_t i) { return e.parts[i + 1] ? &bounds[i] : nullptr; };
    return placed(e.at, [&] { return slice_of(of, bound(0), bound(1), bound(2), budget_); });
  }

  Value unary(const Expression& e) {
    const Value v = value(*e.parts[0]);
    if (e.name == "not") return !v.truthy();
    return placed(e.at, [&] { return arithmetic(e.name, Value(int64_t{0}), v); });
  }

  Value binary(const Expression& e) {
    const Value a = value(*e.parts[0]);
    if (e.name == "and") return a.truthy() ? value(*e.parts[1]) : a;
    if (e.name == "or") return a.truthy() ? a : value(*e.parts[1]);
    const Value b = value(*e.parts[1]);
    return placed(e.at, [&] { return measured(combine(e.name, a, b)); });
  }

  Value combine(const std::string& op, const Value& a, const Value& b) {
    if (op == "==") return equal(a, b);
    if (op == "!=") return !equal(a, b);
    if (op == "<") return less(a, b);
    if (op == ">") return less(b, a);
    if (op == "<=") return !less(b, a);
    if (op == ">=") return !less(a, b);
    if (op == "in") return contains(b, a);
    if (op == "~") return to_text(a) + to_text(b);
    if (op == "+" && a.is<std::string>() && b.is<std::string>()) return a.as<std::string>() + b.as<std::string>();
    if (op == "+" && a.is<List>() && b.is<List>()) {
      std::vector<Value> items = *a.as<List>();
      items.insert(items.end(), b.as<List>()->begin(), b.as<List>()->end());
      budget_.spend(items.size() * sizeof(Value));
      return Value::list(std::move(items));
    }
    if (op == "*" && a.is<std::string>() && b.is<int64_t>()) return repeated(a.as<std::string>(), b.as<int64_t>());
    return arithmetic(op, a, b);
  }

  Value repeated(const std::string& text, int64_t times) {
    if (times > Budget::kMost) throw Complaint{"a text of bounded length", "a longer one"};
    std::string out;
    budget_.spend(text.size() * static_cast<size_t>(std::max<int64_t>(times, 0)));
    for (; times > 0; --times) out += text;
    return out;
  }

  // --- Calls ------------------------------------------------------------------------------------------------------

  Arguments arguments(const std::vector<Argument>& list) {
    Arguments a;
    for (const Argument& arg : list) {
      if (arg.name.empty())
        a.positional.push_back(value(*arg.value));
      else
        a.named.emplace_back(arg.name, value(*arg.value));
    }
    return a;
  }

  Value call(const Expression& e) {
    const Expression& what = *e.parts[0];
    if (what.kind == Expression::attribute) {
      const Value of = value(*what.parts[0]);
      const Value* member = of.find(what.name);
      const Arguments a = arguments(e.arguments);
      if (member != nullptr && member->is<Callable>()) return call(e.at, member->as<Callable>(), a);
      if (of.is<Undefined>())
        refuse(source_, what.at, "something that is defined",
               fmt::format("`{}`, which is not", of.as<Undefined>().name));
      return placed(what.at, [&] { return measured(call_method(of, what.name, a, budget_)); });
    }
    const Value callee = value(what);
    if (!callee.is<Callable>())
      refuse(source_, e.at, "a function",
             what.kind == Expression::variable ? fmt::format("`{}`, which is {}", what.name, callee.type())
                                               : callee.type());
    return call(e.at, callee.as<Callable>(), arguments(e.arguments));
  }

  Value call(size_t at, const Callable& callee, const Arguments& a) {
    if (callee.macro != nullptr) return call_macro(at, *callee.macro, a);
    return placed(at, [&]() -> Value {
      if (callee.function == "range") return range(a);
      if (callee.function == "raise_exception")
        throw Complaint{"messages that the template takes", a.text(0, "message", "")};
      if (callee.function == "strftime_now") {
        char text[256];
        const std::string format = a.text(0, "format", "%Y-%m-%d");
        return std::string(text, std::strftime(text, sizeof(text), format.c_str(), &now_));
      }
      Value d = Value::dict();
      for (const auto& [name, v] : a.named) d.set(name, v);
      d.as<Dict>()->is_namespace = callee.function == "namespace";
      return d;
    });
  }

  Value range(const Arguments& a) {
    for (const Value& v : a.positional)
      if (!v.is<int64_t>()) throw Complaint{"integers for range", v.type()};
    const bool one = a.positional.size() == 1;
    const int64_t begin = one ? 0 : a.integer(0, "", 0), end = a.integer(one ? 0 : 1, "", 0),
                  step = a.integer(2, "", 1);
    if (step == 0) throw Complaint{"a step other than 0", "0"};
    std::vector<Value> out;
    constexpr int64_t kMost = int64_t{1} << 40;
    if (std::max({std::abs(begin), std::abs(end), std::abs(step)}) > kMost)
      throw Complaint{"bounds below 2^40", "larger ones"};
    for (int64_t i = begin; step > 0 ? i < end : i > end; i += step) {
      budget_.spend(sizeof(Value));
      out.emplace_back(i);
    }
    return Value::list(std::move(out));
  }

  // A macro sees its parameters and what stands outside all loops and macros.
  Value call_macro(size_t at, const Statement& m, const Arguments& a) {
    constexpr int kDeepest = 32;
    if (++macros_ > kDeepest) refuse(source_, at, fmt::format("at most {} macros inside each other", kDeepest), "more");
    if (a.positional.size() > m.targets.size())
      refuse(source_, at, fmt::format("at most {} arguments", m.targets.size()), "more");
    for (const auto& [name, v] : a.named)
      if (std::find(m.targets.begin(), m.targets.end(), name) == m.targets.end())
        refuse(source_, at, "an argument that the macro has", fmt::format("`{}`", name));
    std::vector<Names> outer(std::make_move_iterator(scopes_.begin() + 2), std::make_move_iterator(scopes_.end()));
    scopes_.resize(2);
    scopes_.emplace_back();
    for (size_t i = 0; i < m.targets.size(); ++i) {
      const Value* given = a.get(i, m.targets[i]);
      scopes_.back()[m.targets[i]] = given != nullptr ? *given
                                     : m.defaults[i]  ? value(*m.defaults[i])
                                                      : Value(Value::Data(Undefined{m.targets[i]}));
    }
    std::string text = captured([&] { execute(m.body); });
    scopes_.resize(2);
    std::move(outer.begin(), outer.end(), std::back_inserter(scopes_));
    --macros_;
    return text;
  }

  std::string_view source_;
  std::tm now_;
  std::vector<Names> scopes_;  // what is given, what the template sets, then loops
  std::string out_;
  Budget budget_;
  int macros_ = 0;
};

}  // namespace

std::string run(const std::vector<Statement>& statements, std::string_view source, const Value& context, std::tm now) {
  return Evaluator(source, now).run(statements, context);
}

}  // namespace sennit::tokenizers::jinja
