#include "tokenizers/normalizer.h"

#include "base/error.h"
#include "base/utf8.h"
#include "tokenizers/byte_level.h"
#include "tokenizers/pattern.h"
#include "tokenizers/unicode.h"

namespace sennit::tokenizers {
namespace {

template <class F>
class NormalizingStep final : public Normalizer {
 public:
  explicit NormalizingStep(F f) : f_(std::move(f)) {}
  std::string apply(std::string text, size_t most) const override {
    if constexpr (std::is_invocable_v<F, std::string, size_t>)
      return f_(std::move(text), most);
    else
      return f_(std::move(text));
  }

 private:
  F f_;
};

template <class F>
std::unique_ptr<Normalizer> normalizing(F f) {
  return std::make_unique<NormalizingStep<F>>(std::move(f));
}

template <class F>
std::string keep_if(std::string_view text, F&& wanted) {
  std::string out;
  out.reserve(text.size());
  unicode::for_each_char(text, [&](char32_t c, std::string_view s) {
    if (wanted(c)) out += s;
  });
  return out;
}

std::string strip(std::string text, bool left, bool right) {
  size_t begin = text.size(), end = 0;
  size_t at = 0;
  while (at < text.size()) {
    const size_t start = at;
    if (unicode::is_space(unicode::next(text, at))) continue;
    begin = std::min(begin, start), end = at;
  }
  if (!left) begin = 0;
  if (!right) end = text.size();
  return begin < end ? text.substr(begin, end - begin) : "";
}

std::string replace_all(const Pattern& pattern, const std::string& by, const std::string& text, size_t most) {
  RegexBudget budget(text.size());
  std::string out;
  size_t copied = 0;
  pattern.each(text, budget, [&](Regex::Match m) {
    out.append(text, copied, m.begin - copied);
    out += by;
    copied = m.end;
    if (out.size() > most) fail({"tokenizer", fmt::format("a normalized text of {} bytes at most", most), "more"});
  });
  return out.append(text, copied);
}

struct BertSettings {
  bool clean, han, lower, strip_accents;
};

void add_bert_ascii(std::string_view run, const BertSettings& s, std::string& out) {
  for (const char c : run) {
    const bool space = c == ' ' || (c >= '\t' && c <= '\r'), tab_or_line = c == '\t' || c == '\n' || c == '\r';
    if (s.clean && (c < ' ' || c == 0x7f) && !tab_or_line) continue;
    out += s.clean && space ? ' ' : s.lower && c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
  }
}

void add_bert_other(std::string_view run, const BertSettings& s, std::string& out) {
  std::string kept;
  unicode::for_each_char(run, [&](char32_t c, std::string_view text) {
    if (s.clean && (c == 0xfffd || unicode::is_control(c))) return;
    if (s.clean && unicode::is_space(c))
      kept += ' ';
    else if (s.han && unicode::is_han(c))
      kept += ' ', kept += text, kept += ' ';
    else
      kept += text;
  });
  if (s.strip_accents)
    kept = keep_if(unicode::normalize(unicode::Form::nfd, std::move(kept)),
                   [](char32_t c) { return !unicode::is_nonspacing_mark(c); });
  out += s.lower ? unicode::lower(kept) : kept;
}

// Runs of ASCII and of other characters by themselves: nothing that is done to one depends on its neighbours, as ASCII
// never combines.
std::unique_ptr<Normalizer> bert(const JsonPart& part) {
  const bool lower = part.flag("lowercase", true);
  const BertSettings s{part.flag("clean_text", true), part.flag("handle_chinese_chars", true), lower,
                       part.flag("strip_accents", lower)};
  return normalizing([s](const std::string& text) {
    std::string out;
    out.reserve(text.size());
    const auto ascii = [&](size_t i) { return static_cast<unsigned char>(text[i]) < 0x80; };
    for (size_t begin = 0, end = 0; begin < text.size(); begin = end) {
      while (end < text.size() && ascii(end) == ascii(begin)) ++end;
      const std::string_view run = std::string_view(text).substr(begin, end - begin);
      ascii(begin) ? add_bert_ascii(run, s, out) : add_bert_other(run, s, out);
    }
    return out;
  });
}

std::unique_ptr<Normalizer> sequence(const JsonPart& part, int depth) {
  if (depth > 8) part.refuse("type", "at most 8 sequences inside each other", "more");
  std::vector<std::unique_ptr<Normalizer>> steps;
  for (const JsonPart& p : part.list("normalizers")) steps.push_back(make_normalizer(p, depth + 1));
  return normalizing([steps = std::move(steps)](std::string text, size_t most) {
    for (const auto& s : steps) text = s->apply(std::move(text), most);
    return text;
  });
}

std::unique_ptr<Normalizer> unicode_form(unicode::Form form) {
  return normalizing([form](std::string text) { return unicode::normalize(form, std::move(text)); });
}

}  // namespace

std::unique_ptr<Normalizer> make_normalizer(const JsonPart& part, int depth) {
  const std::string type = part.text("type");
  if (type == "Sequence") return sequence(part, depth);
  if (type == "NFC") return unicode_form(unicode::Form::nfc);
  if (type == "NFD") return unicode_form(unicode::Form::nfd);
  if (type == "NFKC") return unicode_form(unicode::Form::nfkc);
  if (type == "NFKD") return unicode_form(unicode::Form::nfkd);
  if (type == "Lowercase") return normalizing([](std::string text) { return unicode::lower(text); });
  if (type == "StripAccents")
    return normalizing([](std::string text) { return keep_if(text, [](char32_t c) { return !unicode::is_mark(c); }); });
  if (type == "Strip")
    return normalizing([left = part.flag("strip_left", true), right = part.flag("strip_right", true)](std::string text) {
      return strip(std::move(text), left, right);
    });
  if (type == "Prepend")
    return normalizing([prefix = part.text("prepend")](std::string text) { return text.empty() ? text : prefix + text; });
  if (type == "Replace")
    return normalizing([pattern = Pattern(part), by = part.text("content")](const std::string& text, size_t most) {
      return replace_all(pattern, by, text, most);
    });
  if (type == "BertNormalizer") return bert(part);
  if (type == "ByteLevel") return normalizing([](const std::string& text) { return byte_level::to_chars(text); });
  if (type == "Precompiled") return make_precompiled(part);
  part.refuse_type({"Sequence", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip", "Prepend",
                    "Replace", "BertNormalizer", "ByteLevel", "Precompiled"});
}

}  // namespace sennit::tokenizers
