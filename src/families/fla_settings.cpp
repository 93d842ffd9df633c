#include "families/fla_settings.h"

#include <cmath>

namespace sennit::families {
namespace {

// A layer of attention, and which layers are such.
struct Attention {
  Json mixer;
  std::set<int64_t> layers;
};

Attention read_attention(Config& c, int64_t layers) {
  Attention a;
  const Json* object = c.part("attn");
  if (!object) return a;
  Config s(*object, c.where() + ": attn");
  const Json* list = s.part("layers");
  if (!list || !list->is_array()) s.refuse("layers", "a list of layers");
  for (const Json& l : *list) {
    if (!l.is_number_integer() || l.get<int64_t>() < 0 || l.get<int64_t>() >= layers)
      s.refuse("layers", fmt::format("a list of numbers below {}", layers));
    a.layers.insert(l.get<int64_t>());
  }
  const int64_t heads = s.integer("num_heads");
  a.mixer = {{"name", "softmax"},
             {"heads", heads},
             {"kv_heads", s.integer("num_kv_heads", heads)},
             {"window", s.integer("window_size", 0)},
             {"bias", s.flag("qkv_bias", false)},
             {"position", {{"name", "rope"}, {"base", s.number("rope_theta", 10000)}}}};
  if (s.flag("qk_norm", false)) s.refuse("qk_norm", "false");
  if (const auto rest = s.unread(); !rest.empty()) s.refuse(rest[0], "absent, as nothing is known of it");
  return a;
}

}  // namespace

Json fla_model_file(Config& c, const Json& mixer) {
  const int64_t d_model = c.integer("hidden_size"), layers = c.integer("num_hidden_layers");
  if (d_model < 1) c.refuse("hidden_size", "at least 1");
  if (layers < 1 || layers > 4096) c.refuse("num_hidden_layers", "from 1 to 4096");
  if (const std::string f = c.text("hidden_act", "swish"); f != "swish" && f != "silu") c.refuse("hidden_act", "swish");
  for (const char* how : {"attn_mode", "fuse_norm", "fuse_swiglu", "fuse_cross_entropy", "fuse_linear_cross_entropy",
                          "use_l2warp", "max_position_embeddings"})
    c.part(how);
  const double ratio = c.number("hidden_ratio", 4);
  const int64_t hidden = c.integer(
      "intermediate_size", (static_cast<int64_t>(ratio * static_cast<double>(d_model) * 2 / 3) + 255) / 256 * 256);
  const Json norm{{"name", "rmsnorm"}, {"epsilon", c.number("norm_eps", 1e-6)}};
  const Attention attention = read_attention(c, layers);
  Json blocks = Json::array();
  for (int64_t i = 0; i < layers; ++i)
    blocks.push_back({{"mixer", attention.layers.count(i) ? attention.mixer : mixer},
                      {"channel", {{"name", "swiglu"}, {"hidden", hidden}}},
                      {"norm", norm}});
  return Json{{"vocab", c.integer("vocab_size")},
              {"d_model", d_model},
              {"tie_embeddings", c.flag("tie_word_embeddings", false)},
              {"norm", norm},
              {"blocks", blocks}};
}

size_t fla_check(const char* family, const Described& d, const std::string& name) {
  require_plain(family, d);
  const Described::Block *mixer = nullptr, *attention = nullptr;
  for (const auto& b : d.blocks) {
    require(family, "block", "prenorm", b.block.at("name"));
    require(family, "channel", "swiglu", b.channel.at("name"));
    require(family, "norm", "rmsnorm", b.norm.at("name"));
    require(family, "the same norm in each block:", d.norm, b.norm);
    const Described::Block*& first = b.attends() ? attention : mixer;
    if (!first) first = &b;
    if (!b.attends()) require(family, "mixer", name, b.mixer.at("name"));
    require(family, "the same mixer in each block of a kind:", first->mixer, b.mixer);
  }
  if (!mixer) fail({fmt::format("family {}", family), fmt::format("a block of {}", name), "none"});
  if (attention) {
    const Json& a = attention->mixer;
    for (const char* key : {"out_bias", "gate", "qk_norm"}) require(family, key, false, a.at(key));
    require(family, "score", "softmax", a.at("score"));
    require(family, "position", "rope", a.at("position").at("name"));
    require(family, "scaling", "none", a.at("position").at("scaling"));
    require(family, "interleaved", false, a.at("position").at("interleaved"));
  }
  return static_cast<size_t>(mixer - d.blocks.data());
}

Json fla_to_config(const Described& d, const std::string& model_type, const std::string& architecture) {
  Json c{{"architectures", {architecture}},
         {"model_type", model_type},
         {"vocab_size", d.vocab},
         {"hidden_size", d.d_model},
         {"intermediate_size", d.rows("blocks.0.channel.gate.weight")},
         {"num_hidden_layers", d.blocks.size()},
         {"hidden_act", "swish"},
         {"norm_eps", d.norm.at("epsilon")},
         {"fuse_norm", true},
         {"tie_word_embeddings", d.tied},
         {"attn", nullptr}};
  for (size_t i = 0; i < d.blocks.size(); ++i) {
    if (!d.blocks[i].attends()) continue;
    const Json& a = d.blocks[i].mixer;
    if (c["attn"].is_null())
      c["attn"] = {{"layers", Json::array()},
                   {"num_heads", a.at("heads")},
                   {"num_kv_heads", a.at("kv_heads") == 0 ? a.at("heads") : a.at("kv_heads")},
                   {"qkv_bias", a.at("bias")},
                   {"window_size", a.at("window") == 0 ? Json(nullptr) : a.at("window")},
                   {"rope_theta", a.at("position").at("base")}};
    c["attn"]["layers"].push_back(i);
  }
  return c;
}

std::vector<TensorRule> fla_rules(const Described& d, const AddMixer& add_mixer) {
  std::vector<TensorRule> all = {{"model.embeddings.weight", {"embedding.weight"}}};
  const auto add = [&](const std::string& theirs, const std::string& ours) {
    if (d.shapes.count(ours)) all.push_back({theirs, {ours}});
  };
  for (size_t i = 0; i < d.blocks.size(); ++i) {
    const std::string at = fmt::format("model.layers.{}.", i), block = fmt::format("blocks.{}.", i);
    add(at + "attn_norm.weight", block + "mixer_norm.weight");
    if (d.blocks[i].attends()) {
      for (const auto& [theirs, ours] : {std::pair{"q", "q"}, {"k", "k"}, {"v", "v"}, {"o", "out"}})
        for (const char* part : {".weight", ".bias"})
          add(fmt::format("{}attn.{}_proj{}", at, theirs, part), fmt::format("{}mixer.{}{}", block, ours, part));
    } else {
      add_mixer(i, at + "attn.", all);
    }
    add(at + "mlp_norm.weight", block + "channel_norm.weight");
    for (const char* part : {"gate", "up", "down"})
      add(fmt::format("{}mlp.{}_proj.weight", at, part), fmt::format("{}channel.{}.weight", block, part));
  }
  add("model.norm.weight", "norm.weight");
  add("lm_head.weight", "head.weight");
  return all;
}

void fla_conv_rules(const Described& d, size_t block, const std::string& prefix, std::vector<TensorRule>& into) {
  for (const char* part : {"q", "k", "v"}) {
    const std::string ours = fmt::format("blocks.{}.mixer.conv_{}.weight", block, part);
    if (const auto found = d.shapes.find(ours); found != d.shapes.end())
      into.push_back({fmt::format("{}{}_conv1d.weight", prefix, part),
                      {ours},
                      {},
                      0,
                      Shape{found->second[0], 1, found->second[1]}});
  }
}

}  // namespace sennit::families
