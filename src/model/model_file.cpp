#include "model/model_file.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/utf8.h"
#include "blocks/block.h"
#include "io/json_file.h"
#include "mixers/capabilities.h"

namespace sennit {
namespace {

constexpr int64_t kMostBlocks = 4096;

struct Part {
  const char* key;
  Json value;
  Fields fields;
  std::unique_ptr<OptionSet> options;
};

template <class Socket>
Part make_part(const char* key, const Json& block, const char* fallback, const Registry<Socket>& registry, const std::string& where) {
  Part p{key, block.contains(key) ? block.at(key) : Json(fallback), {}, nullptr};
  if (p.value.is_null()) p.value = "none";
  const std::string name = detail::part_name(p.value, registry.socket(), where + ": " + key);
  if (name != "none" || registry.socket() != "channel") {
    p.options = registry.find(name, where + ": " + key).options();
    p.fields = p.options->fields();
  }
  if (p.value.is_string()) p.value = Json{{"name", name}};
  return p;
}

// Puts a block's flat keys where they belong.
BlockSpec sort_block(const Json& block, const std::string& where) {
  if (!block.is_object()) fail({"model file", "an object for each block", json_text(block).substr(0, 60), where});
  if (!block.contains("mixer")) fail({"model file", "a \"mixer\" in each block", "none", where});
  std::vector<Part> parts;
  parts.push_back(make_part("block", block, "prenorm", blocks::registry(), where));
  parts.push_back(make_part("mixer", block, "softmax", mixers::registry(), where));
  parts.push_back(make_part("channel", block, "swiglu", channels::registry(), where));
  parts.push_back(make_part("norm", block, "rmsnorm", norms::registry(), where));
  std::vector<std::string> known = {"repeat"};
  for (const Part& p : parts) {
    known.push_back(p.key);
    for (const Field& f : p.fields) known.push_back(f.name);
  }
  for (const auto& [key, value] : block.items()) {
    if (key == "repeat" || std::any_of(parts.begin(), parts.end(), [&name = key](const Part& p) { return name == p.key; })) continue;
    Part* owner = nullptr;
    for (Part& p : parts)
      for (const Field& f : p.fields)
        if (f.name == key) {
          if (owner) fail({"model file", fmt::format("`{}` inside \"{}\" or \"{}\", which both have it", key, owner->key, p.key), "a flat key", where});
          owner = &p;
        }
    if (!owner) unknown_key(key, known, "model file", where);
    if (owner->value.contains(key)) fail({"model file", fmt::format("`{}` once", key), "a flat key and one inside its part", where});
    owner->value[key] = value;
  }
  for (const Part& p : parts) detail::read_part(p.value, p.fields, p.key, where);
  return {std::make_shared<Json>(parts[0].value), std::make_shared<Json>(parts[1].value), std::make_shared<Json>(parts[2].value),
          std::make_shared<Json>(parts[3].value)};
}

Json shortened(const Json& part) { return part.size() == 1 ? part.at("name") : part; }

}  // namespace

Fields ModelSpec::fields() {
  return {{"vocab", &vocab, "number of token ids", {.min = 1, .max = 1 << 24}},
          {"d_model", &d_model, "width of the residual stream", {.min = 1, .max = 1 << 17}},
          {"tie_embeddings", &tie_embeddings, "use the embedding as the output map"},
          {"embedding_deviation", &embedding_deviation, "of its initial normal draw", {.min = 0, .max = 10}},
          {"learned_positions", &learned_positions, "add a learned vector for each of so many positions; 0: none", {.min = 0, .max = 1 << 24}},
          {"token_types", &token_types, "add the first of so many learned vectors to every token, as BERT does with one text; 0: none", {.min = 0, .max = 1 << 16}},
          {"pattern", &pattern, "what a token sees: itself and those before it, or all of its text", {.choices = {"causal", "bidirectional"}}}};
}

namespace {

// A norm of the top level, checked.
std::shared_ptr<Json> read_norm(const Json& file, const char* key, const char* fallback, const std::string& path) {
  const Json norm = file.value(key, Json(fallback));
  const std::string where = path + ": " + key;
  const auto& entry = norms::registry().find(detail::part_name(norm, "norm", where), where);
  detail::read_part(norm, entry.options()->fields(), key, path);
  return std::make_shared<Json>(norm);
}

}  // namespace

ModelSpec read_model_spec(const Json& file, const std::string& path) {
  ModelSpec spec;
  if (!file.is_object()) fail({"model file", "a JSON object", file.type_name(), path});
  Json plain = file;
  for (const char* part : {"blocks", "norm", "embedding_norm"}) plain.erase(part);
  if (!file.contains("blocks")) {
    std::vector<std::string> known = {"blocks", "norm", "embedding_norm"};
    for (const Field& f : spec.fields()) known.push_back(f.name);
    for (const auto& [key, value] : plain.items())
      if (std::find(known.begin(), known.end(), key) == known.end()) unknown_key(key, known, "model file", path);
    fail({"model file", "a list \"blocks\"", "none", path});
  }
  read_fields(spec.fields(), plain, "model file", path);
  for (const char* needed : {"vocab", "d_model"})
    if (!file.contains(needed)) fail({"model file", fmt::format("\"{}\"", needed), "none", path});
  spec.norm = read_norm(file, "norm", "rmsnorm", path);
  spec.embedding_norm = read_norm(file, "embedding_norm", "none", path);
  const Json& blocks = file.at("blocks");
  if (!blocks.is_array() || blocks.empty()) fail({"model file", "a list of at least one block", json_text(blocks).substr(0, 60), path + ": blocks"});
  for (size_t i = 0; i < blocks.size(); ++i) {
    const std::string where = fmt::format("{}: blocks[{}]", path, i);
    const BlockSpec block = sort_block(blocks[i], where);
    int64_t repeat = 1;
    if (blocks[i].contains("repeat"))
      read_field({"repeat", &repeat, "", {.min = 1, .max = double(kMostBlocks)}}, blocks[i].at("repeat"), "model file", where);
    if (std::ssize(spec.blocks) + repeat > kMostBlocks) fail({"model file", fmt::format("at most {} blocks", kMostBlocks), "more", where});
    spec.blocks.insert(spec.blocks.end(), repeat, block);
  }
  return spec;
}

Json write_model_spec(const ModelSpec& spec) {
  ModelSpec copy = spec;
  Json file = write_fields(copy.fields());
  file["norm"] = *spec.norm;
  file["embedding_norm"] = *spec.embedding_norm;
  file["blocks"] = Json::array();
  for (size_t i = 0; i < spec.blocks.size();) {
    auto as_json = [](const BlockSpec& b) {
      return Json{{"block", shortened(*b.block)}, {"mixer", shortened(*b.mixer)}, {"channel", shortened(*b.channel)}, {"norm", shortened(*b.norm)}};
    };
    const Json block = as_json(spec.blocks[i]);
    int64_t repeat = 0;
    do ++i, ++repeat;  // one at least: a NaN is not equal to itself
    while (i < spec.blocks.size() && as_json(spec.blocks[i]) == block);
    Json entry = Json{{"repeat", repeat}};
    entry.update(block);
    file["blocks"].push_back(entry);
  }
  return file;
}

void check_predicts(const ModelSpec& spec, const std::string& path) {
  for (size_t i = 0; i < spec.blocks.size(); ++i) {
    const std::string where = fmt::format("{}: block {}", path, i);
    const auto& mixer = mixers::registry().find(detail::part_name(*spec.blocks[i].mixer, "mixer", where), where);
    if (!mixers::is_causal(mixer.info))
      fail({mixer.name, "a causal mixer, since the model is to predict the next token", "one whose tokens see later ones", where});
  }
}

void set_model_key(Json& file, const std::string& assignment) {
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) fail({"model setting", "KEY=VALUE", assignment});
  Json* at = &file;
  const std::string path = assignment.substr(0, equals), text = assignment.substr(equals + 1);
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    const std::string key = path.substr(begin, end - begin);
    if (at->is_array()) {
      if (key.empty() || key.size() > 6 || key.find_first_not_of("0123456789") != std::string::npos || std::stoul(key) >= at->size())
        fail({"model setting", fmt::format("an index below {}", at->size()), key, path});
      at = &(*at)[std::stoul(key)];
    } else if (at->is_object()) {
      at = &(*at)[key];
    } else {
      fail({"model setting", "a key of an object", key, path});
    }
    begin = end + 1;
  }
  if (!is_utf8(text)) fail({"model setting", "UTF-8", "something else", path});
  try {
    *at = io::parse_json(text, path);
  } catch (const Error&) {
    *at = text;  // a name needs no quotes
  }
}

}  // namespace sennit
