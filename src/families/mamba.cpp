// Mamba: Linear-Time Sequence Modeling with Selective State Spaces (Gu & Dao, arXiv:2312.00752).
#include "families/family.h"

namespace sennit::families {
namespace {

using Value = io::GgufValue;

struct Mamba : Family {
  struct Options {
    Fields fields() { return {}; }
  };
  static Info info() { return {"Mamba", "arXiv:2312.00752", {"mamba"}, {"mamba"}}; }
  Mamba(const Dims&, const Options&, Rng) {}

  static Json model_file(int64_t vocab, int64_t d_model, int64_t layers, int64_t inner, int64_t state, int64_t conv,
                         int64_t rank, bool tied, double epsilon) {
    const Json norm{{"name", "rmsnorm"}, {"epsilon", epsilon}};
    const double expand = static_cast<double>(inner) / static_cast<double>(d_model);
    const Json block{
        {"repeat", layers},
        {"mixer", {{"name", "mamba"}, {"state", state}, {"conv", conv}, {"expand", expand}, {"dt_rank", rank}}},
        {"channel", "none"},
        {"norm", norm}};
    return Json{{"vocab", vocab}, {"d_model", d_model}, {"tie_embeddings", tied}, {"norm", norm}, {"blocks", {block}}};
  }

  Json from_config(Config& c) const override {
    if (c.flag("use_bias", false)) c.refuse("use_bias", "false");
    if (!c.flag("use_conv_bias", true)) c.refuse("use_conv_bias", "true");
    if (c.text("hidden_act", "silu") != "silu") c.refuse("hidden_act", "silu");
    for (const char* at_init : {"time_step_min", "time_step_max", "time_step_floor", "time_step_scale",
                                "time_step_init_scheme", "rescale_prenorm_residual", "residual_in_fp32"})
      c.part(at_init);
    const int64_t d_model = c.integer("hidden_size"), layers = c.integer("num_hidden_layers");
    if (d_model < 1) c.refuse("hidden_size", "at least 1");
    if (layers < 1 || layers > 4096) c.refuse("num_hidden_layers", "from 1 to 4096");
    const double expand = c.number("expand", 2);
    const Json* rank = c.part("time_step_rank");
    const bool automatic = !rank || *rank == "auto";
    return model_file(c.integer("vocab_size"), d_model, layers,
                      c.integer("intermediate_size", static_cast<int64_t>(expand * static_cast<double>(d_model))),
                      c.integer("state_size", 16), c.integer("conv_kernel", 4),
                      automatic ? (d_model + 15) / 16 : c.integer("time_step_rank"),
                      c.flag("tie_word_embeddings", true), c.number("layer_norm_epsilon", 1e-5));
  }

  Json from_gguf(const io::GgufFile& file) const override {
    const io::GgufMetadata& m = file.metadata();
    if (m.flag("mamba.ssm.dt_b_c_rms", false))
      fail({"GGUF", "a mamba that does not normalise B, C and dt", "mamba.ssm.dt_b_c_rms", file.path()});
    const int64_t d_model = m.integer("mamba.embedding_length"), layers = m.integer("mamba.block_count");
    if (d_model < 1 || layers < 1 || layers > 4096)
      fail({"GGUF", "embedding_length of at least 1 and block_count from 1 to 4096",
            fmt::format("{} and {}", d_model, layers), file.path()});
    return model_file(file.tensor("token_embd.weight").shape[0], d_model, layers, m.integer("mamba.ssm.inner_size"),
                      m.integer("mamba.ssm.state_size"), m.integer("mamba.ssm.conv_kernel"),
                      m.integer("mamba.ssm.time_step_rank"), !file.find("output.weight"),
                      m.number("mamba.attention.layer_norm_rms_epsilon"));
  }

  static void check(const Described& d) {
    require_plain("mamba", d);
    for (const auto& b : d.blocks) {
      require("mamba", "block", "prenorm", b.block.at("name"));
      require("mamba", "mixer", "mamba", b.mixer.at("name"));
      require("mamba", "channel", "none", b.channel.at("name"));
      require("mamba", "norm", "rmsnorm", b.norm.at("name"));
      require("mamba", "the same mixer in each block:", d.blocks[0].mixer, b.mixer);
      require("mamba", "the same norm in each block:", d.norm, b.norm);
    }
  }
  static int64_t inner(const Described& d) { return d.rows("blocks.0.mixer.in_x.weight"); }
  static int64_t rank(const Described& d) { return d.rows("blocks.0.mixer.x_dt.weight"); }

  Json to_config(const Described& d) const override {
    check(d);
    const Json& mixer = d.blocks[0].mixer;
    return Json{{"architectures", {"MambaForCausalLM"}},
                {"model_type", "mamba"},
                {"vocab_size", d.vocab},
                {"hidden_size", d.d_model},
                {"num_hidden_layers", d.blocks.size()},
                {"intermediate_size", inner(d)},
                {"expand", mixer.at("expand")},
                {"state_size", mixer.at("state")},
                {"conv_kernel", mixer.at("conv")},
                {"time_step_rank", rank(d)},
                {"use_bias", false},
                {"use_conv_bias", true},
                {"hidden_act", "silu"},
                {"layer_norm_epsilon", d.norm.at("epsilon")},
                {"tie_word_embeddings", d.tied}};
  }

  io::GgufMetadata to_gguf(const Described& d) const override {
    check(d);
    const Json& mixer = d.blocks[0].mixer;
    io::GgufMetadata m;
    m.set("general.architecture", Value::of("mamba"));
    const auto set = [&](const char* name, int64_t n) {
      m.set(fmt::format("mamba.{}", name), Value::of(static_cast<uint32_t>(n)));
    };
    set("block_count", std::ssize(d.blocks));
    set("context_length", 1 << 20);  // it has no limit; readers want a number
    set("embedding_length", d.d_model);
    set("feed_forward_length", 0);
    set("attention.head_count", 0);
    set("ssm.conv_kernel", mixer.at("conv"));
    set("ssm.inner_size", inner(d));
    set("ssm.state_size", mixer.at("state"));
    set("ssm.time_step_rank", rank(d));
    set("vocab_size", d.vocab);
    m.set("mamba.attention.layer_norm_rms_epsilon", Value::of(d.norm.at("epsilon").get<float>()));
    return m;
  }

  std::vector<TensorRule> rules(const Described& d, Layout layout, const std::string&) const override {
    const bool hf = layout == Layout::huggingface;
    const int64_t width = d.blocks[0].mixer.at("conv");
    std::vector<TensorRule> all = {{hf ? "backbone.embeddings.weight" : "token_embd.weight", {"embedding.weight"}}};
    if (hf) all[0].alias = "backbone.embedding.weight";  // of the authors' own files
    for (size_t i = 0; i < d.blocks.size(); ++i) {
      const std::string block = fmt::format("blocks.{}.", i), ours = block + "mixer.",
                        at = fmt::format(fmt::runtime(hf ? "backbone.layers.{}." : "blk.{}."), i);
      const std::string mixer = at + (hf ? "mixer." : "ssm_");
      all.push_back({at + (hf ? "norm.weight" : "attn_norm.weight"), {block + "mixer_norm.weight"}});
      all.push_back({mixer + (hf ? "in_proj.weight" : "in.weight"), {ours + "in_x.weight", ours + "in_z.weight"}});
      all.push_back({mixer + "conv1d.weight", {ours + "conv.weight"}, {}, 0, hf ? Shape{inner(d), 1, width} : Shape{}});
      all.push_back({mixer + "conv1d.bias", {ours + "conv.bias"}});
      all.push_back({mixer + (hf ? "x_proj.weight" : "x.weight"),
                     {ours + "x_dt.weight", ours + "x_b.weight", ours + "x_c.weight"}});
      for (const char* part : {".weight", ".bias"})
        all.push_back({mixer + (hf ? "dt_proj" : "dt") + part, {ours + "dt" + part}});
      all.push_back(
          {mixer + (hf ? "A_log" : "a"), {ours + "log_a"}, hf ? TensorRule::Change::none : TensorRule::Change::decay});
      all.push_back({mixer + (hf ? "D" : "d"), {ours + "skip"}});
      all.push_back({mixer + (hf ? "out_proj.weight" : "out.weight"), {ours + "out.weight"}});
    }
    all.push_back({hf ? "backbone.norm_f.weight" : "output_norm.weight", {"norm.weight"}});
    if (!d.tied) all.push_back({hf ? "lm_head.weight" : "output.weight", {"head.weight"}});
    return all;
  }
};

}  // namespace

void register_mamba(Registry<Family>& r) {
  r.add<Mamba>("mamba");
}

}  // namespace sennit::families
