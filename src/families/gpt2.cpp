// Language Models are Unsupervised Multitask Learners (Radford et al., 2019): GPT-2.
#include "families/family.h"

namespace sennit::families {
namespace {

using Value = io::GgufValue;
using Change = TensorRule::Change;

struct Gpt2 : Family {
  struct Options {
    Fields fields() { return {}; }
  };
  static Info info() { return {"GPT-2", "Radford et al., 2019", {"gpt2"}, {"gpt2"}}; }
  Gpt2(const Dims&, const Options&, Rng) {}

  static Json model_file(int64_t vocab, int64_t d_model, int64_t positions, int64_t layers, int64_t heads,
                         int64_t hidden, bool tied, double epsilon, const std::string& activation) {
    const Json norm{{"name", "layernorm"}, {"epsilon", epsilon}};
    const Json block{
        {"repeat", layers},
        {"mixer", {{"name", "softmax"}, {"heads", heads}, {"bias", true}, {"out_bias", true}, {"position", "none"}}},
        {"channel", {{"name", "mlp"}, {"hidden", hidden}, {"activation", activation}}},
        {"norm", norm}};
    return Json{{"vocab", vocab},         {"d_model", d_model}, {"learned_positions", positions},
                {"tie_embeddings", tied}, {"norm", norm},       {"blocks", {block}}};
  }

  Json from_config(Config& c) const override {
    if (!c.flag("scale_attn_weights", true)) c.refuse("scale_attn_weights", "true");
    if (c.flag("scale_attn_by_inverse_layer_idx", false)) c.refuse("scale_attn_by_inverse_layer_idx", "false");
    c.flag("reorder_and_upcast_attn", false);
    const std::string f = c.text("activation_function", "gelu_new");
    const bool gelu = f == "gelu_new" || f == "gelu_pytorch_tanh";
    if (!gelu && f != "relu" && f != "silu")
      c.refuse("activation_function", "gelu_new, gelu_pytorch_tanh, relu or silu");
    const int64_t d_model = c.integer("n_embd"), layers = c.integer("n_layer");
    if (layers < 1 || layers > 4096) c.refuse("n_layer", "from 1 to 4096");
    if (c.integer("n_positions") < 1) c.refuse("n_positions", "at least 1");
    return model_file(c.integer("vocab_size"), d_model, c.integer("n_positions"), layers, c.integer("n_head"),
                      c.integer("n_inner", 4 * d_model), c.flag("tie_word_embeddings", true),
                      c.number("layer_norm_epsilon", 1e-5), gelu ? "gelu" : f);
  }

  Json from_gguf(const io::GgufFile& file) const override {
    const io::GgufMetadata& m = file.metadata();
    const int64_t layers = m.integer("gpt2.block_count");
    if (layers < 1 || layers > 4096)
      fail({"GGUF", "`gpt2.block_count` from 1 to 4096", fmt::format("{}", layers), file.path()});
    return model_file(file.tensor("token_embd.weight").shape[0], m.integer("gpt2.embedding_length"),
                      file.tensor("position_embd.weight").shape[0], layers, m.integer("gpt2.attention.head_count"),
                      m.integer("gpt2.feed_forward_length"), !file.find("output.weight"),
                      m.number("gpt2.attention.layer_norm_epsilon"), "gelu");
  }

  static void check(const Described& d) {
    require("gpt2", "a pattern that is causal:", true, d.causal);
    require("gpt2", "token_types", 0, d.token_types);
    require("gpt2", "embedding_norm", "none", d.embedding_norm.at("name"));
    if (!d.learned_positions) fail({"family gpt2", "learned_positions", "none"});
    for (const auto& b : d.blocks) {
      require("gpt2", "block", "prenorm", b.block.at("name"));
      require("gpt2", "mixer", "softmax", b.mixer.at("name"));
      require("gpt2", "position", "none", b.mixer.at("position").at("name"));
      require("gpt2", "bias", true, b.mixer.at("bias"));
      require("gpt2", "out_bias", true, b.mixer.at("out_bias"));
      for (const char* key : {"qk_norm", "gate"}) require("gpt2", key, false, b.mixer.at(key));
      require("gpt2", "window", 0, b.mixer.at("window"));
      require("gpt2", "channel", "mlp", b.channel.at("name"));
      require("gpt2", "bias of the channel", true, b.channel.at("bias"));
      require("gpt2", "norm", "layernorm", b.norm.at("name"));
      require("gpt2", "bias of the norm", true, b.norm.at("bias"));
      require("gpt2", "the same mixer in each block:", d.blocks[0].mixer, b.mixer);
      require("gpt2", "the same channel in each block:", d.blocks[0].channel, b.channel);
      require("gpt2", "the same norm in each block:", d.norm, b.norm);
    }
    for (const char* map : {"q", "k"})
      require("gpt2", fmt::format("rows of {}", map), d.d_model, d.rows(fmt::format("blocks.0.mixer.{}.weight", map)));
  }

  Json to_config(const Described& d) const override {
    check(d);
    const std::string f = d.blocks[0].channel.at("activation");
    if (f != "gelu" && f != "relu" && f != "silu") fail({"family gpt2", "activation gelu, relu or silu", f});
    return Json{{"architectures", {"GPT2LMHeadModel"}},
                {"model_type", "gpt2"},
                {"vocab_size", d.vocab},
                {"n_positions", d.learned_positions},
                {"n_ctx", d.learned_positions},
                {"n_embd", d.d_model},
                {"n_layer", d.blocks.size()},
                {"n_head", d.blocks[0].mixer.at("heads")},
                {"n_inner", d.rows("blocks.0.channel.up.weight")},
                {"activation_function", f == "gelu" ? "gelu_new" : f},
                {"layer_norm_epsilon", d.norm.at("epsilon")},
                {"tie_word_embeddings", d.tied}};
  }

  io::GgufMetadata to_gguf(const Described& d) const override {
    check(d);
    require("gpt2", "activation", "gelu", d.blocks[0].channel.at("activation"));
    io::GgufMetadata m;
    m.set("general.architecture", Value::of("gpt2"));
    const auto set = [&](const char* name, int64_t n) {
      m.set(fmt::format("gpt2.{}", name), Value::of(static_cast<uint32_t>(n)));
    };
    set("block_count", std::ssize(d.blocks));
    set("context_length", d.learned_positions);
    set("embedding_length", d.d_model);
    set("feed_forward_length", d.rows("blocks.0.channel.up.weight"));
    set("attention.head_count", d.blocks[0].mixer.at("heads"));
    set("vocab_size", d.vocab);
    m.set("gpt2.attention.layer_norm_epsilon", Value::of(d.norm.at("epsilon").get<float>()));
    return m;
  }

  std::vector<TensorRule> rules(const Described& d, Layout layout, const std::string&) const override {
    const bool hf = layout == Layout::huggingface;
    std::vector<TensorRule> all = {{hf ? "transformer.wte.weight" : "token_embd.weight", {"embedding.weight"}},
                                   {hf ? "transformer.wpe.weight" : "position_embd.weight", {"positions.weight"}}};
    for (size_t i = 0; i < d.blocks.size(); ++i)
      for (const std::string part : {".weight", ".bias"}) {
        const std::string block = fmt::format("blocks.{}.", i), mixer = block + "mixer.",
                          at = fmt::format(fmt::runtime(hf ? "transformer.h.{}." : "blk.{}."), i);
        const Change turn = hf && part == ".weight" ? Change::transposed : Change::none;
        all.push_back({at + (hf ? "ln_1" : "attn_norm") + part, {block + "mixer_norm" + part}});
        all.push_back({at + (hf ? "attn.c_attn" : "attn_qkv") + part,
                       {mixer + "q" + part, mixer + "k" + part, mixer + "v" + part},
                       turn});
        all.push_back({at + (hf ? "attn.c_proj" : "attn_output") + part, {mixer + "out" + part}, turn});
        all.push_back({at + (hf ? "ln_2" : "ffn_norm") + part, {block + "channel_norm" + part}});
        all.push_back({at + (hf ? "mlp.c_fc" : "ffn_up") + part, {block + "channel.up" + part}, turn});
        all.push_back({at + (hf ? "mlp.c_proj" : "ffn_down") + part, {block + "channel.down" + part}, turn});
      }
    for (const char* part : {".weight", ".bias"})
      all.push_back({std::string(hf ? "transformer.ln_f" : "output_norm") + part, {std::string("norm") + part}});
    if (!d.tied) all.push_back({hf ? "lm_head.weight" : "output.weight", {"head.weight"}});
    return all;
  }

  // The causal mask, which some files keep.
  bool ignores(const std::string& theirs) const override {
    return theirs.ends_with(".attn.bias") || theirs.ends_with(".attn.masked_bias");
  }
};

}  // namespace

void register_gpt2(Registry<Family>& r) {
  r.add<Gpt2>("gpt2");
}

}  // namespace sennit::families
