// Gated Delta Networks (Yang et al., arXiv:2412.06464), as flash-linear-attention lays them out, alone or among layers
// of attention.
#include <cmath>

#include "families/fla_settings.h"

namespace sennit::families {
namespace {

struct GatedDeltaNet : Family {
  struct Options {
    Fields fields() { return {}; }
  };
  static Info info() { return {"Gated DeltaNet", "arXiv:2412.06464", {"gated_deltanet"}, {}}; }
  GatedDeltaNet(const Dims&, const Options&, Rng) {}

  Json from_config(Config& c) const override {
    const int64_t heads = c.integer("num_heads", 6), head_dim = c.integer("head_dim", 256);
    const double d_model = static_cast<double>(c.integer("hidden_size")),
                 keys = static_cast<double>(heads) * static_cast<double>(head_dim);
    if (!(d_model >= 1)) c.refuse("hidden_size", "at least 1");
    if (c.integer("num_v_heads", heads) != heads) c.refuse("num_v_heads", "as many as num_heads");
    if (!c.flag("use_gate", true)) c.refuse("use_gate", "true");
    if (!c.flag("use_short_conv", true)) c.refuse("use_short_conv", "true");
    return fla_model_file(c, {{"name", "gated_delta"},
                              {"heads", heads},
                              {"expand_k", keys / d_model},
                              {"expand_v", keys * c.number("expand_v", 2) / d_model},
                              {"conv", c.integer("conv_size", 4)},
                              {"negative", c.flag("allow_neg_eigval", false)},
                              {"norm_epsilon", c.number("norm_eps", 1e-6)}});
  }
  Json from_gguf(const io::GgufFile& file) const override {
    fail({"GGUF", "an architecture with a GGUF", "gated_deltanet", file.path()});
  }

  Json to_config(const Described& d) const override {
    const size_t block = fla_check("gated_deltanet", d, "gated_delta");
    const Json& mixer = d.blocks[block].mixer;
    require("gated_deltanet", "gated", true, mixer.at("gated"));
    require("gated_deltanet", "norm_epsilon", d.norm.at("epsilon"), mixer.at("norm_epsilon"));
    const std::string ours = fmt::format("blocks.{}.mixer.", block);
    const int64_t keys = d.rows(ours + "q.weight"), values = d.rows(ours + "v.weight"), heads = mixer.at("heads");
    Json c = fla_to_config(d, "gated_deltanet", "GatedDeltaNetForCausalLM");
    c.update(Json{{"num_heads", heads},
                  {"num_v_heads", nullptr},
                  {"head_dim", keys / heads},
                  {"expand_v", static_cast<double>(values) / static_cast<double>(keys)},
                  {"conv_size", mixer.at("conv")},
                  {"use_short_conv", true},
                  {"use_gate", true},
                  {"allow_neg_eigval", mixer.at("negative")}});
    return c;
  }
  io::GgufMetadata to_gguf(const Described&) const override {
    fail({"family gated_deltanet", "an architecture of llama.cpp", "none for it"});
  }

  std::vector<TensorRule> rules(const Described& d, Layout, const std::string&) const override {
    return fla_rules(d, [&d](size_t i, const std::string& at, std::vector<TensorRule>& all) {
      const std::string ours = fmt::format("blocks.{}.mixer.", i);
      for (const auto& [theirs, name] : {std::pair{"q_proj.weight", "q.weight"},
                                         {"k_proj.weight", "k.weight"},
                                         {"v_proj.weight", "v.weight"},
                                         {"a_proj.weight", "fade.weight"},
                                         {"b_proj.weight", "beta.weight"},
                                         {"g_proj.weight", "gate.weight"},
                                         {"o_proj.weight", "out.weight"},
                                         {"A_log", "log_rate"},
                                         {"dt_bias", "step_bias"},
                                         {"o_norm.weight", "norm"}})
        all.push_back({at + theirs, {ours + name}});
      fla_conv_rules(d, i, at, all);
    });
  }
};

}  // namespace

void register_gated_deltanet(Registry<Family>& r) {
  r.add<GatedDeltaNet>("gated_deltanet");
}

}  // namespace sennit::families
