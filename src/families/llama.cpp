// LLaMA: Open and Efficient Foundation Language Models (Touvron et al., arXiv:2302.13971) and those with its layers:
// Llama 2 and 3, Mistral (arXiv:2310.06825), Qwen2 (arXiv:2407.10671), Qwen3 (arXiv:2505.09388).
#include <algorithm>

#include "families/rope_settings.h"

namespace sennit::families {
namespace {

using Value = io::GgufValue;
using Change = TensorRule::Change;

struct Llama : Family {
  struct Options {
    Fields fields() { return {}; }
  };
  static Info info() {
    return {"Llama, Mistral, Qwen2, Qwen3",
            "arXiv:2302.13971",
            {"llama", "mistral", "qwen2", "qwen3"},
            {"llama", "qwen2", "qwen3"}};
  }
  Llama(const Dims&, const Options&, Rng) {}

  static Json model_file(int64_t vocab, int64_t d_model, bool tied, const Json& norm) {
    return Json{
        {"vocab", vocab}, {"d_model", d_model}, {"tie_embeddings", tied}, {"norm", norm}, {"blocks", Json::array()}};
  }

  // Which layers see a window only: those that layer_types says, else those from max_window_layers on.
  static std::vector<bool> windowed(Config& c, const std::string& type, int64_t layers) {
    std::vector<bool> all(layers, false);
    const bool qwen = type == "qwen2" || type == "qwen3";
    if (const Json* types = c.part("layer_types")) {
      if (!types->is_array() || std::ssize(*types) != layers)
        c.refuse("layer_types", fmt::format("a list of {} names", layers));
      for (int64_t i = 0; i < layers; ++i) {
        all[i] = (*types)[i] == "sliding_attention";
        if (!all[i] && (*types)[i] != "full_attention")
          c.refuse("layer_types", "sliding_attention or full_attention everywhere");
      }
    } else if (qwen) {
      const int64_t first = c.integer("max_window_layers", 28);
      for (int64_t i = 0; i < layers; ++i) all[i] = i >= first;
    } else {
      all.assign(layers, type == "mistral");
    }
    if (qwen && !c.flag("use_sliding_window", false)) all.assign(layers, false);
    return all;
  }

  Json from_config(Config& c) const override {
    const std::string type = c.text("model_type", "");
    const int64_t heads = c.integer("num_attention_heads"), d_model = c.integer("hidden_size"),
                  layers = c.integer("num_hidden_layers");
    if (heads < 1) c.refuse("num_attention_heads", "at least 1");
    if (layers < 1 || layers > 4096) c.refuse("num_hidden_layers", "from 1 to 4096");
    if (c.text("hidden_act", "silu") != "silu") c.refuse("hidden_act", "silu");
    if (c.flag("mlp_bias", false)) c.refuse("mlp_bias", "false");
    const double epsilon = c.number("rms_norm_eps", 1e-6);
    const Json norm{{"name", "rmsnorm"}, {"epsilon", epsilon}};
    const bool every_bias = c.flag("attention_bias", false);
    Json mixer{{"name", "softmax"},
               {"heads", heads},
               {"kv_heads", c.integer("num_key_value_heads", heads)},
               {"head_dim", c.integer("head_dim", d_model / heads)},
               {"bias", every_bias || type == "qwen2"},
               {"out_bias", every_bias},
               {"position", rope_from_config(c)}};
    if (type == "qwen3") mixer["qk_norm"] = true, mixer["norm_epsilon"] = epsilon;
    const Json channel{{"name", "swiglu"}, {"hidden", c.integer("intermediate_size")}};
    Json file = model_file(c.integer("vocab_size"), d_model, c.flag("tie_word_embeddings", false), norm);
    const int64_t window = c.integer("sliding_window", 0);
    for (const bool narrow : windowed(c, type, layers)) {
      mixer["window"] = narrow ? window : 0;
      file["blocks"].push_back({{"mixer", mixer}, {"channel", channel}, {"norm", norm}});
    }
    return file;
  }

  Json from_gguf(const io::GgufFile& file) const override {
    const io::GgufMetadata& m = file.metadata();
    const std::string arch = m.text("general.architecture");
    const auto key = [&](const char* name) { return arch + "." + name; };
    if (m.integer(key("expert_count"), 0) > 0)
      fail({"GGUF", "a model without experts", key("expert_count"), file.path()});
    const int64_t heads = m.integer(key("attention.head_count")), d_model = m.integer(key("embedding_length"));
    if (heads < 1) fail({"GGUF", "at least one head", fmt::format("{}", heads), file.path()});
    const int64_t layers = m.integer(key("block_count"));
    if (layers < 1 || layers > 4096)
      fail({"GGUF", fmt::format("`{}` from 1 to 4096", key("block_count")), fmt::format("{}", layers), file.path()});
    const double epsilon = m.number(key("attention.layer_norm_rms_epsilon"));
    const Json norm{{"name", "rmsnorm"}, {"epsilon", epsilon}};
    Json mixer{{"name", "softmax"},
               {"heads", heads},
               {"kv_heads", m.integer(key("attention.head_count_kv"), heads)},
               {"head_dim", m.integer(key("attention.key_length"), d_model / heads)},
               {"window", m.integer(key("attention.sliding_window"), 0)},
               {"bias", file.find("blk.0.attn_q.bias") != nullptr},
               {"out_bias", file.find("blk.0.attn_output.bias") != nullptr},
               {"position", rope_from_gguf(file, arch)}};
    if (arch == "qwen3") mixer["qk_norm"] = true, mixer["norm_epsilon"] = epsilon;
    Json out = model_file(file.tensor("token_embd.weight").shape[0], d_model, !file.find("output.weight"), norm);
    const Json channel{{"name", "swiglu"}, {"hidden", m.integer(key("feed_forward_length"))}};
    out["blocks"].push_back({{"repeat", layers}, {"mixer", mixer}, {"channel", channel}, {"norm", norm}});
    return out;
  }

  // Throws Error unless every block is of this family and like the first but for its window.
  static void check(const Described& d) {
    require_plain("llama", d);
    Json first = d.blocks[0].mixer;
    for (const auto& b : d.blocks) {
      Json mixer = b.mixer;
      mixer["window"] = first["window"];
      require("llama", "block", "prenorm", b.block.at("name"));
      require("llama", "mixer", "softmax", mixer.at("name"));
      require("llama", "gate", false, mixer.at("gate"));
      require("llama", "position", "rope", mixer.at("position").at("name"));
      require("llama", "fraction", 1.0, mixer.at("position").at("fraction"));
      require("llama", "norm", "rmsnorm", b.norm.at("name"));
      require("llama", "channel", "swiglu", b.channel.at("name"));
      require("llama", "the same mixer in each block:", first, mixer);
      require("llama", "the same norm in each block:", d.norm, b.norm);
    }
    if (first.at("qk_norm") == true) require("llama", "norm_epsilon", d.norm.at("epsilon"), first.at("norm_epsilon"));
  }

  static int64_t head_dim(const Described& d) {
    return d.rows("blocks.0.mixer.q.weight") / d.blocks[0].mixer.at("heads").get<int64_t>();
  }
  static int64_t kv_heads(const Described& d) { return d.rows("blocks.0.mixer.k.weight") / head_dim(d); }

  static std::string model_type(const Described& d) {
    const Json& mixer = d.blocks[0].mixer;
    const bool bias = mixer.at("bias"), out_bias = mixer.at("out_bias");
    const bool narrow =
        std::any_of(d.blocks.begin(), d.blocks.end(), [](const auto& b) { return b.mixer.at("window") != 0; });
    if (mixer.at("qk_norm") == true) {
      require("llama", "out_bias", bias, out_bias);
      return "qwen3";
    }
    if (bias && !out_bias) return "qwen2";
    require("llama", "out_bias", bias, out_bias);
    if (narrow && bias) fail({"family llama", "a window or biases", "both"});
    return narrow ? "mistral" : "llama";
  }

  Json to_config(const Described& d) const override {
    check(d);
    const Json& mixer = d.blocks[0].mixer;
    const std::string type = model_type(d);
    const char* architecture = type == "llama"     ? "LlamaForCausalLM"
                               : type == "mistral" ? "MistralForCausalLM"
                               : type == "qwen2"   ? "Qwen2ForCausalLM"
                                                   : "Qwen3ForCausalLM";
    Json c{{"architectures", {architecture}},
           {"model_type", type},
           {"vocab_size", d.vocab},
           {"hidden_size", d.d_model},
           {"intermediate_size", d.rows("blocks.0.channel.gate.weight")},
           {"num_hidden_layers", d.blocks.size()},
           {"num_attention_heads", mixer.at("heads")},
           {"num_key_value_heads", kv_heads(d)},
           {"head_dim", head_dim(d)},
           {"hidden_act", "silu"},
           {"rms_norm_eps", d.norm.at("epsilon")},
           {"tie_word_embeddings", d.tied}};
    if (type == "llama" || type == "qwen3") c["attention_bias"] = mixer.at("bias");
    rope_to_config(mixer.at("position"), d.context_length, c);
    windows_to_config(d, type, c);
    return c;
  }

  static void windows_to_config(const Described& d, const std::string& type, Json& c) {
    int64_t window = 0;
    Json types = Json::array();
    for (const auto& b : d.blocks) {
      const int64_t w = b.mixer.at("window");
      if (w && window && w != window) fail({"family llama", "one size of window", fmt::format("{} and {}", window, w)});
      window = std::max(window, w);
      types.push_back(w ? "sliding_attention" : "full_attention");
    }
    c["sliding_window"] = window ? Json(window) : Json(nullptr);
    if (type == "mistral" && std::count(types.begin(), types.end(), types[0]) != std::ssize(types))
      fail({"family llama", "a window in every block", "some without"});
    if (window && type != "mistral") c["use_sliding_window"] = true, c["layer_types"] = types;
  }

  io::GgufMetadata to_gguf(const Described& d) const override {
    check(d);
    const Json& mixer = d.blocks[0].mixer;
    const std::string type = model_type(d), arch = type == "mistral" ? "llama" : type;
    if (type == "qwen3") require("llama", "bias", false, mixer.at("bias"));
    io::GgufMetadata m;
    m.set("general.architecture", Value::of(arch));
    const auto set = [&](const char* name, int64_t n) {
      m.set(arch + "." + name, Value::of(static_cast<uint32_t>(n)));
    };
    set("block_count", std::ssize(d.blocks));
    set("context_length", d.context_length);
    set("embedding_length", d.d_model);
    set("feed_forward_length", d.rows("blocks.0.channel.gate.weight"));
    set("attention.head_count", mixer.at("heads"));
    set("attention.head_count_kv", kv_heads(d));
    set("attention.key_length", head_dim(d));
    set("attention.value_length", head_dim(d));
    set("rope.dimension_count", head_dim(d));
    set("vocab_size", d.vocab);
    for (const auto& b : d.blocks) require("llama", "window", mixer.at("window"), b.mixer.at("window"));
    if (mixer.at("window") != 0) set("attention.sliding_window", mixer.at("window"));
    m.set(arch + ".attention.layer_norm_rms_epsilon", Value::of(d.norm.at("epsilon").get<float>()));
    rope_to_gguf(mixer.at("position"), arch, m);
    return m;
  }

  std::vector<io::NamedStored> gguf_extras(const Described& d) const override {
    return rope_extras(d.blocks[0].mixer.at("position"), head_dim(d));
  }

  std::vector<TensorRule> rules(const Described& d, Layout layout, const std::string& target) const override {
    const bool hf = layout == Layout::huggingface;
    const Json& mixer = d.blocks[0].mixer;
    const bool ours = mixer.at("position").at("interleaved"), wanted = layout == Layout::gguf && target == "llama";
    const Change turn = ours == wanted ? Change::none : wanted ? Change::interleaved : Change::separated;
    const std::pair<int64_t, int64_t> counts{mixer.at("heads"), kv_heads(d)};
    std::vector<TensorRule> all = {{hf ? "model.embed_tokens.weight" : "token_embd.weight", {"embedding.weight"}}};
    const auto add = [&](const std::string& theirs, const std::string& name, Change change = Change::none,
                         int64_t heads = 0) {
      if (d.shapes.count(name)) all.push_back({theirs, {name}, change, heads});
    };
    for (size_t i = 0; i < d.blocks.size(); ++i) {
      const std::string block = fmt::format("blocks.{}.", i),
                        at = hf ? fmt::format("model.layers.{}.", i) : fmt::format("blk.{}.", i);
      add(at + (hf ? "input_layernorm.weight" : "attn_norm.weight"), block + "mixer_norm.weight");
      for (const char* part : {".weight", ".bias"}) {
        add(at + (hf ? "self_attn.q_proj" : "attn_q") + part, block + "mixer.q" + part, turn, counts.first);
        add(at + (hf ? "self_attn.k_proj" : "attn_k") + part, block + "mixer.k" + part, turn, counts.second);
        add(at + (hf ? "self_attn.v_proj" : "attn_v") + part, block + "mixer.v" + part);
        add(at + (hf ? "self_attn.o_proj" : "attn_output") + part, block + "mixer.out" + part);
      }
      add(at + (hf ? "self_attn.q_norm.weight" : "attn_q_norm.weight"), block + "mixer.q_norm", turn, 1);
      add(at + (hf ? "self_attn.k_norm.weight" : "attn_k_norm.weight"), block + "mixer.k_norm", turn, 1);
      add(at + (hf ? "post_attention_layernorm.weight" : "ffn_norm.weight"), block + "channel_norm.weight");
      for (const char* part : {"gate", "up", "down"})
        add(at + fmt::format(fmt::runtime(hf ? "mlp.{}_proj.weight" : "ffn_{}.weight"), part),
            block + "channel." + part + ".weight");
    }
    add(hf ? "model.norm.weight" : "output_norm.weight", "norm.weight");
    add(hf ? "lm_head.weight" : "output.weight", "head.weight");
    return all;
  }

  bool ignores(const std::string& theirs) const override {
    return theirs.ends_with("rotary_emb.inv_freq") || theirs == "rope_freqs.weight" ||
           theirs.starts_with("rope_factors_");
  }
};

}  // namespace

void register_llama(Registry<Family>& r) {
  r.add<Llama>("llama");
}

}  // namespace sennit::families
