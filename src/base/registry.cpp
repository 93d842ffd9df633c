#include "base/registry.h"

#include <nlohmann/json.hpp>

namespace sennit {

std::string detail::part_name(const Json& part, const std::string& socket, const std::string& where) {
  if (part.is_string()) return part.get<std::string>();
  if (part.is_object() && part.contains("name") && part["name"].is_string()) return part["name"].get<std::string>();
  fail({socket, "a name, or an object with a \"name\"", json_text(part).substr(0, 60), where});
}

void detail::read_part(const Json& part, const Fields& fields, const std::string& who, const std::string& where) {
  if (!part.is_object()) return;
  Json options = part;
  options.erase("name");
  read_fields(fields, options, who, where);
}

void detail::fail_at(Problem problem, const std::string& where) {
  if (!problem.where.starts_with(where)) problem.where = problem.where.empty() ? where : where + ": " + problem.where;
  fail(std::move(problem));
}

}  // namespace sennit
