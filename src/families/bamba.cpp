// Bamba, a hybrid of Mamba-2 (Dao & Gu, arXiv:2405.21060) and softmax attention, each followed by a SwiGLU. In GGUF it
// is an architecture "granitehybrid" with rotary positions and without its scales.
#include <algorithm>
#include <cmath>

#include "families/mamba2_settings.h"
#include "families/rope_settings.h"

namespace sennit::families {
namespace {

using Value = io::GgufValue;
using Change = TensorRule::Change;

struct Bamba : Family {
  struct Options {
    Fields fields() { return {}; }
  };
  static Info info() {
    return {"Bamba (hybrid of Mamba-2 and attention)", "arXiv:2405.21060", {"bamba"}, {"granitehybrid"}};
  }
  Bamba(const Dims&, const Options&, Rng) {}

  struct Parts {
    Json attention, mamba;
    std::vector<bool> attends;  // by layer
  };
  static Json model_file(int64_t vocab, int64_t d_model, bool tied, int64_t hidden, const Parts& parts,
                         double epsilon) {
    const Json norm{{"name", "rmsnorm"}, {"epsilon", epsilon}};
    Json blocks = Json::array();
    for (const bool attends : parts.attends)
      blocks.push_back({{"mixer", attends ? parts.attention : parts.mamba},
                        {"channel", {{"name", "swiglu"}, {"hidden", hidden}}},
                        {"norm", norm}});
    return Json{{"vocab", vocab}, {"d_model", d_model}, {"tie_embeddings", tied}, {"norm", norm}, {"blocks", blocks}};
  }

  static std::vector<bool> attending(Config& c, int64_t layers) {
    std::vector<bool> all(static_cast<size_t>(layers), false);
    const Json* list = c.part("attn_layer_indices");
    if (!list) return all;
    if (!list->is_array()) c.refuse("attn_layer_indices", "a list of layers");
    for (const Json& l : *list) {
      if (!l.is_number_integer() || l.get<int64_t>() < 0 || l.get<int64_t>() >= layers)
        c.refuse("attn_layer_indices", fmt::format("numbers below {}", layers));
      all[l.get<size_t>()] = true;
    }
    return all;
  }

  Json from_config(Config& c) const override {
    const int64_t d_model = c.integer("hidden_size"), layers = c.integer("num_hidden_layers"),
                  heads = c.integer("num_attention_heads");
    if (d_model < 1) c.refuse("hidden_size", "at least 1");
    if (layers < 1 || layers > 4096) c.refuse("num_hidden_layers", "from 1 to 4096");
    if (heads < 1) c.refuse("num_attention_heads", "at least 1");
    for (const char* flag : {"mamba_proj_bias", "attention_bias", "mlp_bias"})
      if (c.flag(flag, false)) c.refuse(flag, "false");
    if (!c.flag("mamba_conv_bias", true)) c.refuse("mamba_conv_bias", "true");
    if (c.text("hidden_act", "silu") != "silu") c.refuse("hidden_act", "silu");
    check_time_steps(c);
    for (const char* of_training : {"num_logits_to_keep", "z_loss_coefficient", "attn_rotary_emb"}) c.part(of_training);
    const int64_t mamba_heads = c.integer("mamba_n_heads", 128), inner = c.integer("mamba_expand", 2) * d_model;
    const Json* given = c.part("mamba_d_head");
    const int64_t head_dim =
        !given || *given == "auto" ? inner / std::max<int64_t>(1, mamba_heads) : c.integer("mamba_d_head");
    if (mamba_heads < 1 || head_dim * mamba_heads != inner)
      c.refuse("mamba_n_heads", fmt::format("{} / mamba_d_head", inner));
    const double epsilon = c.number("rms_norm_eps", 1e-5);
    Json position = rope_from_config(c);
    if (!position.contains("fraction")) position["fraction"] = 0.5;
    const Parts parts{{{"name", "softmax"},
                       {"heads", heads},
                       {"kv_heads", c.integer("num_key_value_heads", 8)},
                       {"position", position}},
                      mamba2_mixer(d_model, mamba_heads, head_dim, c.integer("mamba_d_state", 256),
                                   c.integer("mamba_n_groups", 1), c.integer("mamba_d_conv", 4), epsilon),
                      attending(c, layers)};
    return model_file(c.integer("vocab_size"), d_model, c.flag("tie_word_embeddings", false),
                      c.integer("intermediate_size"), parts, epsilon);
  }

  Json from_gguf(const io::GgufFile& file) const override {
    const io::GgufMetadata& m = file.metadata();
    const std::string arch = "granitehybrid.";
    if (m.integer(arch + "expert_count", 0) > 0)
      fail({"GGUF", "a model without experts", arch + "expert_count", file.path()});
    for (const char* scale : {"logit_scale", "residual_scale", "embedding_scale", "attention.scale"})
      if (const double s = m.number(arch + scale, 0); s != 0 && s != 1)
        fail({"GGUF", fmt::format("`{}{}` of 1", arch, scale), fmt::format("{}", s), file.path()});
    const int64_t d_model = m.integer(arch + "embedding_length"), layers = m.integer(arch + "block_count"),
                  heads = m.integer(arch + "attention.head_count");
    if (d_model < 1 || heads < 1 || layers < 1 || layers > 4096)
      fail({"GGUF", "embedding_length and head_count of at least 1, block_count from 1 to 4096",
            fmt::format("{}, {} and {}", d_model, heads, layers), file.path()});
    const double epsilon = m.number(arch + "attention.layer_norm_rms_epsilon");
    const std::vector<int64_t> kv_heads = m.integers(arch + "attention.head_count_kv");
    if (std::ssize(kv_heads) != layers)
      fail({"GGUF", fmt::format("`{}attention.head_count_kv` for each layer", arch),
            fmt::format("{} numbers", kv_heads.size()), file.path()});
    Json position =
        m.flag(arch + "rope.scaling.finetuned", true) ? rope_from_gguf(file, "granitehybrid") : Json("none");
    if (position.is_object())
      position["fraction"] = static_cast<double>(m.integer(arch + "rope.dimension_count", d_model / heads)) *
                             static_cast<double>(heads) / static_cast<double>(d_model);
    Parts parts{{{"name", "softmax"}, {"heads", heads}, {"position", position}},
                mamba2_from_gguf(file, "granitehybrid", d_model, epsilon),
                {}};
    for (const int64_t n : kv_heads) {
      parts.attends.push_back(n > 0);
      if (n > 0) parts.attention["kv_heads"] = n;
    }
    return model_file(file.tensor("token_embd.weight").shape[0], d_model, !file.find("output.weight"),
                      m.integer(arch + "feed_forward_length"), parts, epsilon);
  }

  struct Kinds {
    size_t attention, mamba;  // the first block of each
  };
  static Kinds check(const Described& d) {
    require_plain("bamba", d);
    constexpr size_t kNone = SIZE_MAX;
    Kinds first{kNone, kNone};
    for (size_t i = 0; i < d.blocks.size(); ++i) {
      const auto& b = d.blocks[i];
      require("bamba", "block", "prenorm", b.block.at("name"));
      if (!b.attends())
        require("bamba", "mixer", "mamba2 or softmax",
                b.mixer.at("name") == "mamba2" ? Json("mamba2 or softmax") : b.mixer.at("name"));
      size_t& kind = b.attends() ? first.attention : first.mamba;
      if (kind == kNone) kind = i;
      require("bamba", "the same mixer in each block of a kind:", d.blocks[kind].mixer, b.mixer);
      require("bamba", "channel", "swiglu", b.channel.at("name"));
      require("bamba", "norm", "rmsnorm", b.norm.at("name"));
      require("bamba", "the same norm in each block:", d.norm, b.norm);
    }
    if (first.attention == kNone || first.mamba == kNone)
      fail({"family bamba", "blocks of mamba2 and of softmax", "one kind"});
    const Json& a = d.blocks[first.attention].mixer;
    for (const char* key : {"bias", "out_bias", "gate", "qk_norm"}) require("bamba", key, false, a.at(key));
    require("bamba", "window", 0, a.at("window"));
    require("bamba", "score", "softmax", a.at("score"));
    require("bamba", "position", "rope", a.at("position").at("name"));
    require("bamba", "norm_epsilon", d.norm.at("epsilon"), d.blocks[first.mamba].mixer.at("norm_epsilon"));
    require("bamba", "rows of q", d.d_model, d.rows(fmt::format("blocks.{}.mixer.q.weight", first.attention)));
    return first;
  }
  static int64_t head_dim(const Described& d, size_t attention) {
    return d.d_model / d.blocks[attention].mixer.at("heads").get<int64_t>();
  }
  static int64_t kv_heads(const Described& d, size_t attention) {
    return d.rows(fmt::format("blocks.{}.mixer.k.weight", attention)) / head_dim(d, attention);
  }

  // Numbers of a head that turn.
  static int64_t rotated(const Described& d, size_t attention) {
    const double fraction = d.blocks[attention].mixer.at("position").at("fraction");
    return std::llround(fraction * static_cast<double>(head_dim(d, attention))) / 2 * 2;
  }

  Json to_config(const Described& d) const override {
    const Kinds first = check(d);
    const Json &a = d.blocks[first.attention].mixer, &m = d.blocks[first.mamba].mixer;
    const Mamba2Sizes size = mamba2_sizes(d, first.mamba);
    require("bamba", "a whole mamba_expand; what is left over:", 0, size.inner % d.d_model);
    require("bamba", "fraction", 0.5, a.at("position").at("fraction"));
    Json c{{"architectures", {"BambaForCausalLM"}},
           {"model_type", "bamba"},
           {"vocab_size", d.vocab},
           {"hidden_size", d.d_model},
           {"intermediate_size", d.rows("blocks.0.channel.gate.weight")},
           {"num_hidden_layers", d.blocks.size()},
           {"num_attention_heads", a.at("heads")},
           {"num_key_value_heads", kv_heads(d, first.attention)},
           {"attn_layer_indices", Json::array()},
           {"mamba_n_heads", size.heads},
           {"mamba_d_head", m.at("head_dim")},
           {"mamba_n_groups", m.at("groups")},
           {"mamba_d_state", m.at("state")},
           {"mamba_d_conv", m.at("conv")},
           {"mamba_expand", size.inner / d.d_model},
           {"mamba_conv_bias", true},
           {"mamba_proj_bias", false},
           {"hidden_act", "silu"},
           {"rms_norm_eps", d.norm.at("epsilon")},
           {"tie_word_embeddings", d.tied}};
    for (size_t i = 0; i < d.blocks.size(); ++i)
      if (d.blocks[i].attends()) c["attn_layer_indices"].push_back(i);
    rope_to_config(a.at("position"), d.context_length, c);
    return c;
  }

  io::GgufMetadata to_gguf(const Described& d) const override {
    const Kinds first = check(d);
    const Json& a = d.blocks[first.attention].mixer;
    io::GgufMetadata m;
    m.set("general.architecture", Value::of("granitehybrid"));
    const std::pair<const char*, int64_t> sizes[] = {{"block_count", std::ssize(d.blocks)},
                                                     {"context_length", d.context_length},
                                                     {"embedding_length", d.d_model},
                                                     {"feed_forward_length", d.rows("blocks.0.channel.gate.weight")},
                                                     {"attention.head_count", a.at("heads")},
                                                     {"rope.dimension_count", rotated(d, first.attention)},
                                                     {"vocab_size", d.vocab}};
    for (const auto& [name, n] : sizes)
      m.set(fmt::format("granitehybrid.{}", name), Value::of(static_cast<uint32_t>(n)));
    std::vector<int64_t> kv;
    for (const auto& b : d.blocks) kv.push_back(b.attends() ? kv_heads(d, first.attention) : 0);
    m.set("granitehybrid.attention.head_count_kv", Value::list_of(io::GgufType::u32, std::move(kv)));
    m.set("granitehybrid.attention.layer_norm_rms_epsilon", Value::of(d.norm.at("epsilon").get<float>()));
    m.set("granitehybrid.rope.scaling.finetuned", Value::of(true));
    mamba2_to_gguf(d, first.mamba, "granitehybrid", m);
    rope_to_gguf(a.at("position"), "granitehybrid", m);
    return m;
  }
  std::vector<io::NamedStored> gguf_extras(const Described& d) const override {
    const size_t attention = check(d).attention;
    return rope_extras(d.blocks[attention].mixer.at("position"), head_dim(d, attention));
  }
  bool ignores(const std::string& theirs) const override {
    return theirs.ends_with("rotary_emb.inv_freq") || theirs == "rope_freqs.weight";
  }

  std::vector<TensorRule> rules(const Described& d, Layout layout, const std::string&) const override {
    const bool hf = layout == Layout::huggingface;
    std::vector<TensorRule> all = {{hf ? "model.embed_tokens.weight" : "token_embd.weight", {"embedding.weight"}},
                                   {hf ? "model.final_layernorm.weight" : "output_norm.weight", {"norm.weight"}}};
    if (!d.tied) all.push_back({hf ? "lm_head.weight" : "output.weight", {"head.weight"}});
    for (size_t i = 0; i < d.blocks.size(); ++i) {
      const std::string at = fmt::format(fmt::runtime(hf ? "model.layers.{}." : "blk.{}."), i),
                        block = fmt::format("blocks.{}.", i);
      all.push_back({at + (hf ? "input_layernorm.weight" : "attn_norm.weight"), {block + "mixer_norm.weight"}});
      if (d.blocks[i].attends())
        attention_rules(d, i, at + (hf ? "self_attn." : "attn_"), hf, all);
      else
        mamba2_rules(d, i, at + (hf ? "mamba." : "ssm_"), layout, all);
      all.push_back({at + (hf ? "pre_ff_layernorm.weight" : "ffn_norm.weight"), {block + "channel_norm.weight"}});
      for (const char* part : {"gate", "up", "down"})
        all.push_back({at + fmt::format(fmt::runtime(hf ? "feed_forward.{}_proj.weight" : "ffn_{}.weight"), part),
                       {fmt::format("{}channel.{}.weight", block, part)}});
    }
    return all;
  }

  // GGUF turns neighbours where Hugging Face turns halves.
  static void attention_rules(const Described& d, size_t i, const std::string& prefix, bool hf,
                              std::vector<TensorRule>& all) {
    const Json& mixer = d.blocks[i].mixer;
    const bool neighbours = mixer.at("position").value("interleaved", false);
    const Change turn = neighbours == !hf ? Change::none : hf ? Change::separated : Change::interleaved;
    const std::string ours = fmt::format("blocks.{}.mixer.", i);
    all.push_back({prefix + (hf ? "q_proj.weight" : "q.weight"),
                   {ours + "q.weight"},
                   turn,
                   mixer.at("heads"),
                   {},
                   {},
                   rotated(d, i)});
    all.push_back({prefix + (hf ? "k_proj.weight" : "k.weight"),
                   {ours + "k.weight"},
                   turn,
                   kv_heads(d, i),
                   {},
                   {},
                   rotated(d, i)});
    all.push_back({prefix + (hf ? "v_proj.weight" : "v.weight"), {ours + "v.weight"}});
    all.push_back({prefix + (hf ? "o_proj.weight" : "output.weight"), {ours + "out.weight"}});
  }
};

}  // namespace

void register_bamba(Registry<Family>& r) {
  r.add<Bamba>("bamba");
}

}  // namespace sennit::families
