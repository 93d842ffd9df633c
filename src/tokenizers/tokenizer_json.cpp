#include "tokenizers/tokenizer_json.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/atomic_file.h"
#include "io/checksum.h"
#include "io/json_file.h"
#include "io/mapped_file.h"
#include "tokenizers/added_tokens.h"
#include "tokenizers/decoder.h"
#include "tokenizers/normalizer.h"
#include "tokenizers/post_processor.h"
#include "tokenizers/pre_tokenizer.h"
#include "tokenizers/word_model.h"

namespace sennit::tokenizers {
namespace {

std::unique_ptr<WordModel> make_model(const JsonPart& part, bool bytes, Vocabulary& vocabulary) {
  // Old files leave the type out.
  const std::string type = part.text("type", part.has("merges") ? "BPE" : part.has("unk_id") ? "Unigram" : "WordPiece");
  if (type == "BPE") return make_bpe(part, bytes, vocabulary);
  if (type == "WordPiece") return make_word_piece(part, vocabulary);
  if (type == "WordLevel") return make_word_level(part, vocabulary);
  if (type == "Unigram") return make_unigram(part, vocabulary);
  part.refuse_type({"BPE", "WordPiece", "WordLevel", "Unigram"});
}

std::vector<AddedToken> read_added(const JsonPart& file, Vocabulary& vocabulary) {
  std::vector<AddedToken> tokens;
  if (!file.has("added_tokens")) return tokens;
  for (const JsonPart& p : file.list("added_tokens")) {
    const auto id = p.integer("id", -1, 0, Vocabulary::kMostIds - 1);
    const bool special = p.flag("special", false);
    tokens.push_back({.id = static_cast<int32_t>(id),
                      .content = p.text("content"),
                      .single_word = p.flag("single_word", false),
                      .lstrip = p.flag("lstrip", false),
                      .rstrip = p.flag("rstrip", false),
                      .normalized = p.flag("normalized", !special),
                      .special = special});
    if (tokens.back().content.empty()) p.refuse("content", "a text", "an empty one");
    vocabulary.add(id, tokens.back().content, p.where());
  }
  return tokens;
}

// The token that the configuration names, as a text or as an object with "content"; or the first of `names`.
int32_t find_special(const Json& config, const char* key, std::initializer_list<std::string_view> names,
                     const Vocabulary& vocabulary) {
  const auto it = config.find(key);
  if (it != config.end()) {
    const auto content = it->is_object() ? it->find("content") : it->end();
    const Json& name = it->is_object() && content != it->end() ? *content : *it;
    return name.is_string() ? vocabulary.find(name.get_ref<const std::string&>()) : -1;
  }
  for (const std::string_view name : names)
    if (const int32_t id = vocabulary.find(name); id >= 0) return id;
  return -1;
}

std::string repaired(std::string_view text) {
  Utf8Stream stream;
  std::string out = stream.push(text);
  return out + stream.finish();
}

class TokenizerJson final : public Tokenizer {
 public:
  TokenizerJson(std::string text, std::string config, const std::string& where)
      : text_(std::move(text)), config_(std::move(config)) {
    fingerprint_ = io::xxh64(text_);
    const Json json = io::parse_json(text_, where);
    const JsonPart file(json, where);
    const bool bytes_at_end = file.has("pre_tokenizer") && ends_in_bytes(file.part("pre_tokenizer"));
    const JsonPart model = file.part("model");
    const bool bytes = bytes_at_end && model.text("type", "BPE") == "BPE" && model.has("merges") &&
                       model.text("continuing_subword_prefix", "").empty() &&
                       model.text("end_of_word_suffix", "").empty();
    model_ = make_model(model, bytes, vocabulary_);
    name_ = model.text("type", "tokenizer");
    if (file.has("normalizer")) normalizer_ = make_normalizer(file.part("normalizer"));
    if (file.has("pre_tokenizer")) words_ = make_pre_tokenizer(file.part("pre_tokenizer"), {.keep_bytes = bytes});
    if (file.has("decoder")) decoder_ = Decoder(file.part("decoder"));
    add_tokens(read_added(file, vocabulary_));
    if (file.has("post_processor")) frame_ = read_frame(file.part("post_processor"), vocabulary_.size());
    name_special(where);
  }

  std::string name() const override { return name_; }
  int32_t vocab_size() const override { return vocabulary_.size(); }
  SpecialTokens special() const override { return special_; }
  bool is_special(int32_t id) const override { return check_id(id), hidden_[id]; }
  uint64_t fingerprint() const override { return fingerprint_; }

  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> ids;
    append(text, false, ids);
    return ids;
  }

  std::vector<int32_t> encode_prompt(std::string_view text, const PromptOptions& options) const override {
    std::vector<int32_t> ids;
    if (options.add_special) ids = frame_.before;
    append(text, options.parse_special, ids);
    if (options.add_special) ids.insert(ids.end(), frame_.after.begin(), frame_.after.end());
    return ids;
  }

  std::string decode(std::span<const int32_t> ids) const override {
    std::string text;
    bool first = true;
    for (const int32_t id : ids) {
      check_id(id);
      if (hidden_[id]) continue;
      text += decoder_.apply(vocabulary_.token(id), first);
      first = false;
    }
    return text;
  }

  std::string bytes(int32_t id) const override {
    check_id(id);
    return hidden_[id] ? "" : decoder_.apply(vocabulary_.token(id), false);
  }

  std::string piece(int32_t id) const override {
    check_id(id);
    return vocabulary_.token(id);
  }

  void save(const std::string& folder) const override {
    const std::filesystem::path path(folder);
    io::write_file((path / "tokenizer.json").string(), text_);
    if (!config_.empty()) io::write_file((path / "tokenizer_config.json").string(), config_);
  }

 private:
  void add_tokens(const std::vector<AddedToken>& tokens) {
    hidden_.assign(vocabulary_.size(), false);
    for (const AddedToken& t : tokens) {
      const bool changed = t.normalized && normalizer_;
      const std::string content = changed ? normalize(t.content) : t.content;
      if (!content.empty()) (t.normalized ? in_normalized_ : in_text_).add(t, content);
      if (t.special) hidden_[t.id] = true;
    }
    for (int32_t id = 0; id < vocabulary_.size(); ++id)
      if (!vocabulary_.has(id)) hidden_[id] = true;
  }

  std::string normalize(std::string_view text) const {
    return normalizer_->apply(std::string(text), (size_t{1} << 20) + 64 * text.size());
  }

  void name_special(const std::string& where) {
    const Json config = config_.empty() ? Json::object() : io::parse_json(config_, where + " (its configuration)");
    if (!config.is_object()) fail({"tokenizer", "an object in tokenizer_config.json", config.type_name(), where});
    special_.bos = find_special(config, "bos_token", {"<s>", "<|begin_of_text|>", "<bos>", "[CLS]"}, vocabulary_);
    special_.eos =
        find_special(config, "eos_token", {"</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>", "[SEP]"}, vocabulary_);
    special_.pad = find_special(config, "pad_token", {"<pad>", "[PAD]"}, vocabulary_);
    special_.unk = model_->unknown();
  }

  void append(std::string_view text, bool parse_special, std::vector<int32_t>& ids) const {
    std::string whole;
    if (!is_utf8(text)) text = whole = repaired(text);
    const auto add_id = [&](int32_t id) { ids.push_back(id); };
    in_text_.split(
        text, parse_special,
        [&](std::string_view part) {
          const bool first = part.data() == text.data();
          const std::string changed = normalizer_ ? normalize(part) : "";
          const std::string_view normal = normalizer_ ? changed : part;
          in_normalized_.split(
              normal, parse_special,
              [&](std::string_view p) { append_words(p, first && p.data() == normal.data(), ids); }, add_id);
        },
        add_id);
  }

  void append_words(std::string_view text, bool first, std::vector<int32_t>& ids) const {
    Pieces pieces(text, first);
    if (words_) words_->apply(pieces);
    for (const Piece& piece : pieces.list) model_->encode(piece.text, ids);
  }

  std::string text_, config_, name_;
  uint64_t fingerprint_;
  Vocabulary vocabulary_;
  std::unique_ptr<WordModel> model_;
  std::unique_ptr<Normalizer> normalizer_;
  std::unique_ptr<PreTokenizer> words_;
  Decoder decoder_;
  TokenFinder in_text_, in_normalized_;
  Frame frame_;
  SpecialTokens special_;
  std::vector<bool> hidden_;  // ids that add nothing to a text: special tokens, and gaps
};

std::string content_of(const std::string& path) {
  return std::string(io::MappedFile::open(path)->text());
}

}  // namespace

std::unique_ptr<Tokenizer> read_tokenizer_json(std::string text, std::string config, const std::string& where) {
  return std::make_unique<TokenizerJson>(std::move(text), std::move(config), where);
}

std::unique_ptr<Tokenizer> load_tokenizer_json(const std::string& path) {
  const std::filesystem::path config = std::filesystem::path(path).parent_path() / "tokenizer_config.json";
  std::error_code ignored;
  return read_tokenizer_json(content_of(path),
                             std::filesystem::exists(config, ignored) ? content_of(config.string()) : "", path);
}

}  // namespace sennit::tokenizers
