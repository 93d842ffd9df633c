// Transformers are SSMs (Dao & Gu, arXiv:2405.21060): Mamba-2.
#include <cmath>

#include "families/mamba2_settings.h"

namespace sennit::families {
namespace {

using Value = io::GgufValue;

struct Mamba2 : Family {
  struct Options {
    Fields fields() { return {}; }
  };
  static Info info() { return {"Mamba-2", "arXiv:2405.21060", {"mamba2"}, {"mamba2"}}; }
  Mamba2(const Dims&, const Options&, Rng) {}

  static Json model_file(int64_t vocab, int64_t d_model, int64_t layers, bool tied, const Json& mixer, double epsilon) {
    const Json norm{{"name", "rmsnorm"}, {"epsilon", epsilon}};
    const Json block{{"repeat", layers}, {"mixer", mixer}, {"channel", "none"}, {"norm", norm}};
    return Json{{"vocab", vocab}, {"d_model", d_model}, {"tie_embeddings", tied}, {"norm", norm}, {"blocks", {block}}};
  }

  Json from_config(Config& c) const override {
    if (c.flag("use_bias", false)) c.refuse("use_bias", "false");
    if (!c.flag("use_conv_bias", true)) c.refuse("use_conv_bias", "true");
    if (!c.flag("rms_norm", true)) c.refuse("rms_norm", "true");
    if (c.flag("norm_before_gate", false)) c.refuse("norm_before_gate", "false");
    if (c.text("hidden_act", "silu") != "silu") c.refuse("hidden_act", "silu");
    check_time_steps(c);
    const int64_t d_model = c.integer("hidden_size"), layers = c.integer("num_hidden_layers");
    if (d_model < 1) c.refuse("hidden_size", "at least 1");
    if (layers < 1 || layers > 4096) c.refuse("num_hidden_layers", "from 1 to 4096");
    const int64_t heads = c.integer("num_heads", 128), head_dim = c.integer("head_dim", 64);
    const double inner = c.number("expand", 2) * static_cast<double>(d_model),
                 epsilon = c.number("layer_norm_epsilon", 1e-5);
    if (static_cast<double>(heads) * static_cast<double>(head_dim) != std::floor(inner))
      c.refuse("num_heads", fmt::format("{} / head_dim", std::floor(inner)));
    return model_file(c.integer("vocab_size"), d_model, layers, c.flag("tie_word_embeddings", false),
                      mamba2_mixer(d_model, heads, head_dim, c.integer("state_size", 128), c.integer("n_groups", 8),
                                   c.integer("conv_kernel", 4), epsilon),
                      epsilon);
  }

  Json from_gguf(const io::GgufFile& file) const override {
    const io::GgufMetadata& m = file.metadata();
    const int64_t d_model = m.integer("mamba2.embedding_length"), layers = m.integer("mamba2.block_count");
    if (d_model < 1 || layers < 1 || layers > 4096)
      fail({"GGUF", "embedding_length of at least 1 and block_count from 1 to 4096",
            fmt::format("{} and {}", d_model, layers), file.path()});
    const double epsilon = m.number("mamba2.attention.layer_norm_rms_epsilon");
    return model_file(file.tensor("token_embd.weight").shape[0], d_model, layers, !file.find("output.weight"),
                      mamba2_from_gguf(file, "mamba2", d_model, epsilon), epsilon);
  }

  static void check(const Described& d) {
    require_plain("mamba2", d);
    for (const auto& b : d.blocks) {
      require("mamba2", "block", "prenorm", b.block.at("name"));
      require("mamba2", "mixer", "mamba2", b.mixer.at("name"));
      require("mamba2", "channel", "none", b.channel.at("name"));
      require("mamba2", "norm", "rmsnorm", b.norm.at("name"));
      require("mamba2", "the same mixer in each block:", d.blocks[0].mixer, b.mixer);
      require("mamba2", "the same norm in each block:", d.norm, b.norm);
    }
    require("mamba2", "norm_epsilon", d.norm.at("epsilon"), d.blocks[0].mixer.at("norm_epsilon"));
  }

  Json to_config(const Described& d) const override {
    check(d);
    const Json& mixer = d.blocks[0].mixer;
    return Json{{"architectures", {"Mamba2ForCausalLM"}},
                {"model_type", "mamba2"},
                {"vocab_size", d.vocab},
                {"hidden_size", d.d_model},
                {"num_hidden_layers", d.blocks.size()},
                {"num_heads", mamba2_sizes(d, 0).heads},
                {"head_dim", mixer.at("head_dim")},
                {"expand", mixer.at("expand")},
                {"state_size", mixer.at("state")},
                {"n_groups", mixer.at("groups")},
                {"conv_kernel", mixer.at("conv")},
                {"use_bias", false},
                {"use_conv_bias", true},
                {"rms_norm", true},
                {"norm_before_gate", false},
                {"hidden_act", "silu"},
                {"layer_norm_epsilon", d.norm.at("epsilon")},
                {"tie_word_embeddings", d.tied}};
  }

  io::GgufMetadata to_gguf(const Described& d) const override {
    check(d);
    io::GgufMetadata m;
    m.set("general.architecture", Value::of("mamba2"));
    const std::pair<const char*, int64_t> sizes[] = {
        {"block_count", std::ssize(d.blocks)}, {"context_length", 1 << 20},  // it has no limit; readers want a number
        {"embedding_length", d.d_model},       {"feed_forward_length", 0},
        {"attention.head_count", 0},           {"vocab_size", d.vocab}};
    for (const auto& [name, n] : sizes) m.set(fmt::format("mamba2.{}", name), Value::of(static_cast<uint32_t>(n)));
    mamba2_to_gguf(d, 0, "mamba2", m);
    m.set("mamba2.attention.layer_norm_rms_epsilon", Value::of(d.norm.at("epsilon").get<float>()));
    return m;
  }

  std::vector<TensorRule> rules(const Described& d, Layout layout, const std::string&) const override {
    const bool hf = layout == Layout::huggingface;
    std::vector<TensorRule> all = {{hf ? "backbone.embeddings.weight" : "token_embd.weight", {"embedding.weight"}}};
    if (hf) all[0].alias = "backbone.embedding.weight";  // of the authors' own files
    for (size_t i = 0; i < d.blocks.size(); ++i) {
      const std::string at = fmt::format(fmt::runtime(hf ? "backbone.layers.{}." : "blk.{}."), i);
      all.push_back({at + (hf ? "norm.weight" : "attn_norm.weight"), {fmt::format("blocks.{}.mixer_norm.weight", i)}});
      mamba2_rules(d, i, at + (hf ? "mixer." : "ssm_"), layout, all);
    }
    all.push_back({hf ? "backbone.norm_f.weight" : "output_norm.weight", {"norm.weight"}});
    if (!d.tied) all.push_back({hf ? "lm_head.weight" : "output.weight", {"head.weight"}});
    return all;
  }
};

}  // namespace

void register_mamba2(Registry<Family>& r) {
  r.add<Mamba2>("mamba2");
}

}  // namespace sennit::families
