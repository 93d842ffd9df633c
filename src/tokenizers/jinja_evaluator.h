#pragma once
#include <ctime>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizers/jinja_parser.h"

namespace sennit::tokenizers::jinja {

// Runs a parsed template with the members of `context` as its variables, and returns what it prints. Throws Error with
// line and column for what cannot be done, for raise_exception(), and for a template that would not end.
std::string run(const std::vector<Statement>& statements, std::string_view source, const Value& context, std::tm now);

}  // namespace sennit::tokenizers::jinja
