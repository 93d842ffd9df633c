// Gated Linear Attention Transformers (Yang et al., arXiv:2312.06635), as flash-linear-attention lays them out.
#include "families/fla_settings.h"

namespace sennit::families {
namespace {

constexpr int64_t kRank = 16;        // of the decay's map: their config.json does not say it
constexpr double kTemperature = 16;  // nor this

struct Gla : Family {
  struct Options {
    Fields fields() { return {}; }
  };
  static Info info() { return {"Gated linear attention", "arXiv:2312.06635", {"gla"}, {}}; }
  Gla(const Dims&, const Options&, Rng) {}

  Json from_config(Config& c) const override {
    const int64_t heads = c.integer("num_heads", 4);
    if (c.integer("num_kv_heads", heads) != heads) c.refuse("num_kv_heads", "as many as num_heads");
    if (!c.flag("use_output_gate", true)) c.refuse("use_output_gate", "true");
    if (!c.flag("elementwise_affine", true)) c.refuse("elementwise_affine", "true");
    if (!c.flag("use_gk", true)) c.refuse("use_gk", "true");
    if (c.flag("use_gv", false)) c.refuse("use_gv", "false");
    if (c.part("clamp_min")) c.refuse("clamp_min", "null");
    std::string feature = c.text("feature_map", "none");
    if (feature == "swish") feature = "silu";
    if (feature != "none" && feature != "silu" && feature != "relu" && feature != "sigmoid")
      c.refuse("feature_map", "null, swish, relu or sigmoid");
    const int64_t conv = c.integer("conv_size", 4);
    return fla_model_file(c, {{"name", "gla"},
                              {"heads", heads},
                              {"expand_k", c.number("expand_k", 0.5)},
                              {"expand_v", c.number("expand_v", 1)},
                              {"feature", feature},
                              {"conv", c.flag("use_short_conv", false) ? conv : 0},
                              {"gate_rank", kRank},
                              {"gate_temperature", kTemperature},
                              {"norm_epsilon", c.number("norm_eps", 1e-6)}});
  }
  Json from_gguf(const io::GgufFile& file) const override {
    fail({"GGUF", "an architecture with a GGUF", "gla", file.path()});
  }

  Json to_config(const Described& d) const override {
    const Json& mixer = d.blocks[fla_check("gla", d, "gla")].mixer;
    require("gla", "decay", "vector", mixer.at("decay"));
    require("gla", "gate_rank", kRank, mixer.at("gate_rank"));
    require("gla", "gate_temperature", kTemperature, mixer.at("gate_temperature"));
    require("gla", "norm_epsilon", d.norm.at("epsilon"), mixer.at("norm_epsilon"));
    const std::string feature = mixer.at("feature");
    if (feature != "none" && feature != "silu" && feature != "relu" && feature != "sigmoid")
      fail({"family gla", "feature none, silu, relu or sigmoid", feature});
    Json c = fla_to_config(d, "gla", "GLAForCausalLM");
    c.update(Json{{"num_heads", mixer.at("heads")},
                  {"num_kv_heads", nullptr},
                  {"expand_k", mixer.at("expand_k")},
                  {"expand_v", mixer.at("expand_v")},
                  {"feature_map", feature == "none" ? Json(nullptr) : Json(feature == "silu" ? "swish" : feature)},
                  {"use_short_conv", mixer.at("conv") != 0},
                  {"conv_size", mixer.at("conv") != 0 ? mixer.at("conv") : Json(4)},
                  {"use_output_gate", true},
                  {"elementwise_affine", true},
                  {"clamp_min", nullptr}});
    return c;
  }
  io::GgufMetadata to_gguf(const Described&) const override {
    fail({"family gla", "an architecture of llama.cpp", "none for it"});
  }

  std::vector<TensorRule> rules(const Described& d, Layout, const std::string&) const override {
    return fla_rules(d, [&d](size_t i, const std::string& at, std::vector<TensorRule>& all) {
      const std::string ours = fmt::format("blocks.{}.mixer.", i);
      for (const auto& [theirs, name] : {std::pair{"q_proj.weight", "q.weight"},
                                         {"k_proj.weight", "k.weight"},
                                         {"v_proj.weight", "v.weight"},
                                         {"g_proj.weight", "gate.weight"},
                                         {"o_proj.weight", "out.weight"},
                                         {"gk_proj.0.weight", "decay_down.weight"},
                                         {"gk_proj.1.weight", "decay_up.weight"},
                                         {"gk_proj.1.bias", "decay_up.bias"}})
        all.push_back({at + theirs, {ours + name}});
      all.push_back({at + "g_norm_swish_gate.weight", {ours + "norm"}, {}, 0, {}, at + "g_norm.weight"});
      fla_conv_rules(d, i, at, all);
    });
  }
};

}  // namespace

void register_gla(Registry<Family>& r) {
  r.add<Gla>("gla");
}

}  // namespace sennit::families
