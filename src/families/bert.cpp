// BERT (Devlin et al., arXiv:1810.04805), the encoder: what it makes of a text, without heads for its training tasks.
#include "families/family.h"

namespace sennit::families {
namespace {

using Value = io::GgufValue;

struct Bert : Family {
  struct Options {
    Fields fields() { return {}; }
  };
  static Info info() { return {"BERT (encoder)", "arXiv:1810.04805", {"bert"}, {"bert"}}; }
  Bert(const Dims&, const Options&, Rng) {}

  struct Sizes {
    int64_t vocab, d_model, positions, types, layers, heads, hidden;
  };
  static Json model_file(const Sizes& s, const std::string& activation, double epsilon) {
    const Json norm{{"name", "layernorm"}, {"epsilon", epsilon}};
    const Json block{
        {"repeat", s.layers},
        {"block", "postnorm"},
        {"mixer", {{"name", "softmax"}, {"heads", s.heads}, {"bias", true}, {"out_bias", true}, {"position", "none"}}},
        {"channel", {{"name", "mlp"}, {"hidden", s.hidden}, {"activation", activation}}},
        {"norm", norm}};
    return Json{{"vocab", s.vocab},
                {"d_model", s.d_model},
                {"pattern", "bidirectional"},
                {"learned_positions", s.positions},
                {"token_types", s.types},
                {"embedding_norm", norm},
                {"norm", "none"},
                {"blocks", {block}}};
  }

  Json from_config(Config& c) const override {
    const std::string f = c.text("hidden_act", "gelu");
    const bool tanh = f == "gelu_new" || f == "gelu_pytorch_tanh";
    if (!tanh && f != "gelu" && f != "relu" && f != "silu")
      c.refuse("hidden_act", "gelu, gelu_new, gelu_pytorch_tanh, relu or silu");
    if (c.text("position_embedding_type", "absolute") != "absolute") c.refuse("position_embedding_type", "absolute");
    if (c.flag("is_decoder", false)) c.refuse("is_decoder", "false");
    for (const char* of_training : {"hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout",
                                    "gradient_checkpointing", "add_cross_attention", "tie_word_embeddings"})
      c.part(of_training);
    const int64_t layers = c.integer("num_hidden_layers", 12);
    if (layers < 1 || layers > 4096) c.refuse("num_hidden_layers", "from 1 to 4096");
    if (c.integer("max_position_embeddings", 512) < 1) c.refuse("max_position_embeddings", "at least 1");
    return model_file(
        {c.integer("vocab_size"), c.integer("hidden_size"), c.integer("max_position_embeddings", 512),
         c.integer("type_vocab_size", 2), layers, c.integer("num_attention_heads", 12), c.integer("intermediate_size")},
        tanh          ? "gelu"
        : f == "gelu" ? "gelu_erf"
                      : f,
        c.number("layer_norm_eps", 1e-12));
  }

  Json from_gguf(const io::GgufFile& file) const override {
    const io::GgufMetadata& m = file.metadata();
    const int64_t layers = m.integer("bert.block_count");
    if (layers < 1 || layers > 4096)
      fail({"GGUF", "`bert.block_count` from 1 to 4096", fmt::format("{}", layers), file.path()});
    const int64_t types = file.find("token_types.weight") ? file.tensor("token_types.weight").shape[0] : 0;
    return model_file({file.tensor("token_embd.weight").shape[0], m.integer("bert.embedding_length"),
                       file.tensor("position_embd.weight").shape[0], types, layers,
                       m.integer("bert.attention.head_count"), m.integer("bert.feed_forward_length")},
                      "gelu_erf", m.number("bert.attention.layer_norm_epsilon"));
  }

  static void check(const Described& d) {
    require("bert", "a pattern that is causal:", false, d.causal);
    require("bert", "norm", "none", d.norm.at("name"));
    require("bert", "tie_embeddings", true, d.tied);
    if (!d.learned_positions) fail({"family bert", "learned_positions", "none"});
    for (const auto& b : d.blocks) {
      require("bert", "block", "postnorm", b.block.at("name"));
      require("bert", "mixer", "softmax", b.mixer.at("name"));
      require("bert", "position", "none", b.mixer.at("position").at("name"));
      for (const char* key : {"bias", "out_bias"}) require("bert", key, true, b.mixer.at(key));
      for (const char* key : {"qk_norm", "gate"}) require("bert", key, false, b.mixer.at(key));
      require("bert", "channel", "mlp", b.channel.at("name"));
      require("bert", "bias of the channel", true, b.channel.at("bias"));
      require("bert", "norm of a block", "layernorm", b.norm.at("name"));
      require("bert", "the same mixer in each block:", d.blocks[0].mixer, b.mixer);
      require("bert", "the same channel in each block:", d.blocks[0].channel, b.channel);
      require("bert", "the same norm in each block:", d.embedding_norm, b.norm);
    }
    require("bert", "rows of k", d.d_model, d.rows("blocks.0.mixer.k.weight"));
  }

  Json to_config(const Described& d) const override {
    check(d);
    const std::string f = d.blocks[0].channel.at("activation");
    if (f != "gelu_erf" && f != "gelu" && f != "relu" && f != "silu")
      fail({"family bert", "activation gelu_erf, gelu, relu or silu", f});
    return Json{{"architectures", {"BertModel"}},
                {"model_type", "bert"},
                {"vocab_size", d.vocab},
                {"hidden_size", d.d_model},
                {"num_hidden_layers", d.blocks.size()},
                {"num_attention_heads", d.blocks[0].mixer.at("heads")},
                {"intermediate_size", d.rows("blocks.0.channel.up.weight")},
                {"hidden_act", f == "gelu_erf" ? "gelu"
                               : f == "gelu"   ? "gelu_new"
                                               : f},
                {"max_position_embeddings", d.learned_positions},
                {"type_vocab_size", d.token_types},
                {"position_embedding_type", "absolute"},
                {"layer_norm_eps", d.embedding_norm.at("epsilon")}};
  }

  io::GgufMetadata to_gguf(const Described& d) const override {
    check(d);
    require("bert", "activation", "gelu_erf", d.blocks[0].channel.at("activation"));
    io::GgufMetadata m;
    m.set("general.architecture", Value::of("bert"));
    const std::pair<const char*, int64_t> sizes[] = {
        {"bert.block_count", std::ssize(d.blocks)},
        {"bert.context_length", d.learned_positions},
        {"bert.embedding_length", d.d_model},
        {"bert.feed_forward_length", d.rows("blocks.0.channel.up.weight")},
        {"bert.attention.head_count", d.blocks[0].mixer.at("heads")},
        {"bert.vocab_size", d.vocab},
        {"bert.pooling_type", 1},
        {"tokenizer.ggml.token_type_count", std::max<int64_t>(1, d.token_types)}};
    for (const auto& [key, n] : sizes) m.set(key, Value::of(static_cast<uint32_t>(n)));
    m.set("bert.attention.causal", Value::of(false));
    m.set("bert.attention.layer_norm_epsilon", Value::of(d.embedding_norm.at("epsilon").get<float>()));
    return m;
  }

  std::vector<TensorRule> rules(const Described& d, Layout layout, const std::string&) const override {
    const bool hf = layout == Layout::huggingface;
    std::vector<TensorRule> all;
    // Old files call the parts of a norm gamma and beta.
    const auto add = [&](const std::string& theirs, const std::string& ours, const std::string& old = "") {
      if (d.shapes.count(ours)) all.push_back({theirs, {ours}, {}, 0, {}, old});
    };
    const auto norm = [&](const std::string& theirs, const std::string& ours) {
      add(theirs + ".weight", ours + ".weight", theirs + ".gamma");
      add(theirs + ".bias", ours + ".bias", theirs + ".beta");
    };
    add(hf ? "bert.embeddings.word_embeddings.weight" : "token_embd.weight", "embedding.weight");
    add(hf ? "bert.embeddings.position_embeddings.weight" : "position_embd.weight", "positions.weight");
    add(hf ? "bert.embeddings.token_type_embeddings.weight" : "token_types.weight", "token_types.weight");
    norm(hf ? "bert.embeddings.LayerNorm" : "token_embd_norm", "embedding_norm");
    for (size_t i = 0; i < d.blocks.size(); ++i) {
      const std::string at = fmt::format(fmt::runtime(hf ? "bert.encoder.layer.{}." : "blk.{}."), i),
                        block = fmt::format("blocks.{}.", i);
      for (const char* part : {".weight", ".bias"}) {
        add(at + (hf ? "attention.self.query" : "attn_q") + part, block + "mixer.q" + part);
        add(at + (hf ? "attention.self.key" : "attn_k") + part, block + "mixer.k" + part);
        add(at + (hf ? "attention.self.value" : "attn_v") + part, block + "mixer.v" + part);
        add(at + (hf ? "attention.output.dense" : "attn_output") + part, block + "mixer.out" + part);
        add(at + (hf ? "intermediate.dense" : "ffn_up") + part, block + "channel.up" + part);
        add(at + (hf ? "output.dense" : "ffn_down") + part, block + "channel.down" + part);
      }
      norm(at + (hf ? "attention.output.LayerNorm" : "attn_output_norm"), block + "mixer_norm");
      norm(at + (hf ? "output.LayerNorm" : "layer_output_norm"), block + "channel_norm");
    }
    return all;
  }

  // The heads of its training tasks, and the numbers of the positions.
  bool ignores(const std::string& theirs) const override {
    return theirs.find("pooler.") != theirs.npos || theirs.starts_with("cls.") || theirs.starts_with("classifier.") ||
           theirs.ends_with("embeddings.position_ids");
  }
};

}  // namespace

void register_bert(Registry<Family>& r) {
  r.add<Bert>("bert");
}

}  // namespace sennit::families
