#include "tokenizers/decoder.h"

#include <charconv>

#include "base/error.h"
#include "tokenizers/byte_level.h"
#include "tokenizers/pattern.h"
#include "tokenizers/unicode.h"

namespace sennit::tokenizers {
namespace {

void replace_in(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != text.npos; at += to.size()) text.replace(at, from.size(), to);
}

// "<0x0A>" is the byte 10.
std::string byte_of(std::string token, bool) {
  unsigned char byte = 0;
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return token;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
  return error == std::errc() && end == token.data() + 5 ? std::string(1, static_cast<char>(byte)) : token;
}

std::string word_piece(std::string token, bool first, const std::string& prefix, bool cleanup) {
  if (!first && token.starts_with(prefix))
    token.erase(0, prefix.size());
  else if (!first)
    token.insert(0, 1, ' ');
  constexpr std::string_view kEnglish[][2] = {{" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
                                              {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
                                              {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  if (cleanup)
    for (const auto& [from, to] : kEnglish) replace_in(token, from, to);
  return token;
}

std::string without_ends(std::string token, const std::string& content, int64_t start, int64_t stop) {
  for (; start > 0 && token.starts_with(content); --start) token.erase(0, content.size());
  for (; stop > 0 && token.ends_with(content); --stop) token.erase(token.size() - content.size());
  return token;
}

}  // namespace

Decoder::Decoder() {
  steps_.push_back([](std::string token, bool first) {
    if (!first) token.insert(0, 1, ' ');
    return token;
  });
}

Decoder::Decoder(const JsonPart& part) {
  add(part, 0);
}

std::string Decoder::apply(std::string token, bool first) const {
  for (const Step& step : steps_) token = step(std::move(token), first);
  return token;
}

void Decoder::add_strip(const JsonPart& part) {
  const std::string content = part.text("content");
  const int64_t start = part.integer("start", 0, 0, 1000), stop = part.integer("stop", 0, 0, 1000);
  if (content.empty()) part.refuse("content", "a character", "none");
  if (fused_ && (start > 1 || stop > 0)) part.refuse("start", "at most 1, and 0 for stop, of a whole text", "more");
  steps_.push_back([=, whole = fused_](std::string token, bool first) {
    return whole && !first ? token : without_ends(std::move(token), content, start, stop);
  });
}

void Decoder::add(const JsonPart& part, int depth) {
  const std::string type = part.text("type");
  if (depth > 8) part.refuse("type", "at most 8 sequences inside each other", "more");
  if (fused_ && type != "Strip" && type != "Sequence" && type != "Fuse")
    part.refuse("type", "nothing but Strip behind Fuse", "`" + type + "`");
  if (type == "Sequence") {
    for (const JsonPart& p : part.list("decoders")) add(p, depth + 1);
  } else if (type == "ByteLevel") {
    steps_.push_back([](const std::string& token, bool) { return byte_level::to_bytes(token).value_or(token); });
    fused_ = true;
  } else if (type == "Fuse") {
    fused_ = true;
  } else if (type == "ByteFallback") {
    steps_.push_back(byte_of);
  } else if (type == "WordPiece") {
    steps_.push_back(
        [prefix = part.text("prefix", "##"), cleanup = part.flag("cleanup", true)](std::string token, bool first) {
          return word_piece(std::move(token), first, prefix, cleanup);
        });
  } else if (type == "Metaspace") {
    const bool prefixed =
        part.text("prepend_scheme", part.flag("add_prefix_space", true) ? "always" : "never") != "never";
    steps_.push_back([prefixed, mark = part.text("replacement", std::string(unicode::kSpaceMark))](std::string token, bool first) {
      replace_in(token, mark, first && prefixed ? "" : " ");
      return token;
    });
  } else if (type == "Replace") {
    steps_.push_back(
        [pattern = std::make_shared<Pattern>(part), by = part.text("content")](const std::string& token, bool) {
          RegexBudget budget(token.size());
          std::string out;
          size_t copied = 0;
          pattern->each(token, budget, [&](Regex::Match m) {
            out.append(token, copied, m.begin - copied).append(by);
            copied = m.end;
          });
          return out.append(token, copied);
        });
  } else if (type == "Strip") {
    add_strip(part);
  } else {
    part.refuse_type({"Sequence", "ByteLevel", "Fuse", "ByteFallback", "WordPiece", "Metaspace", "Replace", "Strip"});
  }
}

}  // namespace sennit::tokenizers
