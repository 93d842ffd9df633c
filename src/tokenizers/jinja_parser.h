#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizers/jinja_value.h"

namespace sennit::tokenizers::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Argument {
  std::string name;  // "": by position
  ExpressionPtr value;
};

struct Expression {
  enum Kind {
    literal,
    variable,
    list,
    dict,
    attribute,
    item,
    slice,
    call,
    filter,
    test,
    unary,
    binary,
    conditional
  } kind;
  size_t at;                         // byte of the source
  std::string name;                  // of a variable, attribute, filter, test or operator
  Value value;                       // of a literal
  std::vector<ExpressionPtr> parts;  // operands; absent bounds of a slice are nullptr
  std::vector<Argument> arguments;   // of a call, filter or test
  int height = 1;                    // levels of operands
};

struct Statement {
  enum Kind { text, print, branch, loop, assign, capture, macro, body_only, leave_loop, next_turn } kind;
  size_t at;
  std::string text_value;               // text; the name of a macro
  std::vector<std::string> targets;     // names that are set; parameters of a macro
  ExpressionPtr target;                 // an attribute that is set: ns.name
  ExpressionPtr expression, filter;     // what is printed, tested, walked through or assigned; the `if` of a loop
  std::vector<ExpressionPtr> defaults;  // of parameters; nullptr where there is none
  std::vector<Statement> body, otherwise;
};

// A template of the part of Jinja that chat templates use: if, for, set, macro, break, continue, generation (whose
// marks do nothing); expressions with filters and tests. Throws Error with line and column for all else.
std::vector<Statement> parse(std::string_view source);

}  // namespace sennit::tokenizers::jinja
