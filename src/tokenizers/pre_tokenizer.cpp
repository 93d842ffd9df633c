#include "tokenizers/pre_tokenizer.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tokenizers/byte_level.h"
#include "tokenizers/pattern.h"
#include "tokenizers/splits.h"
#include "tokenizers/unicode.h"
#include "tokenizers/word_patterns.h"

namespace sennit::tokenizers {
namespace {

template <class F>
class Step final : public PreTokenizer {
 public:
  explicit Step(F f) : f_(std::move(f)) {}
  void apply(Pieces& pieces) const override { f_(pieces); }

 private:
  F f_;
};

template <class F>
std::unique_ptr<PreTokenizer> step(F f) {
  return std::make_unique<Step<F>>(std::move(f));
}

Piece sub_piece(const Piece& piece, size_t begin, size_t end) {
  return {piece.text.substr(begin, end - begin), piece.first && begin == 0};
}

// Cuts each piece at what `each_match(text, found)` finds.
template <class F>
void split(Pieces& pieces, Cut cut, bool invert, F&& each_match) {
  std::vector<Span> spans;
  pieces.replace([&](const Piece& piece, std::vector<Piece>& out) {
    spans.clear();
    size_t done = 0;
    each_match(piece.text, [&](Regex::Match m) {
      if (m.begin > done) spans.push_back({done, m.begin, invert});
      spans.push_back({m.begin, m.end, !invert});
      done = m.end;
    });
    if (done < piece.text.size()) spans.push_back({done, piece.text.size(), invert});
    apply_cut(spans, cut);
    for (const Span& s : spans) out.push_back(sub_piece(piece, s.begin, s.end));
  });
}

void split(Pieces& pieces, const Pattern& pattern, Cut cut, bool invert) {
  split(pieces, cut, invert, [&](std::string_view text, auto&& found) { pattern.each(text, pieces.budget, found); });
}

// Cuts at characters, each of them a delimiter.
template <class F>
std::unique_ptr<PreTokenizer> split_at_chars(Cut cut, F delimits) {
  return step([=](Pieces& pieces) {
    split(pieces, cut, false, [&](std::string_view text, auto&& found) {
      for (size_t at = 0; at < text.size();) {
        const size_t begin = at;
        if (delimits(unicode::next(text, at))) found(Regex::Match{begin, at});
      }
    });
  });
}

std::unique_ptr<PreTokenizer> byte_level_words(const JsonPart& part, bool keep_bytes) {
  const bool prefix = part.flag("add_prefix_space", true);
  std::optional<Pattern> words;
  if (part.flag("use_regex", true)) words.emplace(Regex(kGpt2Words, part.where()));
  return step([prefix, keep_bytes, words = std::move(words)](Pieces& pieces) {
    if (prefix)
      pieces.replace([&](const Piece& piece, std::vector<Piece>& out) {
        const bool spaced = piece.text.empty() || piece.text.front() == ' ';
        out.push_back(spaced ? piece : Piece{pieces.keep(std::string(1, ' ').append(piece.text)), piece.first});
      });
    if (words) split(pieces, *words, Cut::isolated, false);
    if (!keep_bytes)
      for (Piece& piece : pieces.list) piece.text = pieces.keep(byte_level::to_chars(piece.text));
  });
}

std::unique_ptr<PreTokenizer> metaspace(const JsonPart& part) {
  const std::string mark = part.text("replacement", std::string(unicode::kSpaceMark));
  const bool old_prefix = part.flag("add_prefix_space", true);  // of files without prepend_scheme
  const std::string scheme = part.text("prepend_scheme", old_prefix ? "always" : "never");
  if (mark.empty()) part.refuse("replacement", "a character", "none");
  if (scheme != "always" && scheme != "first" && scheme != "never")
    part.refuse("prepend_scheme", "always, first or never", "`" + scheme + "`");
  return step([=, cut = part.flag("split", true)](Pieces& pieces) {
    pieces.replace([&](const Piece& piece, std::vector<Piece>& out) {
      std::string text;
      for (const char c : piece.text) c == ' ' ? text += mark : text += c;
      const bool wanted = scheme == "always" || (scheme == "first" && piece.first);
      if (wanted && !text.empty() && !text.starts_with(mark)) text.insert(0, mark);
      out.push_back({pieces.keep(std::move(text)), piece.first});
    });
    if (!cut) return;
    split(pieces, Cut::merged_with_next, false, [&](std::string_view text, auto&& found) {
      for (size_t at = 0; (at = text.find(mark, at)) != text.npos; at += mark.size())
        found(Regex::Match{at, at + mark.size()});
    });
  });
}

// Runs of word characters, and runs of what is neither word nor space.
std::unique_ptr<PreTokenizer> words_and_marks() {
  return step([](Pieces& pieces) {
    pieces.replace([](const Piece& piece, std::vector<Piece>& out) {
      const auto kind = [](char32_t c) { return unicode::is_word(c) ? 1 : unicode::is_space(c) ? 0 : 2; };
      size_t begin = 0;
      int before = 0;
      unicode::for_each_char(piece.text, [&](char32_t c, std::string_view s) {
        const size_t at = s.data() - piece.text.data();
        const int now = kind(c);
        if (now != before && before != 0) out.push_back(sub_piece(piece, begin, at));
        if (now != before) begin = at;
        before = now;
      });
      if (before != 0) out.push_back(sub_piece(piece, begin, piece.text.size()));
    });
  });
}

// Cut at spaces, which go, and at punctuation, each mark a piece; in one walk.
std::unique_ptr<PreTokenizer> bert() {
  return step([](Pieces& pieces) {
    pieces.replace([&](const Piece& piece, std::vector<Piece>& out) {
      size_t begin = 0;
      const auto add = [&](size_t end) {
        if (end > begin) out.push_back(sub_piece(piece, begin, end));
      };
      for (size_t at = 0; at < piece.text.size();) {
        const size_t start = at;
        const char32_t c = unicode::next(piece.text, at);
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) continue;
        const bool space = unicode::is_space(c);
        if (!space && !unicode::is_punctuation(c)) continue;
        add(start);
        begin = start;
        if (!space) add(at);
        begin = at;
      }
      add(piece.text.size());
    });
  });
}

std::unique_ptr<PreTokenizer> sequence(const JsonPart& part, PreTokenizerOptions options, int depth) {
  if (depth > 8) part.refuse("type", "at most 8 sequences inside each other", "more");
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  const std::vector<JsonPart> parts = part.list("pretokenizers");
  for (const JsonPart& p : parts)
    steps.push_back(make_pre_tokenizer(p, {.keep_bytes = options.keep_bytes && &p == &parts.back()}, depth + 1));
  return step([steps = std::move(steps)](Pieces& pieces) {
    for (const auto& s : steps) s->apply(pieces);
  });
}

std::unique_ptr<PreTokenizer> delimiter(const JsonPart& part) {
  const std::string text = part.text("delimiter");
  size_t at = 0;
  const char32_t wanted = text.empty() ? 0 : unicode::next(text, at);
  if (at != text.size() || text.empty()) part.refuse("delimiter", "one character", "`" + text + "`");
  return split_at_chars(Cut::removed, [wanted](char32_t c) { return c == wanted; });
}

}  // namespace

std::unique_ptr<PreTokenizer> make_pre_tokenizer(const JsonPart& part, PreTokenizerOptions options, int depth) {
  const std::string type = part.text("type");
  if (type == "Sequence") return sequence(part, options, depth);
  if (type == "ByteLevel") return byte_level_words(part, options.keep_bytes);
  if (type == "Metaspace") return metaspace(part);
  if (type == "Split")
    return step([pattern = Pattern(part), cut = cut_named(part.text("behavior"), part.where("behavior")),
                 invert = part.flag("invert", false)](Pieces& pieces) { split(pieces, pattern, cut, invert); });
  if (type == "Digits")
    return split_at_chars(part.flag("individual_digits", false) ? Cut::isolated : Cut::contiguous, unicode::is_number);
  if (type == "Punctuation")
    return split_at_chars(cut_named(part.text("behavior", "Isolated"), part.where("behavior")),
                          unicode::is_punctuation);
  if (type == "Whitespace") return words_and_marks();
  if (type == "WhitespaceSplit") return split_at_chars(Cut::removed, unicode::is_space);
  if (type == "BertPreTokenizer") return bert();
  if (type == "CharDelimiterSplit") return delimiter(part);
  part.refuse_type({"Sequence", "ByteLevel", "Metaspace", "Split", "Digits", "Punctuation", "Whitespace",
                    "WhitespaceSplit", "BertPreTokenizer", "CharDelimiterSplit"});
}

bool ends_in_bytes(const JsonPart& part) {
  if (part.text("type") == "ByteLevel") return true;
  if (part.text("type") != "Sequence") return false;
  const std::vector<JsonPart> steps = part.list("pretokenizers");
  return !steps.empty() && ends_in_bytes(steps.back());
}

}  // namespace sennit::tokenizers
