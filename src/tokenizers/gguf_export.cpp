#include "tokenizers/gguf_export.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/json_file.h"
#include "tokenizers/base64.h"
#include "tokenizers/tokenizer_json.h"
#include "tokenizers/word_patterns.h"

namespace sennit::tokenizers {
namespace {

// Words, numbers, marks, spaces and line ends of many kinds, other scripts, and what is no letter at all.
constexpr const char* kProbe[] = {"Hello world",
                                  " two  spaces   and a tab\there",
                                  "It's we're I'LL don't",
                                  "12345 3.14 1,000,000",
                                  "a\n\nb\r\n c",
                                  "  leading",
                                  "trailing  ",
                                  "caf\u00e9 na\u00efve \u00dcber Stra\u00dfe",
                                  "\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440",
                                  "\u4f60\u597d\u4e16\u754c 123",
                                  "\u3053\u3093\u306b\u3061\u306f",
                                  "\U0001F600\U0001F9EA!",
                                  "int main() { return x[0] != -1; } // #tag_name",
                                  "UPPER lower MiXeD",
                                  "e\u0301 \ufb01",
                                  "...!!!?.?.---",
                                  "\u2028\u00a0\u200b",
                                  ""};

class Export {
 public:
  explicit Export(const Json& file, const Tokenizer& tokenizer)
      : file_(file), model_(file.value("model", Json::object())) {
    const SpecialTokens s = tokenizer.special();
    v_.bos = s.bos, v_.eos = s.eos, v_.unk = s.unk, v_.pad = s.pad;
    v_.tokens.resize(static_cast<size_t>(tokenizer.vocab_size()));
    v_.types.assign(v_.tokens.size(), kNormal);
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
      v_.tokens[static_cast<size_t>(id)] = tokenizer.piece(id);
      if (!v_.tokens[static_cast<size_t>(id)].empty()) continue;
      v_.tokens[static_cast<size_t>(id)] = fmt::format("[PAD{}]", id);  // a gap
      ++gaps_;
      v_.types[static_cast<size_t>(id)] = kUnused;
    }
    if (file.contains("added_tokens"))
      for (const Json& t : file.at("added_tokens"))
        if (const auto id = t.at("id").get<size_t>(); id < v_.types.size())
          v_.types[id] = t.value("special", false) ? kControl : kUserDefined;
    for (const int32_t id : {s.bos, s.eos, s.pad})
      if (id >= 0) v_.types[static_cast<size_t>(id)] = kControl;
    const auto framed = tokenizer.encode_prompt("a", {.add_special = true, .parse_special = false});
    v_.add_bos = !framed.empty() && framed.front() == s.bos && s.bos >= 0;
    v_.add_eos = !framed.empty() && framed.back() == s.eos && s.eos >= 0;
  }

  // "" or why there is none.
  std::string run() {
    if (const int64_t ids = std::ssize(v_.tokens); ids > Vocabulary::most_ids(ids - gaps_))
      return fmt::format("{} of its {} ids have no token", gaps_, ids);
    const std::string type = model_.value("type", model_.contains("merges") ? "BPE" : "");
    if (type == "BPE") return model_.value("byte_fallback", false) ? llama() : gpt2();
    if (type == "WordPiece") return bert();
    if (type == "Unigram") return t5();
    return fmt::format("a model of type `{}` has no kind in GGUF", type);
  }

  GgufVocabulary v_;

 private:
  int64_t gaps_ = 0;  // ids without a token
  enum Type { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

  static std::string merge_text(const Json& m) {
    return m.is_string() ? m.get<std::string>() : m.at(0).get<std::string>() + " " + m.at(1).get<std::string>();
  }

  // The patterns of Splits, Digits and a ByteLevel one after another; nothing for another step.
  static bool read_words(const Json& step, WordPatterns& w) {
    const std::string type = step.is_object() ? step.value("type", "") : "";
    if (type == "Sequence") {
      for (const Json& s : step.value("pretokenizers", Json::array()))
        if (!read_words(s, w)) return false;
      return true;
    }
    if (type == "ByteLevel") {
      if (step.value("add_prefix_space", true)) return false;
      if (step.value("use_regex", true)) w.patterns.emplace_back(kGpt2Words);
      return true;
    }
    if (type == "Digits" && step.value("individual_digits", false)) {
      w.patterns.emplace_back(R"(\p{N})");
      return true;
    }
    if (type != "Split" || step.value("invert", false) || step.value("behavior", "") != "Isolated") return false;
    const Json pattern = step.value("pattern", Json::object());
    if (!pattern.contains("Regex")) return false;
    w.patterns.push_back(pattern.at("Regex").get<std::string>());
    return true;
  }

  std::string gpt2() {
    v_.model = "gpt2";
    WordPatterns w{.patterns = {}, .ignore_merges = model_.value("ignore_merges", false)};
    const Json normalizer = file_.value("normalizer", Json());
    if (normalizer.is_object()) {
      if (normalizer.value("type", "") != "NFC") return "its normalizer has no name in GGUF";
      w.compose = true;
    }
    if (read_words(file_.value("pre_tokenizer", Json()), w)) v_.pre = name_of(w);
    if (v_.pre.empty()) return "its way to cut words has no name in GGUF";
    for (const Json& m : model_.value("merges", Json::array())) v_.merges.push_back(merge_text(m));
    return "";
  }

  // A token's score is the rank of the first merge that makes it, as the format has no merges.
  std::string llama() {
    v_.model = "llama";
    std::map<std::string, float> ranks;
    float rank = 0;
    for (const Json& m : model_.value("merges", Json::array())) {
      std::string made = merge_text(m);
      made.erase(made.find(' '), 1);
      ranks.emplace(made, --rank);
    }
    for (size_t id = 0; id < v_.tokens.size(); ++id) {
      const std::string& t = v_.tokens[id];
      const auto found = ranks.find(t);
      v_.scores.push_back(found == ranks.end() ? 0 : found->second);
      if (t.size() == 6 && t.starts_with("<0x") && t.ends_with(">")) v_.types[id] = kByte;
    }
    if (v_.unk >= 0) v_.types[static_cast<size_t>(v_.unk)] = kUnknown;
    v_.add_space_prefix = prefixed();
    return "";
  }

  bool prefixed() const {
    const std::string normalizer = json_text(file_.value("normalizer", Json())),
                      words = json_text(file_.value("pre_tokenizer", Json()));
    return normalizer.find("\"Prepend\"") != normalizer.npos ||
           (words.find("\"Metaspace\"") != words.npos && words.find("\"never\"") == words.npos &&
            words.find("\"add_prefix_space\":false") == words.npos);
  }

  std::string bert() {
    v_.model = "bert";
    if (model_.value("continuing_subword_prefix", "##") != "##")
      return "pieces that go on are marked otherwise than by ##";
    for (size_t id = 0; id < v_.tokens.size(); ++id) {
      if (static_cast<int64_t>(id) == v_.unk) v_.types[id] = kUnknown;
      if (v_.types[id] != kNormal) continue;
      std::string& t = v_.tokens[id];
      t = t.starts_with("##") ? t.substr(2) : "\u2581" + t;
    }
    return "";
  }

  std::string t5() {
    v_.model = "t5";
    const Json pieces = model_.value("vocab", Json::array());
    v_.scores.assign(v_.tokens.size(), 0);
    for (size_t id = 0; id < std::min<size_t>(pieces.size(), v_.scores.size()); ++id)
      v_.scores[id] = pieces[id].at(1).get<float>();
    if (model_.contains("unk_id") && model_["unk_id"].is_number_integer()) v_.unk = model_["unk_id"];
    if (v_.unk >= 0 && v_.unk < std::ssize(v_.types)) v_.types[static_cast<size_t>(v_.unk)] = kUnknown;
    const Json normalizer = file_.value("normalizer", Json());
    if (normalizer.is_object()) {
      if (normalizer.value("type", "") != "Precompiled") return "its normalizer has no place in GGUF";
      v_.precompiled_charsmap = from_base64(normalizer.value("precompiled_charsmap", "")).value_or("");
    }
    v_.add_space_prefix = prefixed();
    return "";
  }

  const Json& file_;
  const Json model_;
};

// What the two make of a probe differs; nothing where nothing does.
std::string difference(const Tokenizer& a, const Tokenizer& b) {
  for (const char* text : kProbe) {
    const PromptOptions all{.add_special = true, .parse_special = true};
    if (a.encode(text) != b.encode(text) || a.encode_prompt(text, all) != b.encode_prompt(text, all) ||
        a.decode(a.encode(text)) != b.decode(a.encode(text)))
      return fmt::format("read back from GGUF it treats `{}` otherwise", text);
  }
  return "";
}

}  // namespace

GgufExport gguf_of_tokenizer_json(const std::string& text, const std::string& config, const std::string& where) {
  const auto tokenizer = read_tokenizer_json(text, config, where);
  const Json file = io::parse_json(text, where);
  try {
    Export e(file, *tokenizer);
    if (const std::string reason = e.run(); !reason.empty()) return {{}, reason};
    const auto back = tokenizer_of_gguf(e.v_, where);
    if (const std::string reason = difference(*tokenizer, *back); !reason.empty()) return {{}, reason};
    return {std::move(e.v_), ""};
  } catch (const Json::exception&) {
    return {{}, "a part of it is of another kind than usual"};
  } catch (const Error& error) {
    return {{}, error.what()};
  }
}

}  // namespace sennit::tokenizers
