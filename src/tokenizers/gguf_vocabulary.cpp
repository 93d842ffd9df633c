#include "tokenizers/gguf_vocabulary.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "io/json_file.h"
#include "tokenizers/base64.h"
#include "tokenizers/merges.h"
#include "tokenizers/rwkv_world.h"
#include "tokenizers/tokenizer_json.h"
#include "tokenizers/unicode.h"
#include "tokenizers/vocabulary.h"
#include "tokenizers/word_patterns.h"

namespace sennit::tokenizers {
namespace {

enum Type { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

// Writes the tokenizer.json, part by part.
class Document {
 public:
  Document(const GgufVocabulary& v, const std::string& where) : v_(v), where_(where) { check(); }

  Json file() {
    Json model = v_.model == "gpt2" ? gpt2() : v_.model == "llama" ? llama() : v_.model == "bert" ? bert() : t5();
    Json all = {{"version", "1.0"}, {"added_tokens", added()}};
    for (auto& [key, value] : parts_.items()) all[key] = value;
    all["post_processor"] = frame();
    all["model"] = std::move(model);
    return all;
  }

  Json config() const {
    const auto name = [this](int64_t id) { return id < 0 ? Json(nullptr) : Json(v_.tokens[id]); };
    return {{"bos_token", name(v_.bos)},
            {"eos_token", name(v_.eos)},
            {"unk_token", name(v_.unk)},
            {"pad_token", name(v_.pad)}};
  }

 private:
  [[noreturn]] void refuse(const std::string& expected, const std::string& found) const {
    fail({"GGUF tokenizer", expected, found, where_});
  }

  void check() const {
    const size_t n = v_.tokens.size();
    if (n == 0 || n > static_cast<size_t>(Vocabulary::kMostIds))
      refuse(fmt::format("1 to {} tokens", Vocabulary::kMostIds), fmt::format("{}", n));
    if (!v_.types.empty() && v_.types.size() != n)
      refuse("a type for each token", fmt::format("{} for {}", v_.types.size(), n));
    const bool scored = v_.model == "llama" || v_.model == "t5";
    if (scored && v_.scores.size() != n)
      refuse("a score for each token", fmt::format("{} for {}", v_.scores.size(), n));
    if (!std::all_of(v_.scores.begin(), v_.scores.end(), [](float s) { return std::isfinite(s); }))
      refuse("finite scores", "others");
    for (const int64_t id : {v_.bos, v_.eos, v_.unk, v_.pad})
      if (id < -1 || id >= static_cast<int64_t>(n))
        refuse(fmt::format("special ids below {}", n), fmt::format("{}", id));
    constexpr std::string_view kModels[] = {"gpt2", "llama", "bert", "t5"};
    if (std::find(std::begin(kModels), std::end(kModels), v_.model) == std::end(kModels))
      refuse(fmt::format("a model among {}", fmt::join(kModels, ", ")), fmt::format("`{}`", v_.model));
    for (size_t id = 0; id < n; ++id)
      if (!is_utf8(v_.tokens[id])) refuse("tokens in UTF-8", fmt::format("token {}", id));
  }

  int type(size_t id) const { return v_.types.empty() ? normal : v_.types[id]; }
  bool is_added(size_t id) const { return type(id) == control || type(id) == user_defined; }

  Json added() const {
    Json tokens = Json::array();
    for (size_t id = 0; id < v_.tokens.size(); ++id) {
      const bool special = type(id) == control || type(id) == unknown;
      if ((is_added(id) || type(id) == unknown) && !v_.tokens[id].empty())
        tokens.push_back({{"id", id}, {"content", v_.tokens[id]}, {"normalized", false}, {"special", special}});
    }
    return tokens;
  }

  // Tokens other than those that are found in the text beforehand.
  template <class F>
  Json vocabulary(F&& written) const {
    Json vocab = Json::object();
    for (size_t id = 0; id < v_.tokens.size(); ++id)
      if (!is_added(id)) io::append_member(vocab, written(id), id);
    return vocab;
  }

  Json gpt2() {
    const WordPatterns patterns = word_patterns(v_.pre.empty() || v_.pre == "default" ? "gpt-2" : v_.pre, where_);
    if (patterns.compose) parts_["normalizer"] = {{"type", "NFC"}};
    parts_["pre_tokenizer"] = pre_tokenizer_of(patterns);
    parts_["decoder"] = {{"type", "ByteLevel"}};
    bos_by_habit_ = patterns.ignore_merges;
    return {{"type", "BPE"},
            {"ignore_merges", patterns.ignore_merges},
            {"vocab", vocabulary([this](size_t id) { return v_.tokens[id]; })},
            {"merges", v_.merges}};
  }

  Json llama() {
    const bool prefix = v_.add_space_prefix.value_or(true);
    Json steps = Json::array();
    if (prefix) steps.push_back({{"type", "Prepend"}, {"prepend", unicode::kSpaceMark}});
    steps.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", unicode::kSpaceMark}});
    parts_["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
    Json decoders = {{{"type", "Replace"}, {"pattern", {{"String", unicode::kSpaceMark}}}, {"content", " "}},
                     {{"type", "ByteFallback"}},
                     {{"type", "Fuse"}}};
    if (prefix) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    parts_["decoder"] = {{"type", "Sequence"}, {"decoders", decoders}};
    bos_by_habit_ = true;
    std::vector<size_t> order;
    for (size_t id = 0; id < v_.tokens.size(); ++id)
      if (type(id) == normal) order.push_back(id);
    std::stable_sort(order.begin(), order.end(), [this](size_t a, size_t b) { return v_.scores[a] > v_.scores[b]; });
    std::vector<std::string_view> tokens;
    for (const size_t id : order) tokens.push_back(v_.tokens[id]);
    Json model = {{"type", "BPE"}, {"byte_fallback", true}, {"fuse_unk", true}};
    if (v_.unk >= 0) model["unk_token"] = v_.tokens[v_.unk];
    model["vocab"] = vocabulary([this](size_t id) { return v_.tokens[id]; });
    model["merges"] = merges_of(tokens);
    return model;
  }

  // GGUF marks the pieces that begin a word, the file of BERT those that go on.
  Json bert() {
    parts_["normalizer"] = {{"type", "BertNormalizer"}};
    parts_["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
    parts_["decoder"] = {{"type", "WordPiece"}};
    bos_by_habit_ = eos_by_habit_ = true;
    const auto written = [this](size_t id) {
      const std::string& token = v_.tokens[id];
      const bool begins = token.starts_with(unicode::kSpaceMark);
      const bool whole = static_cast<int64_t>(id) == v_.unk || type(id) != normal;
      return begins ? token.substr(unicode::kSpaceMark.size()) : whole ? token : "##" + token;
    };
    if (v_.unk < 0) refuse("an unknown token", "none");
    return {{"type", "WordPiece"}, {"unk_token", v_.tokens[v_.unk]}, {"vocab", vocabulary(written)}};
  }

  Json t5() {
    if (!v_.precompiled_charsmap.empty())
      parts_["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", to_base64(v_.precompiled_charsmap)}};
    const bool prefix = v_.add_space_prefix.value_or(true);
    const Json metaspace = {
        {"type", "Metaspace"}, {"replacement", unicode::kSpaceMark}, {"prepend_scheme", prefix ? "always" : "never"}};
    parts_["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {{{"type", "WhitespaceSplit"}}, metaspace}}};
    parts_["decoder"] = metaspace;
    eos_by_habit_ = true;
    Json pieces = Json::array();
    for (size_t id = 0; id < v_.tokens.size(); ++id) pieces.push_back({v_.tokens[id], v_.scores[id]});
    Json model = {{"type", "Unigram"}, {"vocab", std::move(pieces)}};
    if (v_.unk >= 0) model["unk_id"] = v_.unk;
    return model;
  }

  Json frame() const {
    Json single = Json::array(), tokens = Json::object();
    const auto add = [&](int64_t id, bool wanted) {
      if (!wanted || id < 0) return;
      const std::string& name = v_.tokens[id];
      single.push_back({{"SpecialToken", {{"id", name}, {"type_id", 0}}}});
      tokens[name] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
    };
    add(v_.bos, v_.add_bos.value_or(bos_by_habit_));
    single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
    add(v_.eos, v_.add_eos.value_or(eos_by_habit_));
    return {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", tokens}};
  }

  const GgufVocabulary& v_;
  const std::string& where_;
  Json parts_ = Json::object();
  bool bos_by_habit_ = false, eos_by_habit_ = false;
};

}  // namespace

std::unique_ptr<Tokenizer> tokenizer_of_gguf(const GgufVocabulary& vocabulary, const std::string& where) {
  if (vocabulary.model == "rwkv") return rwkv_world_of_gguf(vocabulary.tokens, vocabulary.types, where);
  Document document(vocabulary, where);
  const std::string config = json_text(document.config());
  return read_tokenizer_json(json_text(document.file()), config, where);
}

}  // namespace sennit::tokenizers
