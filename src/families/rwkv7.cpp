// RWKV-7 "Goose" (Peng et al., arXiv:2503.14456), as flash-linear-attention lays it out. A layer of theirs is two
// blocks of ours: time mixing, and channel mixing, which looks at the token before and so is a mixer here.
#include "families/family.h"

namespace sennit::families {
namespace {

using Value = io::GgufValue;

// Their letters for the six mixed rows, in the order in which GGUF stacks them, and our names.
constexpr std::pair<const char*, const char*> kMixed[] = {{"r", "r"}, {"w", "decay"}, {"k", "k"},
                                                          {"v", "v"}, {"a", "rate"},  {"g", "gate"}};

struct Settings {
  int64_t vocab, d_model, layers, heads, hidden;
  int64_t decay_rank, rate_rank, gate_rank, value_rank;
  bool tied;
  double epsilon, head_epsilon;
};

struct Rwkv7 : Family {
  struct Options {
    Fields fields() { return {}; }
  };
  static Info info() { return {"RWKV-7", "arXiv:2503.14456", {"rwkv7", "rwkv7_fla"}, {"rwkv7"}}; }
  Rwkv7(const Dims&, const Options&, Rng) {}

  static Json model_file(const Settings& s) {
    const Json norm{{"name", "layernorm"}, {"epsilon", s.epsilon}};
    const Json time{{"name", "rwkv7"},
                    {"heads", s.heads},
                    {"decay_rank", s.decay_rank},
                    {"rate_rank", s.rate_rank},
                    {"gate_rank", s.gate_rank},
                    {"value_rank", s.value_rank},
                    {"norm_epsilon", s.head_epsilon}};
    const Json channel{{"name", "shifted_mlp"}, {"hidden", s.hidden}};
    Json blocks = Json::array();
    for (int64_t i = 0; i < s.layers; ++i)
      for (const Json& mixer : {time, channel})
        blocks.push_back({{"mixer", mixer}, {"channel", "none"}, {"norm", norm}});
    return Json{{"vocab", s.vocab}, {"d_model", s.d_model},   {"tie_embeddings", s.tied},
                {"norm", norm},     {"embedding_norm", norm}, {"blocks", blocks}};
  }

  Json from_config(Config& c) const override {
    Settings s{};
    s.vocab = c.integer("vocab_size"), s.d_model = c.integer("hidden_size"), s.layers = c.integer("num_hidden_layers");
    if (s.d_model < 1) c.refuse("hidden_size", "at least 1");
    if (s.layers < 1 || s.layers > 2048) c.refuse("num_hidden_layers", "from 1 to 2048");
    const int64_t head_dim = c.has("num_heads") && !c.has("head_dim")
                                 ? s.d_model / std::max<int64_t>(1, c.integer("num_heads"))
                                 : c.integer("head_dim", 64);
    c.part("num_heads");
    if (head_dim < 1 || s.d_model % head_dim) c.refuse("head_dim", fmt::format("a divisor of {}", s.d_model));
    s.heads = s.d_model / head_dim;
    const double ratio = c.number("hidden_ratio", 4);
    s.hidden =
        c.integer("intermediate_size", (static_cast<int64_t>(ratio * static_cast<double>(s.d_model)) + 31) / 32 * 32);
    s.decay_rank = c.integer("decay_low_rank_dim", 64), s.gate_rank = c.integer("gate_low_rank_dim", 128);
    s.rate_rank = c.integer("a_low_rank_dim", 64), s.value_rank = c.integer("v_low_rank_dim", 16);
    s.tied = c.flag("tie_word_embeddings", false), s.epsilon = c.number("norm_eps", 1e-5);
    s.head_epsilon = static_cast<double>(head_dim) * s.epsilon;
    if (!c.flag("norm_first", true)) c.refuse("norm_first", "true");
    if (!c.flag("norm_bias", true)) c.refuse("norm_bias", "true");
    if (c.text("hidden_act", "sqrelu") != "sqrelu") c.refuse("hidden_act", "sqrelu");
    if (c.part("attn")) c.refuse("attn", "absent: layers of attention are not known in this family");
    check_values(c, s.d_model);
    for (const char* how : {"attn_mode", "fuse_norm", "fuse_cross_entropy", "fuse_linear_cross_entropy", "use_l2warp",
                            "max_position_embeddings"})
      c.part(how);
    return model_file(s);
  }

  // value_dim: one number, or one for each layer.
  static void check_values(Config& c, int64_t d_model) {
    const Json* dims = c.part("value_dim");
    if (!dims) return;
    for (const Json& n : dims->is_array() ? *dims : Json::array({*dims}))
      if (n != d_model) c.refuse("value_dim", fmt::format("{} in every layer", d_model));
  }

  Json from_gguf(const io::GgufFile& file) const override {
    const io::GgufMetadata& m = file.metadata();
    Settings s{};
    s.vocab = file.tensor("token_embd.weight").shape[0];
    s.d_model = m.integer("rwkv7.embedding_length"), s.layers = m.integer("rwkv7.block_count");
    const int64_t head_dim = m.integer("rwkv7.wkv.head_size");
    if (s.d_model < 1 || s.layers < 1 || s.layers > 2048 || head_dim < 1 || s.d_model % head_dim)
      fail({"GGUF", "embedding_length, a multiple of wkv.head_size, and block_count from 1 to 2048",
            fmt::format("{}, {} and {}", s.d_model, head_dim, s.layers), file.path()});
    s.heads = s.d_model / head_dim, s.hidden = m.integer("rwkv7.feed_forward_length");
    s.decay_rank = m.integer("rwkv7.attention.decay_lora_rank"),
    s.rate_rank = m.integer("rwkv7.attention.iclr_lora_rank");
    s.gate_rank = m.integer("rwkv7.attention.gate_lora_rank"),
    s.value_rank = m.integer("rwkv7.attention.value_residual_mix_lora_rank");
    s.tied = !file.find("output.weight"), s.epsilon = m.number("rwkv7.attention.layer_norm_epsilon"),
    s.head_epsilon = kHeadEpsilon;
    return model_file(s);
  }

  static void check(const Described& d) {
    require("rwkv7", "learned_positions", 0, d.learned_positions);
    require("rwkv7", "token_types", 0, d.token_types);
    require("rwkv7", "a pattern that is causal:", true, d.causal);
    require("rwkv7", "embedding_norm", d.norm, d.embedding_norm);
    require("rwkv7", "pairs of blocks; those left over:", 0, d.blocks.size() % 2);
    for (size_t i = 0; i < d.blocks.size(); ++i) {
      const auto& b = d.blocks[i];
      require("rwkv7", "block", "prenorm", b.block.at("name"));
      require("rwkv7", "mixer", i % 2 ? "shifted_mlp" : "rwkv7", b.mixer.at("name"));
      require("rwkv7", "channel", "none", b.channel.at("name"));
      require("rwkv7", "norm", "layernorm", b.norm.at("name"));
      require("rwkv7", "bias of the norm", true, b.norm.at("bias"));
      require("rwkv7", "the same mixer in each block of a kind:", d.blocks[i % 2].mixer, b.mixer);
      require("rwkv7", "the same norm in each block:", d.norm, b.norm);
    }
    if (d.blocks[0].mixer.at("value_rank") == 0) fail({"family rwkv7", "value_rank of at least 1", "0"});
  }
  static int64_t head_dim(const Described& d) { return d.d_model / d.blocks[0].mixer.at("heads").get<int64_t>(); }

  Json to_config(const Described& d) const override {
    check(d);
    const Json& time = d.blocks[0].mixer;
    const double epsilon = d.norm.at("epsilon");
    require("rwkv7", "norm_epsilon of the heads", static_cast<double>(head_dim(d)) * epsilon, time.at("norm_epsilon"));
    return Json{{"architectures", {"RWKV7ForCausalLM"}},
                {"model_type", "rwkv7"},
                {"vocab_size", d.vocab},
                {"hidden_size", d.d_model},
                {"intermediate_size", d.rows("blocks.1.mixer.up.weight")},
                {"num_hidden_layers", d.blocks.size() / 2},
                {"head_dim", head_dim(d)},
                {"decay_low_rank_dim", time.at("decay_rank")},
                {"gate_low_rank_dim", time.at("gate_rank")},
                {"a_low_rank_dim", time.at("rate_rank")},
                {"v_low_rank_dim", time.at("value_rank")},
                {"hidden_act", "sqrelu"},
                {"norm_first", true},
                {"norm_bias", true},
                {"norm_eps", epsilon},
                {"tie_word_embeddings", d.tied}};
  }

  io::GgufMetadata to_gguf(const Described& d) const override {
    check(d);
    const Json& time = d.blocks[0].mixer;
    require("rwkv7", "norm_epsilon of the heads", kHeadEpsilon, time.at("norm_epsilon"));
    require("rwkv7", "tie_embeddings", false, d.tied);
    io::GgufMetadata m;
    m.set("general.architecture", Value::of("rwkv7"));
    const std::pair<const char*, int64_t> sizes[] = {
        {"block_count", std::ssize(d.blocks) / 2},
        {"context_length", 1 << 20},  // it has no limit; readers want a number
        {"embedding_length", d.d_model},
        {"feed_forward_length", d.rows("blocks.1.mixer.up.weight")},
        {"attention.head_count", 0},
        {"wkv.head_size", head_dim(d)},
        {"attention.decay_lora_rank", time.at("decay_rank")},
        {"attention.iclr_lora_rank", time.at("rate_rank")},
        {"attention.value_residual_mix_lora_rank", time.at("value_rank")},
        {"attention.gate_lora_rank", time.at("gate_rank")},
        {"token_shift_count", 2},
        {"vocab_size", d.vocab}};
    for (const auto& [name, n] : sizes) m.set(fmt::format("rwkv7.{}", name), Value::of(static_cast<uint32_t>(n)));
    m.set("rwkv7.attention.layer_norm_epsilon", Value::of(d.norm.at("epsilon").get<float>()));
    return m;
  }

  // llama.cpp wants the first layer to have the map of values that only others use.
  std::vector<io::NamedStored> gguf_extras(const Described& d) const override {
    const int64_t rank = d.blocks[0].mixer.at("rate_rank");
    std::vector<io::NamedStored> all;
    for (const auto& [part, shape] :
         {std::pair{"v0", Shape{d.d_model}}, {"v1", Shape{rank, d.d_model}}, {"v2", Shape{d.d_model, rank}}})
      all.push_back({fmt::format("blk.0.time_mix_{}.weight", part), io::stored(Tensor::zeros(shape))});
    return all;
  }
  bool ignores(const std::string& theirs) const override {
    return theirs.starts_with("blk.0.time_mix_v0") || theirs.starts_with("blk.0.time_mix_v1") ||
           theirs.starts_with("blk.0.time_mix_v2");
  }

  std::vector<TensorRule> rules(const Described& d, Layout layout, const std::string&) const override {
    const bool hf = layout == Layout::huggingface;
    std::vector<TensorRule> all = {{hf ? "model.embeddings.weight" : "token_embd.weight", {"embedding.weight"}}};
    for (const char* part : {".weight", ".bias"}) {
      all.push_back({std::string(hf ? "model.layers.0.pre_norm" : "token_embd_norm") + part,
                     {std::string("embedding_norm") + part}});
      all.push_back({std::string(hf ? "model.norm" : "output_norm") + part, {std::string("norm") + part}});
    }
    if (!d.tied) all.push_back({hf ? "lm_head.weight" : "output.weight", {"head.weight"}});
    for (size_t i = 0; i < d.blocks.size() / 2; ++i) layer_rules(d, i, hf, all);
    return all;
  }

  static void layer_rules(const Described& d, size_t i, bool hf, std::vector<TensorRule>& all) {
    const std::string at = fmt::format(fmt::runtime(hf ? "model.layers.{}." : "blk.{}."), i),
                      time = at + (hf ? "attn." : "time_mix_");
    const std::string first = fmt::format("blocks.{}.", 2 * i), second = fmt::format("blocks.{}.", 2 * i + 1),
                      ours = first + "mixer.";
    const int64_t width = d.d_model, heads = d.blocks[0].mixer.at("heads");
    const auto add = [&](const std::string& theirs, const std::string& name, Shape shape = {}) {
      all.push_back({theirs, {name}, {}, 0, shape});
    };
    for (const char* part : {".weight", ".bias"}) {
      add(at + (hf ? "attn_norm" : "attn_norm") + part, first + "mixer_norm" + part);
      add(at + (hf ? "ffn_norm" : "attn_norm_2") + part, second + "mixer_norm" + part);
      add(time + (hf ? "g_norm" : "ln") + part, ours + (part == std::string(".bias") ? "norm_bias" : "norm"));
    }
    std::vector<std::string> mixes;
    for (const auto& [theirs, name] : kMixed) mixes.push_back(ours + "mix_" + name);
    if (hf)
      for (size_t k = 0; k < mixes.size(); ++k) add(time + "x_" + kMixed[k].first, mixes[k], {1, 1, width});
    else
      all.push_back({time + "lerp_fused.weight", mixes, {}, 0, Shape{6, 1, 1, width}});
    for (const auto& [theirs, name] : {std::pair{"k_k", "removed"}, {"k_a", "replaced"}})
      add(time + theirs + (hf ? "" : ".weight"), ours + name);
    add(time + (hf ? "r_k" : "r_k.weight"), ours + "bonus", hf ? Shape{heads, width / heads} : Shape{});
    for (const auto& [theirs, long_name, name] :
         {std::tuple{"r", "receptance", "r"}, {"k", "key", "k"}, {"v", "value", "v"}, {"o", "output", "out"}})
      add(time + (hf ? fmt::format("{}_proj.weight", theirs) : fmt::format("{}.weight", long_name)),
          ours + name + ".weight");
    for (const auto& [letter, name] : {std::pair{"w", "decay"}, {"a", "rate"}, {"v", "value"}, {"g", "gate"}}) {
      const std::string down = letter == std::string("v") ? "value_down" : name, up = fmt::format("{}_up", name);
      if (!d.shapes.count(ours + down + ".weight")) continue;
      add(time + (hf ? fmt::format("{}_lora.lora.0.weight", letter) : fmt::format("{}1.weight", letter)),
          ours + down + ".weight");
      add(time + (hf ? fmt::format("{}_lora.lora.2.weight", letter) : fmt::format("{}2.weight", letter)),
          ours + up + ".weight");
      if (letter != std::string("g"))
        add(time + (hf ? fmt::format("{}_lora.lora.2.bias", letter) : fmt::format("{}0.weight", letter)),
            ours + up + ".bias");
    }
    const std::string channel = at + (hf ? "ffn." : "channel_mix_");
    add(channel + (hf ? "x_k" : "lerp_k.weight"), second + "mixer.mix", hf ? Shape{} : Shape{1, 1, width});
    add(channel + "key.weight", second + "mixer.up.weight");
    add(channel + "value.weight", second + "mixer.down.weight");
  }

 private:
  static constexpr double kHeadEpsilon = 64e-5;  // llama.cpp's, whatever the size of a head
};

}  // namespace

void register_rwkv7(Registry<Family>& r) {
  r.add<Rwkv7>("rwkv7");
}

}  // namespace sennit::families
