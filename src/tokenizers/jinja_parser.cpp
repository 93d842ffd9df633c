#include "tokenizers/jinja_parser.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/error.h"
#include "tokenizers/jinja_lexer.h"

namespace sennit::tokenizers::jinja {
namespace {

constexpr int kDeepest = 64, kHighest = 256;
constexpr size_t kMostTokens = 200'000;

class Parser {
 public:
  explicit Parser(std::string_view source) : source_(source), tokens_(tokens_of(source)) {
    if (tokens_.size() > kMostTokens) fail_here(fmt::format("at most {} tokens", kMostTokens), "more");
  }

  std::vector<Statement> document() { return statements({}); }

 private:
  using Names = std::initializer_list<std::string_view>;

  struct Level {
    explicit Level(Parser& p) : parser(p) {
      if (++parser.depth_ > kDeepest) parser.fail_here(fmt::format("at most {} levels", kDeepest), "more");
    }
    ~Level() { --parser.depth_; }
    Parser& parser;
  };

  const Token& now() const { return tokens_[next_]; }
  const Token& ahead(size_t n) const { return tokens_[std::min(next_ + n, tokens_.size() - 1)]; }
  bool is(Token::Kind kind, std::string_view value) const { return now().kind == kind && now().value == value; }
  bool is_mark(std::string_view value) const { return is(Token::mark, value); }
  bool is_name(std::string_view value) const { return is(Token::name, value); }
  bool take(Token::Kind kind, std::string_view value) { return is(kind, value) && (++next_, true); }
  bool take_mark(std::string_view value) { return take(Token::mark, value); }
  bool take_name(std::string_view value) { return take(Token::name, value); }

  [[noreturn]] void fail_here(const std::string& expected, const std::string& found) const {
    refuse(source_, now().at, expected, found);
  }
  [[noreturn]] void expected(const std::string& what) const {
    constexpr const char* kKinds[] = {
        "text", "{{", "}}", "{%", "%}", "", "a string", "", "", "", "the end of the template"};
    fail_here(what, *kKinds[now().kind] ? kKinds[now().kind] : fmt::format("`{}`", now().value.substr(0, 40)));
  }
  void need_mark(std::string_view value) {
    if (!take_mark(value)) expected(fmt::format("`{}`", value));
  }
  std::string need_name(const std::string& what) {
    if (now().kind != Token::name) expected(what);
    return tokens_[next_++].value;
  }
  void need_close() {
    if (now().kind != Token::block_close) expected("%}");
    ++next_;
  }

  static ExpressionPtr make(Expression::Kind kind, size_t at, std::string name = "") {
    return std::make_unique<Expression>(Expression{kind, at, std::move(name), {}, {}, {}});
  }
  ExpressionPtr make(Expression::Kind kind, size_t at, std::string name, ExpressionPtr a,
                     ExpressionPtr b = nullptr) const {
    ExpressionPtr e = make(kind, at, std::move(name));
    e->height = 1 + std::max(a->height, b ? b->height : 0);
    if (e->height > kHighest)
      refuse(source_, at, fmt::format("expressions of at most {} levels", kHighest), "a higher one");
    e->parts.push_back(std::move(a));
    if (b) e->parts.push_back(std::move(b));
    return e;
  }
  static Statement statement(Statement::Kind kind, size_t at) {
    return {kind, at, "", {}, nullptr, nullptr, nullptr, {}, {}, {}};
  }

  // --- Statements -------------------------------------------------------------------------------------------------

  // Up to a block that begins with one of `ends`, whose name is left to be taken; without any, up to the end.
  std::vector<Statement> statements(Names ends) {
    const Level level(*this);
    std::vector<Statement> out;
    while (true) {
      if (now().kind == Token::end) {
        if (ends.size() != 0) expected(fmt::format("{{% {} %}}", *ends.begin()));
        return out;
      }
      if (now().kind == Token::text) {
        out.push_back(statement(Statement::text, now().at));
        out.back().text_value = tokens_[next_++].value;
      } else if (now().kind == Token::print_open) {
        out.push_back(statement(Statement::print, now().at));
        ++next_;
        out.back().expression = expression();
        if (now().kind != Token::print_close) expected("}}");
        ++next_;
      } else {
        ++next_;
        if (now().kind == Token::name && std::find(ends.begin(), ends.end(), now().value) != ends.end()) return out;
        out.push_back(block());
      }
    }
  }

  Statement block() {
    const size_t at = now().at;
    const std::string name = need_name("the name of a block");
    if (name == "if") return branch(at);
    if (name == "for") return loop(at);
    if (name == "set") return assignment(at);
    if (name == "macro") return macro(at);
    if (name == "generation") {
      Statement s = statement(Statement::body_only, at);
      need_close();
      s.body = statements({"endgeneration"});
      ++next_;
      need_close();
      return s;
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) refuse(source_, at, "`" + name + "` in a loop", "it outside one");
      need_close();
      return statement(name == "break" ? Statement::leave_loop : Statement::next_turn, at);
    }
    refuse(source_, at, "one of if, for, set, macro, break, continue, generation", fmt::format("`{}`", name));
  }

  Statement branch(size_t at) {
    const Level level(*this);
    Statement s = statement(Statement::branch, at);
    s.expression = expression();
    need_close();
    s.body = statements({"endif", "elif", "else"});
    if (take_name("elif")) {
      s.otherwise.push_back(branch(at));
      return s;
    }
    if (take_name("else")) {
      need_close();
      s.otherwise = statements({"endif"});
    }
    ++next_;
    need_close();
    return s;
  }

  Statement loop(size_t at) {
    Statement s = statement(Statement::loop, at);
    const bool bracket = take_mark("(");
    do s.targets.push_back(need_name("the name of what the loop walks through"));
    while (take_mark(","));
    if (bracket) need_mark(")");
    if (!take_name("in")) expected("`in`");
    s.expression = disjunction();
    if (take_name("if")) s.filter = expression();
    if (is_name("recursive")) expected("%}, for recursive loops are not known");
    need_close();
    ++loops_;
    s.body = statements({"endfor", "else"});
    --loops_;
    if (take_name("else")) {
      need_close();
      s.otherwise = statements({"endfor"});
    }
    ++next_;
    need_close();
    return s;
  }

  Statement assignment(size_t at) {
    Statement s = statement(Statement::assign, at);
    const size_t name_at = now().at;
    s.targets.push_back(need_name("a name to set"));
    if (take_mark(".")) {
      s.target = make(Expression::attribute, name_at, need_name("the name of a member"),
                      make(Expression::variable, name_at, s.targets[0]));
    } else {
      while (take_mark(",")) s.targets.push_back(need_name("a name to set"));
    }
    if (now().kind == Token::block_close && s.targets.size() == 1) {
      s.kind = Statement::capture;
      ++next_;
      s.body = statements({"endset"});
      ++next_;
      need_close();
      return s;
    }
    need_mark("=");
    s.expression = expression();
    if (s.targets.size() > 1 && is_mark(",")) {
      ExpressionPtr all = make(Expression::list, at, "", std::move(s.expression));
      while (take_mark(",")) all->parts.push_back(expression());
      s.expression = std::move(all);
    }
    need_close();
    return s;
  }

  Statement macro(size_t at) {
    Statement s = statement(Statement::macro, at);
    s.text_value = need_name("the name of a macro");
    need_mark("(");
    while (!is_mark(")")) {
      s.targets.push_back(need_name("the name of a parameter"));
      s.defaults.push_back(take_mark("=") ? expression() : nullptr);
      if (!take_mark(",")) break;
    }
    need_mark(")");
    need_close();
    const int outer = std::exchange(loops_, 0);
    s.body = statements({"endmacro"});
    loops_ = outer;
    ++next_;
    need_close();
    return s;
  }

  // --- Expressions, from what binds least to what binds most ---------------------------------------------------------

  ExpressionPtr expression() {
    const Level level(*this);
    ExpressionPtr e = disjunction();
    while (is_name("if")) {
      const size_t at = tokens_[next_++].at;
      ExpressionPtr condition = disjunction();
      ExpressionPtr choice = make(Expression::conditional, at, "", std::move(condition), std::move(e));
      if (take_name("else")) choice->parts.push_back(expression());
      e = std::move(choice);
    }
    return e;
  }

  ExpressionPtr disjunction() {
    ExpressionPtr e = conjunction();
    while (is_name("or")) e = binary(std::move(e), &Parser::conjunction);
    return e;
  }

  ExpressionPtr conjunction() {
    ExpressionPtr e = negation();
    while (is_name("and")) e = binary(std::move(e), &Parser::negation);
    return e;
  }

  ExpressionPtr negation() {
    const Level level(*this);
    if (!is_name("not")) return comparison();
    const size_t at = tokens_[next_++].at;
    return make(Expression::unary, at, "not", negation());
  }

  ExpressionPtr comparison() {
    ExpressionPtr e = sum();
    while (true) {
      const bool negated = is_name("not") && ahead(1).kind == Token::name && ahead(1).value == "in";
      if (negated) {
        ++next_;
        e = binary(std::move(e), &Parser::sum);
        const size_t at = e->at;
        e = make(Expression::unary, at, "not", std::move(e));
      } else if (is_name("in") || is_any({"==", "!=", "<", "<=", ">", ">="})) {
        e = binary(std::move(e), &Parser::sum);
      } else {
        return e;
      }
    }
  }

  ExpressionPtr sum() {
    ExpressionPtr e = joined();
    while (is_any({"+", "-"})) e = binary(std::move(e), &Parser::joined);
    return e;
  }

  ExpressionPtr joined() {
    ExpressionPtr e = product();
    while (is_mark("~")) e = binary(std::move(e), &Parser::product);
    return e;
  }

  ExpressionPtr product() {
    ExpressionPtr e = power();
    while (is_any({"*", "/", "//", "%"})) e = binary(std::move(e), &Parser::power);
    return e;
  }

  ExpressionPtr power() {
    ExpressionPtr e = signed_term();
    while (is_mark("**")) e = binary(std::move(e), &Parser::signed_term);
    return e;
  }

  ExpressionPtr signed_term() { return filtered(unfiltered()); }

  ExpressionPtr unfiltered() {
    const Level level(*this);
    if (!is_any({"-", "+"})) return postfixed(primary());
    const Token& sign = tokens_[next_++];
    return make(Expression::unary, sign.at, sign.value, unfiltered());
  }

  bool is_any(Names marks) const {
    return now().kind == Token::mark && std::find(marks.begin(), marks.end(), now().value) != marks.end();
  }

  ExpressionPtr binary(ExpressionPtr left, ExpressionPtr (Parser::*operand)()) {
    const Token& op = tokens_[next_++];
    ExpressionPtr right = (this->*operand)();
    return make(Expression::binary, op.at, op.value, std::move(left), std::move(right));
  }

  ExpressionPtr primary() {
    const Token& t = now();
    ++next_;
    if (t.kind == Token::string) {
      ExpressionPtr e = literal(t.at, Value(t.value));
      while (now().kind == Token::string) e->value = Value(e->value.as<std::string>() + tokens_[next_++].value);
      return e;
    }
    if (t.kind == Token::integer || t.kind == Token::number) return number(t);
    if (t.kind == Token::name) {
      if (t.value == "true" || t.value == "True") return literal(t.at, Value(true));
      if (t.value == "false" || t.value == "False") return literal(t.at, Value(false));
      if (t.value == "none" || t.value == "None") return literal(t.at, Value(Value::Data(None{})));
      return make(Expression::variable, t.at, t.value);
    }
    if (t.kind == Token::mark && t.value == "(") return bracket(t.at);
    if (t.kind == Token::mark && t.value == "[") return items(t.at, Expression::list, "]");
    if (t.kind == Token::mark && t.value == "{") return items(t.at, Expression::dict, "}");
    --next_;
    expected("an expression");
  }

  ExpressionPtr literal(size_t at, Value value) {
    ExpressionPtr e = make(Expression::literal, at);
    e->value = std::move(value);
    return e;
  }

  ExpressionPtr number(const Token& t) {
    int64_t whole = 0;
    double real = 0;
    const char* const end = t.value.data() + t.value.size();
    const bool fits = t.kind == Token::integer ? std::from_chars(t.value.data(), end, whole).ec == std::errc()
                                               : std::from_chars(t.value.data(), end, real).ec == std::errc();
    if (!fits) refuse(source_, t.at, "a number of 64 bits", t.value.substr(0, 40));
    return literal(t.at, t.kind == Token::integer ? Value(whole) : Value(Value::Data(real)));
  }

  // (a) is a; (a, b) and (a,) are lists.
  ExpressionPtr bracket(size_t at) {
    if (take_mark(")")) return make(Expression::list, at);
    ExpressionPtr e = expression();
    if (is_mark(",")) {
      e = make(Expression::list, at, "", std::move(e));
      while (take_mark(",") && !is_mark(")")) e->parts.push_back(expression());
    }
    need_mark(")");
    return e;
  }

  ExpressionPtr items(size_t at, Expression::Kind kind, std::string_view close) {
    ExpressionPtr e = make(kind, at);
    while (!is_mark(close)) {
      e->parts.push_back(expression());
      if (kind == Expression::dict) {
        need_mark(":");
        e->parts.push_back(expression());
      }
      if (!take_mark(",")) break;
    }
    need_mark(close);
    return e;
  }

  ExpressionPtr postfixed(ExpressionPtr e) {
    for (int links = 0;; ++links) {
      const size_t at = now().at;
      if (links > kDeepest) fail_here(fmt::format("at most {} levels", kDeepest), "more");
      if (take_mark("."))
        e = make(Expression::attribute, at, need_name("the name of a member"), std::move(e));
      else if (take_mark("["))
        e = subscript(at, std::move(e));
      else if (is_mark("(")) {
        e = make(Expression::call, at, "", std::move(e));
        e->arguments = arguments();
      } else
        return e;
    }
  }

  ExpressionPtr subscript(size_t at, ExpressionPtr of) {
    ExpressionPtr bounds[3];
    size_t colons = 0;
    while (!is_mark("]")) {
      if (take_mark(":")) {
        if (++colons > 2) expected("`]`");
      } else if (bounds[colons] == nullptr) {
        bounds[colons] = expression();
      } else {
        expected("`]`");
      }
    }
    ++next_;
    if (colons == 0 && !bounds[0]) refuse(source_, at, "an index", "none");
    ExpressionPtr e = make(colons == 0 ? Expression::item : Expression::slice, at, "", std::move(of));
    for (size_t i = 0; i < (colons == 0 ? 1u : 3u); ++i) e->parts.push_back(std::move(bounds[i]));
    return e;
  }

  std::vector<Argument> arguments() {
    std::vector<Argument> out;
    need_mark("(");
    while (!is_mark(")")) {
      const bool named = now().kind == Token::name && ahead(1).kind == Token::mark && ahead(1).value == "=";
      std::string name = named ? now().value : "";
      if (named) next_ += 2;
      if (!named && !out.empty() && !out.back().name.empty()) expected("a named argument");
      if (is_any({"*", "**"})) expected("an argument");
      out.push_back({std::move(name), expression()});
      if (!take_mark(",")) break;
    }
    need_mark(")");
    return out;
  }

  ExpressionPtr filtered(ExpressionPtr e) {
    for (int links = 0;; ++links) {
      const size_t at = now().at;
      if (links > kDeepest) fail_here(fmt::format("at most {} levels", kDeepest), "more");
      if (take_mark("|")) {
        e = make(Expression::filter, at, need_name("the name of a filter"), std::move(e));
        if (is_mark("(")) e->arguments = arguments();
      } else if (take_name("is")) {
        const bool negated = take_name("not");
        e = make(Expression::test, at, need_name("the name of a test"), std::move(e));
        if (is_mark("("))
          e->arguments = arguments();
        else if (starts_operand())
          e->arguments.push_back({"", postfixed(primary())});
        if (negated) e = make(Expression::unary, at, "not", std::move(e));
      } else {
        return e;
      }
    }
  }

  // What may follow a test as its argument, without brackets.
  bool starts_operand() const {
    if (now().kind == Token::name)
      return !is_name("else") && !is_name("or") && !is_name("and") && !is_name("is") && !is_name("if") &&
             !is_name("in") && !is_name("not");
    return now().kind == Token::string || now().kind == Token::integer || now().kind == Token::number ||
           is_any({"[", "{"});
  }

  std::string_view source_;
  std::vector<Token> tokens_;
  size_t next_ = 0;
  int depth_ = 0, loops_ = 0;
};

}  // namespace

std::vector<Statement> parse(std::string_view source) {
  return Parser(source).document();
}

}  // namespace sennit::tokenizers::jinja
