#include <algorithm>
#include <nlohmann/json.hpp>
#include <queue>
#include <unordered_set>

#include "base/error.h"
#include "tokenizers/byte_level.h"
#include "tokenizers/pair_table.h"
#include "tokenizers/unicode.h"
#include "tokenizers/word_cache.h"
#include "tokenizers/word_model.h"

namespace sennit::tokenizers {
namespace {

constexpr size_t kShort = 48;                            // symbols; the best pair of few is found by looking at all

// Joins the pair of the lowest rank, the leftmost of equals, as long as there is one.
void merge_few(const PairTable& table, std::vector<int32_t>& ids, size_t begin) {
  PairTable::Merge merges[kShort];
  int32_t* s = ids.data() + begin;
  size_t n = ids.size() - begin;
  for (size_t i = 0; i + 1 < n; ++i) merges[i] = table.find(s[i], s[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i)
      if (merges[i].rank < merges[best].rank) best = i;
    if (merges[best].rank == UINT32_MAX) break;
    s[best] = merges[best].id;
    --n;
    std::copy(s + best + 2, s + n + 1, s + best + 1);
    std::copy(merges + best + 1, merges + n, merges + best);
    if (best > 0) merges[best - 1] = table.find(s[best - 1], s[best]);
    if (best + 1 < n) merges[best] = table.find(s[best], s[best + 1]);
  }
  ids.resize(begin + n);
}

// The same with a heap, in time n log n.
void merge_many(const PairTable& table, std::vector<int32_t>& ids, size_t begin) {
  struct Symbol {
    int32_t id, before, after;  // id -1: joined to one before it
  };
  struct Candidate {
    uint32_t rank;
    int32_t at, left, right, id;
    bool operator<(const Candidate& o) const { return rank != o.rank ? rank > o.rank : at > o.at; }
  };
  const auto n = static_cast<int32_t>(ids.size() - begin);
  std::vector<Symbol> s(n);
  std::vector<Candidate> heap;
  const auto candidate = [&](int32_t at, auto&& add) {
    if (at < 0 || s[at].after >= n) return;
    const int32_t left = s[at].id, right = s[s[at].after].id;
    const PairTable::Merge m = table.find(left, right);
    if (m.rank != UINT32_MAX) add(Candidate{m.rank, at, left, right, m.id});
  };
  for (int32_t i = 0; i < n; ++i) s[i] = {ids[begin + i], i - 1, i + 1};
  for (int32_t i = 0; i < n; ++i) candidate(i, [&](const Candidate& c) { heap.push_back(c); });
  std::priority_queue<Candidate> queue({}, std::move(heap));
  const auto push = [&](const Candidate& c) { queue.push(c); };
  while (!queue.empty()) {
    const Candidate c = queue.top();
    queue.pop();
    const int32_t right = s[c.at].after;
    if (s[c.at].id != c.left || right >= n || s[right].id != c.right) continue;
    s[c.at] = {c.id, s[c.at].before, s[right].after};
    s[right].id = -1;
    if (s[c.at].after < n) s[s[c.at].after].before = c.at;
    candidate(s[c.at].before, push);
    candidate(c.at, push);
  }
  ids.resize(begin);
  for (const Symbol& symbol : s)
    if (symbol.id >= 0) ids.push_back(symbol.id);
}

// The first mark at or behind `at` with something else before it, or the end.
size_t next_mark(std::string_view word, size_t at) {
  while (word.substr(at).starts_with(unicode::kSpaceMark)) at += unicode::kSpaceMark.size();
  return std::min(word.find(unicode::kSpaceMark, at), word.size());
}

char32_t char_before(std::string_view text, size_t end) {
  size_t at = end - 1;
  while ((text[at] & 0xc0) == 0x80) --at;
  return unicode::next(text, at);
}

class Bpe final : public WordModel {
 public:
  Bpe(const JsonPart& part, bool bytes, Vocabulary& vocabulary)
      : vocabulary_(vocabulary),
        bytes_(bytes),
        ignore_merges_(part.flag("ignore_merges", false)),
        fuse_unknown_(part.flag("fuse_unk", false)),
        prefix_(part.text("continuing_subword_prefix", "")),
        suffix_(part.text("end_of_word_suffix", "")) {
    if (part.has("dropout") && part.member("dropout") != 0)
      part.refuse("dropout", "none, for the same text must give the same ids",
                  json_text(part.member("dropout")).substr(0, 40));
    read_vocabulary(part, vocabulary);
    if (part.has("unk_token"))
      unknown_ = vocabulary.need(part.text("unk_token"), "the unknown token", part.where("unk_token"));
    read_merges(part);
    read_bytes(part.flag("byte_fallback", false));
    cuts_at_marks_ =
        !bytes_ && !ignore_merges_ && prefix_.empty() && suffix_.empty() && vocabulary.find(unicode::kSpaceMark) >= 0;
  }

  int32_t unknown() const override { return unknown_; }

  void encode(std::string_view word, std::vector<int32_t>& ids) const override {
    const auto whole = [this](std::string_view w, std::vector<int32_t>& out) { encode_whole(w, out); };
    if (!cuts_at_marks_) return words_.append(word, ids, whole);
    // Where no merge joins a mark to what stands before it, a cut changes nothing, and words can be remembered.
    for (size_t end = 0; !word.empty(); end = 0) {
      do end = next_mark(word, end);
      while (end < word.size() && joined_to_marks_.contains(char_before(word, end)));
      words_.append(word.substr(0, end), ids, whole);
      word.remove_prefix(end);
    }
  }

 private:
  void read_merges(const JsonPart& part) {
    const Json& merges = part.member("merges");
    if (!merges.is_array()) part.refuse("merges", "a list", merges.type_name());
    table_.reserve(merges.size());
    uint32_t rank = 0;
    for (const Json& m : merges) {
      std::string_view left, right;
      if (m.is_array() && m.size() == 2 && m[0].is_string() && m[1].is_string()) {
        left = m[0].get_ref<const std::string&>(), right = m[1].get_ref<const std::string&>();
      } else if (m.is_string()) {
        const std::string_view both = m.get_ref<const std::string&>();
        const size_t space = both.find(' ');
        left = both.substr(0, space), right = space == both.npos ? "" : both.substr(space + 1);
      }
      const std::string where = fmt::format("{}.merges[{}]", part.where(), rank);
      if (left.empty() || right.empty() || (m.is_string() && right.find(' ') != right.npos))
        fail({"tokenizer", "two tokens", json_text(m).substr(0, 100), where});
      add_merge(left, right, rank++, where);
    }
  }

  void add_merge(std::string_view left, std::string_view right, uint32_t rank, const std::string& where) {
    const bool continues = !prefix_.empty() && right.starts_with(prefix_);
    const std::string joined = std::string(left).append(right.substr(continues ? prefix_.size() : 0));
    const int32_t l = vocabulary_.need(left, "both halves of a merge", where);
    const int32_t r = vocabulary_.need(right, "both halves of a merge", where);
    table_.set(l, r, {rank, vocabulary_.need(joined, "the result of a merge", where)});
    if (!bytes_ && right.starts_with(unicode::kSpaceMark) && !left.ends_with(unicode::kSpaceMark))
      joined_to_marks_.insert(char_before(left, left.size()));
  }

  void read_bytes(bool fallback) {
    for (int b = 0; b < 256; ++b) {
      const char byte = static_cast<char>(b);
      byte_ids_[b] = bytes_     ? vocabulary_.find(byte_level::to_chars({&byte, 1}))
                     : fallback ? vocabulary_.find(fmt::format("<0x{:02X}>", b))
                                : -1;
    }
  }

  void encode_whole(std::string_view word, std::vector<int32_t>& ids) const {
    if (ignore_merges_) {
      const int32_t id = vocabulary_.find(bytes_ ? byte_level::to_chars(word) : std::string(word));
      if (id >= 0) return ids.push_back(id);
    }
    const size_t begin = ids.size();
    bytes_ ? add_bytes(word, ids) : add_chars(word, ids);
    ids.size() - begin <= kShort ? merge_few(table_, ids, begin) : merge_many(table_, ids, begin);
  }

  void add_bytes(std::string_view word, std::vector<int32_t>& ids) const {
    for (const char c : word) {
      const int32_t id = byte_ids_[static_cast<unsigned char>(c)];
      if (id >= 0 || unknown_ >= 0) ids.push_back(id >= 0 ? id : unknown_);
    }
  }

  void add_chars(std::string_view word, std::vector<int32_t>& ids) const {
    bool unknown_before = false;
    std::string symbol;
    unicode::for_each_char(word, [&](char32_t, std::string_view c) {
      const bool first = c.data() == word.data(), last = c.data() + c.size() == word.data() + word.size();
      symbol.assign(first ? "" : prefix_).append(c).append(last ? suffix_ : "");
      const int32_t id = vocabulary_.find(symbol);
      if (id >= 0) {
        ids.push_back(id);
      } else if (has_bytes(symbol)) {
        for (const char b : symbol) ids.push_back(byte_ids_[static_cast<unsigned char>(b)]);
      } else if (unknown_ >= 0 && !(unknown_before && fuse_unknown_)) {
        ids.push_back(unknown_);
      }
      unknown_before = id < 0 && !has_bytes(symbol);
    });
  }

  bool has_bytes(std::string_view symbol) const {
    return std::all_of(symbol.begin(), symbol.end(),
                       [&](char b) { return byte_ids_[static_cast<unsigned char>(b)] >= 0; });
  }

  const Vocabulary& vocabulary_;
  bool bytes_, ignore_merges_, fuse_unknown_;
  std::string prefix_, suffix_;
  int32_t unknown_ = -1;
  PairTable table_;
  int32_t byte_ids_[256] = {};
  std::unordered_set<char32_t> joined_to_marks_;  // last characters of what merges join to a mark behind it
  bool cuts_at_marks_ = false;
  mutable WordCache words_;
};

}  // namespace

std::unique_ptr<WordModel> make_bpe(const JsonPart& part, bool bytes, Vocabulary& vocabulary) {
  return std::make_unique<Bpe>(part, bytes, vocabulary);
}

}  // namespace sennit::tokenizers
