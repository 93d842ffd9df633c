#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tokenizers/unicode.h"
#include "tokenizers/word_cache.h"
#include "tokenizers/word_model.h"

namespace sennit::tokenizers {
namespace {

class Unigram final : public WordModel {
 public:
  Unigram(const JsonPart& part, Vocabulary& vocabulary) : vocabulary_(vocabulary) {
    read_pieces(part, vocabulary);
    const auto size = static_cast<int64_t>(scores_.size());
    unknown_ = part.has("unk_id") ? static_cast<int32_t>(part.integer("unk_id", 0, 0, size - 1)) : -1;
    const bool fallback = part.flag("byte_fallback", false);
    for (int b = 0; b < 256; ++b) byte_ids_[b] = fallback ? vocabulary.find(fmt::format("<0x{:02X}>", b)) : -1;
    has_bytes_ = std::all_of(std::begin(byte_ids_), std::end(byte_ids_), [](int32_t id) { return id >= 0; });
  }

  int32_t unknown() const override { return unknown_; }
  void encode(std::string_view word, std::vector<int32_t>& ids) const override {
    words_.append(word, ids, [this](std::string_view w, std::vector<int32_t>& out) { encode_whole(w, out); });
  }

 private:
  static constexpr double kUnknownPenalty = 10;
  static constexpr size_t kLongestPiece = 256;  // bytes

  void read_pieces(const JsonPart& part, Vocabulary& vocabulary) {
    const Json& pieces = part.member("vocab");
    if (!pieces.is_array() || pieces.empty()) part.refuse("vocab", "a list of tokens and scores", pieces.type_name());
    for (const Json& p : pieces) {
      const bool pair = p.is_array() && p.size() == 2 && p[0].is_string() && p[1].is_number();
      const std::string where = fmt::format("{}.vocab[{}]", part.where(), scores_.size());
      const std::string text = pair ? p[0].get<std::string>() : "";
      if (!pair || text.size() > kLongestPiece || !std::isfinite(p[1].get<double>()))
        fail({"tokenizer", fmt::format("a token of at most {} bytes and its score", kLongestPiece),
              json_text(p).substr(0, 100), where});
      vocabulary.add(static_cast<int64_t>(scores_.size()), text, where);
      scores_.push_back(p[1].get<double>());
      lowest_ = std::min(lowest_, scores_.back());
      longest_ = std::max(longest_, text.size());
    }
  }

  struct Node {
    double score = -std::numeric_limits<double>::infinity();
    size_t begin = 0;
    int32_t id = -1;  // -1: unknown
  };

  // best[e]: the last piece of the best cut of the first e bytes.
  std::vector<Node> viterbi(std::string_view word) const {
    std::vector<Node> best(word.size() + 1);
    best[0].score = 0;
    for (size_t begin = 0; begin < word.size();) {
      size_t end = begin;
      unicode::next(word, end);
      const size_t one = end - begin;
      const double here = best[begin].score;
      bool single = false;
      const auto offer = [&](size_t to, double score, int32_t id) {
        if (score > best[to].score) best[to] = {score, begin, id};
      };
      const size_t stop = std::min(word.size(), begin + longest_);
      for (size_t to = begin + one; to <= stop;) {
        const int32_t id = vocabulary_.find(word.substr(begin, to - begin));
        if (id >= 0 && id < static_cast<int32_t>(scores_.size())) {
          offer(to, here + scores_[id], id);
          single |= to == begin + one;
        }
        if (to == word.size()) break;
        unicode::next(word, to);
      }
      if (!single) offer(begin + one, here + lowest_ - kUnknownPenalty, -1);
      begin += one;
    }
    return best;
  }

  void encode_whole(std::string_view word, std::vector<int32_t>& ids) const {
    const std::vector<Node> best = viterbi(word);
    struct Found {
      size_t begin, end;
      int32_t id;
    };
    std::vector<Found> found;  // from the end; unknown ones side by side are one
    for (size_t end = word.size(); end > 0; end = best[end].begin) {
      const Node& n = best[end];
      const bool unknown = n.id < 0 || n.id == unknown_;
      if (unknown && !found.empty() && found.back().id < 0)
        found.back().begin = n.begin;
      else
        found.push_back({n.begin, end, unknown ? -1 : n.id});
    }
    for (auto f = found.rbegin(); f != found.rend(); ++f) add(word.substr(f->begin, f->end - f->begin), f->id, ids);
  }

  void add(std::string_view text, int32_t id, std::vector<int32_t>& ids) const {
    if (id >= 0) return ids.push_back(id);
    if (const int32_t whole = vocabulary_.find(text); whole >= 0 && whole < static_cast<int32_t>(scores_.size()))
      return ids.push_back(whole);
    if (has_bytes_)
      for (const char b : text) ids.push_back(byte_ids_[static_cast<unsigned char>(b)]);
    else if (unknown_ >= 0)
      ids.push_back(unknown_);
    else
      fail({"tokenizer", "characters of the vocabulary, for want of an unknown token",
            fmt::format("`{}`", text.substr(0, 100))});
  }

  const Vocabulary& vocabulary_;
  std::vector<double> scores_;
  double lowest_ = std::numeric_limits<double>::infinity();
  size_t longest_ = 1;
  int32_t unknown_;
  int32_t byte_ids_[256];
  bool has_bytes_;
  mutable WordCache words_;
};

}  // namespace

std::unique_ptr<WordModel> make_unigram(const JsonPart& part, Vocabulary& vocabulary) {
  return std::make_unique<Unigram>(part, vocabulary);
}

}  // namespace sennit::tokenizers
