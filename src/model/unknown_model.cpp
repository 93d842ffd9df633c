#include "model/unknown_model.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "families/family.h"
#include "model/stored_model.h"

namespace sennit {
namespace {

constexpr size_t kShown = 12;

std::string listed(const std::vector<std::string>& all) {
  const std::vector<std::string> first(all.begin(), all.begin() + static_cast<int64_t>(std::min(all.size(), kShown)));
  return fmt::format("{}{}", fmt::join(first, ", "),
                     all.size() > kShown ? fmt::format(" and {} more", all.size() - kShown) : "");
}

std::string kind_of(const std::string& name) {
  std::string kind;
  for (size_t at = 0; at <= name.size();) {
    const size_t end = std::min(name.find('.', at), name.size());
    const std::string part = name.substr(at, end - at);
    const bool number = !part.empty() && part.find_first_not_of("0123456789") == part.npos;
    kind += (at ? "." : "") + (number ? "N" : part);
    at = end + 1;
  }
  return kind;
}

struct Guess {
  std::string family;
  std::vector<std::string> unknown, unread;
  size_t known = 0;
};

// How much of the file a family would know; nothing when its settings make no model of it.
Guess guess(const Registry<Family>::Entry& entry, const Json& json, const std::vector<std::string>& tensors,
            const std::string& path) {
  Guess g{.family = entry.name, .unknown = {}, .unread = {}};
  try {
    const auto family = families::registry().make(entry.name, {}, Rng(), path);
    Config config(json, path);
    config.text("model_type", "");
    const Json model_file = write_model_spec(read_model_spec(family->from_config(config), path));
    const Described d = families::describe(model_file, parameter_shapes(model_file, path));
    std::set<std::string> names;
    for (const TensorRule& rule : family->rules(d, Layout::huggingface, entry.info.model_types.front()))
      for (const std::string& name : {rule.theirs, rule.alias})
        names.insert(name), names.insert(name.substr(name.find('.') + 1));
    for (const std::string& t : tensors) {
      if (names.count(t) || family->ignores(t))
        ++g.known;
      else
        g.unknown.push_back(t);
    }
    g.unread = config.unread();
  } catch (const Error&) {
    g.known = 0;
  }
  return g;
}

}  // namespace

std::vector<std::string> kinds_of_tensors(const std::vector<std::string>& names) {
  std::vector<std::string> kinds;
  std::set<std::string> seen;
  for (const std::string& name : names)
    if (seen.insert(kind_of(name)).second) kinds.push_back(kind_of(name));
  return kinds;
}

std::string describe_unknown(const Json& config, const std::vector<std::string>& tensors, const std::string& path) {
  Guess best;
  for (const auto& entry : families::registry().entries())
    if (Guess g = guess(entry, config, tensors, path); g.known > best.known) best = std::move(g);
  if (best.known == 0) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : config.items()) keys.push_back(key);
    return fmt::format("; no family knows any of its tensors ({}); its keys: {}", listed(kinds_of_tensors(tensors)),
                       listed(keys));
  }
  return fmt::format("; {} is nearest, with {} of {} tensors; not understood are the tensors: {}; and the keys: {}",
                     best.family, best.known, tensors.size(),
                     best.unknown.empty() ? "none" : listed(kinds_of_tensors(best.unknown)),
                     best.unread.empty() ? "none" : listed(best.unread));
}

std::string describe_unknown(const io::GgufFile& file) {
  std::vector<std::string> names, keys;
  for (const io::GgufEntry& e : file.entries()) names.push_back(e.name);
  const std::string prefix = file.metadata().text("general.architecture") + ".";
  for (const auto& [key, value] : file.metadata().entries())
    if (key.starts_with(prefix)) keys.push_back(key);
  return fmt::format("; its tensors: {}; its keys: {}", listed(kinds_of_tensors(names)), listed(keys));
}

}  // namespace sennit
