#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tokenizers/unicode.h"
#include "tokenizers/word_cache.h"
#include "tokenizers/word_model.h"

namespace sennit::tokenizers {
namespace {

class WordPiece final : public WordModel {
 public:
  WordPiece(const JsonPart& part, Vocabulary& vocabulary)
      : vocabulary_(vocabulary),
        prefix_(part.text("continuing_subword_prefix", "##")),
        longest_(part.integer("max_input_chars_per_word", 100, 1, 10000)) {
    read_vocabulary(part, vocabulary);
    unknown_ = vocabulary.need(part.text("unk_token", "[UNK]"), "the unknown token", part.where());
  }

  int32_t unknown() const override { return unknown_; }

  void encode(std::string_view word, std::vector<int32_t>& ids) const override {
    // The longest piece that fits is the word itself, where it is one: most are.
    if (static_cast<int64_t>(word.size()) <= longest_)
      if (const int32_t id = vocabulary_.find(word); id >= 0) {
        ids.push_back(id);
        return;
      }
    words_.append(word, ids, [this](std::string_view w, std::vector<int32_t>& out) { encode_pieces(w, out); });
  }

 private:
  void encode_pieces(std::string_view word, std::vector<int32_t>& ids) const {
    const size_t before = ids.size();
    if (!cut(word, ids)) {
      ids.resize(before);
      ids.push_back(unknown_);
    }
  }

  bool cut(std::string_view word, std::vector<int32_t>& ids) const {
    std::vector<size_t> ends;  // of the characters
    for (size_t at = 0; at < word.size(); ends.push_back(at))
      if (static_cast<int64_t>(ends.size()) == longest_)
        return false;
      else
        unicode::next(word, at);
    std::string piece;
    size_t begin = 0, first = 0;
    while (begin < word.size()) {
      int32_t id = -1;
      size_t last = ends.size();
      for (; last > first; --last) {
        piece.assign(begin > 0 ? prefix_ : "").append(word.substr(begin, ends[last - 1] - begin));
        id = vocabulary_.find(piece);
        if (id >= 0) break;
      }
      if (id < 0) return false;
      ids.push_back(id);
      begin = ends[last - 1], first = last;
    }
    return true;
  }

  const Vocabulary& vocabulary_;
  std::string prefix_;
  int64_t longest_;
  int32_t unknown_;
  mutable WordCache words_;
};

class WordLevel final : public WordModel {
 public:
  WordLevel(const JsonPart& part, Vocabulary& vocabulary) : vocabulary_(vocabulary) {
    read_vocabulary(part, vocabulary);
    unknown_ = vocabulary.find(part.text("unk_token", "<unk>"));
  }
  int32_t unknown() const override { return unknown_; }
  void encode(std::string_view word, std::vector<int32_t>& ids) const override {
    const int32_t id = vocabulary_.find(word);
    if (id < 0 && unknown_ < 0)
      fail({"tokenizer", "words of the vocabulary, for want of an unknown token",
            fmt::format("`{}`", word.substr(0, 100))});
    ids.push_back(id < 0 ? unknown_ : id);
  }

 private:
  const Vocabulary& vocabulary_;
  int32_t unknown_;
};

}  // namespace

void read_vocabulary(const JsonPart& part, Vocabulary& vocabulary) {
  const Json& vocab = part.member("vocab");
  if (!vocab.is_object()) part.refuse("vocab", "an object of tokens and ids", vocab.type_name());
  for (const auto& [token, id] : vocab.items()) {
    const bool whole = id.is_number_unsigned() && id.get<uint64_t>() < static_cast<uint64_t>(Vocabulary::kMostIds);
    if (!whole)
      part.refuse("vocab", fmt::format("ids from 0 to {}", Vocabulary::kMostIds - 1),
                  fmt::format("{} for `{}`", json_text(id).substr(0, 40), token.substr(0, 100)));
    vocabulary.add(id.get<int64_t>(), token, part.where("vocab"));
  }
}

std::unique_ptr<WordModel> make_word_piece(const JsonPart& part, Vocabulary& vocabulary) {
  return std::make_unique<WordPiece>(part, vocabulary);
}

std::unique_ptr<WordModel> make_word_level(const JsonPart& part, Vocabulary& vocabulary) {
  return std::make_unique<WordLevel>(part, vocabulary);
}

}  // namespace sennit::tokenizers
