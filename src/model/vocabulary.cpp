#include "model/vocabulary.h"

#include "tokenizers/byte_level.h"
#include "tokenizers/gguf_vocabulary.h"

namespace sennit {
namespace {

using Value = io::GgufValue;

// GGUF's kinds of token.
enum Kind : int64_t { normal = 1, unknown = 2, control = 3, unused = 5, byte = 6 };

Kind kind_of(const tokenizers::Tokenizer& t, int32_t id, const std::string& piece) {
  if (t.special().contains(id)) return control;
  if (id == t.special().unk) return unknown;
  return piece.size() == 6 && piece.starts_with("<0x") && piece.ends_with(">") ? byte : normal;
}

// Whether a text is read as if a space stood before it.
bool adds_space(const tokenizers::Tokenizer& t) {
  const auto ids = t.encode("a");
  return !ids.empty() && t.piece(ids[0]).starts_with("\u2581");
}

tokenizers::GgufVocabulary rwkv_vocabulary(const tokenizers::Tokenizer& t) {
  tokenizers::GgufVocabulary v{.model = "rwkv"};
  for (int32_t id = 0; id < t.vocab_size(); ++id) {
    v.tokens.push_back(t.piece(id));
    v.types.push_back(static_cast<int32_t>(id == 0 ? control : t.is_special(id) ? unused : normal));
  }
  v.bos = v.eos = 0;
  return v;
}

// Bytes as GPT-2 writes them, none of which is merged with another.
tokenizers::GgufVocabulary bytes_vocabulary(const tokenizers::Tokenizer& t) {
  tokenizers::GgufVocabulary v{.model = "gpt2", .pre = "gpt-2"};
  for (int32_t id = 0; id < t.vocab_size(); ++id) {
    const bool end = t.special().contains(id);
    v.tokens.push_back(end ? t.piece(id) : tokenizers::byte_level::to_chars(t.bytes(id)));
    v.types.push_back(static_cast<int32_t>(end ? control : normal));
  }
  v.eos = t.special().eos;
  v.add_bos = v.add_eos = false;
  return v;
}

}  // namespace

io::GgufMetadata gguf_vocabulary(const tokenizers::Tokenizer* t, int64_t vocab) {
  if (t && t->name() == "bytes") return gguf_vocabulary(bytes_vocabulary(*t), vocab);
  if (t && t->name() == "rwkv") return gguf_vocabulary(rwkv_vocabulary(*t), vocab);
  io::GgufMetadata m;
  const bool known = t && t->name() == "sentencepiece";
  m.set("tokenizer.ggml.model", Value::of(known ? "llama" : "none"));
  if (!known) return m;
  std::vector<std::string> tokens;
  std::vector<double> scores;
  std::vector<int64_t> kinds;
  for (int32_t id = 0; id < vocab; ++id) {
    const bool there = id < t->vocab_size();
    tokens.push_back(there ? t->piece(id) : fmt::format("[PAD{}]", id));
    kinds.push_back(there ? kind_of(*t, id, tokens.back()) : unused);
    scores.push_back(-id);  // merges apply in the order of their ids
  }
  m.set("tokenizer.ggml.tokens", Value::of(std::move(tokens)));
  m.set("tokenizer.ggml.scores", Value::list_of(std::move(scores)));
  m.set("tokenizer.ggml.token_type", Value::list_of(io::GgufType::i32, std::move(kinds)));
  const auto set = [&](const char* key, int32_t id) {
    if (id >= 0) m.set(fmt::format("tokenizer.ggml.{}_token_id", key), Value::of(static_cast<uint32_t>(id)));
  };
  const tokenizers::SpecialTokens s = t->special();
  set("bos", s.bos), set("eos", s.eos), set("unknown", s.unk), set("padding", s.pad);
  m.set("tokenizer.ggml.add_bos_token", Value::of(false));
  m.set("tokenizer.ggml.add_eos_token", Value::of(false));
  m.set("tokenizer.ggml.add_space_prefix", Value::of(adds_space(*t)));
  return m;
}

io::GgufMetadata gguf_vocabulary(const tokenizers::GgufVocabulary& v, int64_t vocab) {
  io::GgufMetadata m;
  const auto key = [](const std::string& name) { return "tokenizer.ggml." + name; };
  m.set(key("model"), Value::of(v.model));
  if (!v.pre.empty()) m.set(key("pre"), Value::of(v.pre));
  std::vector<std::string> tokens = v.tokens;
  std::vector<int64_t> types(v.types.begin(), v.types.end());
  std::vector<double> scores(v.scores.begin(), v.scores.end());
  for (int64_t id = std::ssize(tokens); id < vocab; ++id) {
    tokens.push_back(fmt::format("[PAD{}]", id));
    types.push_back(unused);
    if (!scores.empty()) scores.push_back(0);
  }
  m.set(key("tokens"), Value::of(std::move(tokens)));
  m.set(key("token_type"), Value::list_of(io::GgufType::i32, std::move(types)));
  if (!scores.empty()) m.set(key("scores"), Value::list_of(std::move(scores)));
  if (v.model == "gpt2") m.set(key("merges"), Value::of(v.merges));
  for (const auto& [name, id] : {std::pair{"bos", v.bos}, {"eos", v.eos}, {"unknown", v.unk}, {"padding", v.pad}})
    if (id >= 0) m.set(key(fmt::format("{}_token_id", name)), Value::of(static_cast<uint32_t>(id)));
  if (v.model == "bert" && v.eos >= 0)  // spelled as its readers spell it
    m.set(key("seperator_token_id"), Value::of(static_cast<uint32_t>(v.eos)));
  for (const auto& [name, flag] :
       {std::pair{"add_bos_token", v.add_bos}, {"add_eos_token", v.add_eos}, {"add_space_prefix", v.add_space_prefix}})
    if (flag) m.set(key(name), Value::of(*flag));
  if (!v.precompiled_charsmap.empty()) {
    std::vector<int64_t> bytes;
    for (const char c : v.precompiled_charsmap) bytes.push_back(static_cast<int64_t>(static_cast<uint8_t>(c)));
    m.set(key("precompiled_charsmap"), Value::list_of(io::GgufType::u8, std::move(bytes)));
  }
  return m;
}

std::unique_ptr<tokenizers::Tokenizer> tokenizer_of(const io::GgufMetadata& m, const std::string& where) {
  const auto key = [](const char* name) { return std::string("tokenizer.ggml.") + name; };
  const auto flag = [&](const char* name) { return m.contains(key(name)) ? std::optional(m.flag(key(name), false)) : std::nullopt; };
  tokenizers::GgufVocabulary v{.model = m.text(key("model"), "none"), .pre = m.text(key("pre"), ""), .tokens = m.texts(key("tokens"))};
  if (v.model == "none") return nullptr;
  v.merges = m.texts(key("merges"));
  for (const double score : m.numbers(key("scores"))) v.scores.push_back(static_cast<float>(score));
  for (const int64_t type : m.integers(key("token_type"))) v.types.push_back(static_cast<int32_t>(type));
  v.bos = m.integer(key("bos_token_id"), -1), v.eos = m.integer(key("eos_token_id"), -1);
  v.unk = m.integer(key("unknown_token_id"), -1), v.pad = m.integer(key("padding_token_id"), -1);
  v.add_bos = flag("add_bos_token"), v.add_eos = flag("add_eos_token"), v.add_space_prefix = flag("add_space_prefix");
  for (const int64_t byte : m.integers(key("precompiled_charsmap"))) v.precompiled_charsmap.push_back(static_cast<char>(byte));
  return tokenizers::tokenizer_of_gguf(v, where);
}

io::GgufMetadata gguf_vocabulary(const io::GgufMetadata& from) {
  io::GgufMetadata m;
  for (const auto& [key, value] : from.entries())
    if (key.starts_with("tokenizer.")) m.set(key, value);
  return m;
}

}  // namespace sennit
