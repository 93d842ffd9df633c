#include "families/family.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "blocks/block.h"
#include "positions/position.h"

namespace sennit {
namespace {

// Keys that say nothing about what the model computes, or that are told by the tensors.
const std::set<std::string> kWithoutEffect = {"architectures",
                                              "torch_dtype",
                                              "dtype",
                                              "transformers_version",
                                              "use_cache",
                                              "initializer_range",
                                              "bos_token_id",
                                              "eos_token_id",
                                              "pad_token_id",
                                              "attention_dropout",
                                              "hidden_dropout",
                                              "attn_pdrop",
                                              "embd_pdrop",
                                              "resid_pdrop",
                                              "pretraining_tp",
                                              "_name_or_path",
                                              "output_attentions",
                                              "output_hidden_states",
                                              "return_dict",
                                              "task_specific_params",
                                              "auto_map",
                                              "quantization_config",
                                              "summary_activation",
                                              "summary_first_dropout",
                                              "summary_proj_to_labels",
                                              "summary_type",
                                              "summary_use_proj",
                                              "n_ctx",
                                              "model_type"};

template <class Socket>
Json filled(const Json& part, const Registry<Socket>& sockets, const std::string& where) {
  const std::string name = detail::part_name(part, sockets.socket(), where);
  if (name == "none" && sockets.socket() == "channel") return Json{{"name", name}};
  const auto options = sockets.find(name, where).options();
  detail::read_part(part, options->fields(), name, where);
  Json all = write_fields(options->fields());
  all["name"] = name;
  return all;
}

Described::Block describe_block(const Json& block, const std::string& where) {
  Described::Block b{
      filled(block.at("block"), blocks::registry(), where), filled(block.at("mixer"), mixers::registry(), where),
      filled(block.at("channel"), channels::registry(), where), filled(block.at("norm"), norms::registry(), where)};
  if (b.mixer.contains("position")) b.mixer["position"] = filled(b.mixer["position"], positions::registry(), where);
  return b;
}

}  // namespace

const char* to_string(TensorRule::Change change) {
  static constexpr const char* kNames[] = {"", "transposed", "rows interleaved", "rows separated", "-exp"};
  return kNames[static_cast<int>(change)];
}

Config::Config(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object.is_object()) fail({"config", "an object", object.type_name(), where_});
}

bool Config::has(const std::string& key) const {
  const auto it = object_.find(key);
  return it != object_.end() && !it->is_null();
}

const Json* Config::find(const std::string& key) {
  read_.insert(key);
  return has(key) ? &object_.at(key) : nullptr;
}

void Config::refuse(const std::string& key, const std::string& expected) const {
  fail({"config", fmt::format("`{}` to be {}", key, expected), has(key) ? json_text(object_.at(key)).substr(0, 60) : "none",
        where_});
}

int64_t Config::integer(const std::string& key) {
  const Json* v = find(key);
  if (!v || !v->is_number_integer()) refuse(key, "a whole number");
  const double rough = v->get<double>();
  if (!(rough >= 0 && rough < 1e15)) refuse(key, "a whole number from 0 to 10^15");
  return v->get<int64_t>();
}
int64_t Config::integer(const std::string& key, int64_t fallback) {
  return find(key) ? integer(key) : fallback;
}
double Config::number(const std::string& key, double fallback) {
  const Json* v = find(key);
  if (v && v->is_object() && v->value("__float__", Json()) == "Infinity") return HUGE_VAL;
  if (v && !v->is_number()) refuse(key, "a number");
  return v ? v->get<double>() : fallback;
}
bool Config::flag(const std::string& key, bool fallback) {
  const Json* v = find(key);
  if (v && !v->is_boolean()) refuse(key, "true or false");
  return v ? v->get<bool>() : fallback;
}
std::string Config::text(const std::string& key, const std::string& fallback) {
  const Json* v = find(key);
  if (v && !v->is_string()) refuse(key, "text");
  return v ? v->get<std::string>() : fallback;
}
const Json* Config::part(const std::string& key) {
  return find(key);
}

std::vector<std::string> Config::unread() const {
  std::vector<std::string> all;
  for (const auto& [key, value] : object_.items())
    if (!read_.count(key) && !kWithoutEffect.count(key) && !value.is_null()) all.push_back(key);
  return all;
}

bool Described::Block::attends() const { return mixer.at("name") == "softmax"; }

int64_t Described::rows(const std::string& parameter) const {
  const auto it = shapes.find(parameter);
  if (it == shapes.end()) fail({"model", fmt::format("a parameter `{}`", parameter), "none"});
  return it->second[0];
}

namespace families {

const Registry<Family>::Entry* find(Layout layout, const std::string& target) {
  for (const auto& e : registry().entries()) {
    const auto& names = layout == Layout::gguf ? e.info.architectures : e.info.model_types;
    if (std::find(names.begin(), names.end(), target) != names.end()) return &e;
  }
  return nullptr;
}

Described describe(const Json& model_file, std::map<std::string, Shape> shapes) {
  Described d{.vocab = model_file.at("vocab"),
              .d_model = model_file.at("d_model"),
              .learned_positions = model_file.at("learned_positions"),
              .token_types = model_file.at("token_types"),
              .tied = model_file.at("tie_embeddings"),
              .causal = model_file.at("pattern") == "causal",
              .norm = filled(model_file.at("norm"), norms::registry(), "norm"),
              .embedding_norm = filled(model_file.at("embedding_norm"), norms::registry(), "embedding_norm"),
              .blocks = {},
              .shapes = std::move(shapes)};
  for (const Json& block : model_file.at("blocks"))
    d.blocks.insert(d.blocks.end(), block.value("repeat", size_t{1}),
                    describe_block(block, fmt::format("block {}", d.blocks.size())));
  return d;
}

void require_plain(const char* family, const Described& d) {
  require(family, "learned_positions", 0, d.learned_positions);
  require(family, "token_types", 0, d.token_types);
  require(family, "pattern", "causal", d.causal ? "causal" : "bidirectional");
  require(family, "embedding_norm", "none", d.embedding_norm.at("name"));
}

void require(const char* family, const std::string& what, const Json& expected, const Json& found) {
  if (found != expected)
    fail({fmt::format("family {}", family), fmt::format("{} {}", what, json_text(expected)), json_text(found).substr(0, 80)});
}

}  // namespace families
}  // namespace sennit
