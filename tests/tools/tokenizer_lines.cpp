// tokenizer_lines TOKENIZER: answers each line of standard input, a JSON object, with one line.
//   {"hex": bytes}            the ids of a text as a prompt and as plain text, and what both decode to
//   {"unassigned": true}      ranges of characters that the engine's patterns take for unassigned
//   {"time": path}            megabytes of a file in a second of processor time
//   {"template", "context"}   the text of a chat template
#include <fmt/format.h>

#include <charconv>
#include <ctime>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/fields.h"
#include "base/utf8.h"
#include "io/mapped_file.h"
#include "sennit/error.h"
#include "tokenizers/chat_template.h"
#include "tokenizers/regex.h"
#include "tokenizers/tokenizer.h"

namespace sennit::tokenizers {
namespace {

std::string from_hex(const std::string& hex) {
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    unsigned char byte = 0;
    std::from_chars(hex.data() + i, hex.data() + i + 2, byte, 16);
    out += static_cast<char>(byte);
  }
  return out;
}

std::string to_hex(const std::string& bytes) {
  std::string out;
  for (const char c : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return out;
}

Json unassigned() {
  const Regex regex("\\p{Cn}", "unassigned");
  Json ranges = Json::array();
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c == 0xd800) c = 0xe000;
    std::string text;
    append_utf8(text, c);
    Regex::Match m;
    if (!regex.search(text, 0, m)) continue;
    if (!ranges.empty() && ranges.back()[1] == static_cast<uint32_t>(c) - 1)
      ranges.back()[1] = static_cast<uint32_t>(c);
    else
      ranges.push_back({static_cast<uint32_t>(c), static_cast<uint32_t>(c)});
  }
  return ranges;
}

// The text in parts of a document's size.
Json timed(const Tokenizer& t, const std::string& path) {
  const auto file = io::MappedFile::open(path);
  const std::string_view text = file->text();
  size_t tokens = 0;
  const std::clock_t start = std::clock();
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', std::min(at + 65536, text.size() - 1)), text.size() - 1) + 1;
    tokens += t.encode(text.substr(at, end - at)).size();
    at = end;
  }
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  return {{"mb_per_second", 1e-6 * static_cast<double>(text.size()) / seconds}, {"tokens", tokens}};
}

Json rendered(const Json& ask) {
  try {
    return {{"text", ChatTemplate(ask["template"]).render(ask["context"])}};
  } catch (const Error& e) {
    return {{"error", e.what()}};
  }
}

Json answer(const Tokenizer& t, const Json& ask) {
  if (ask.contains("unassigned")) return unassigned();
  if (ask.contains("template")) return rendered(ask);
  if (ask.contains("time")) return timed(t, ask["time"]);
  const std::string text = from_hex(ask["hex"]);
  const auto prompt = t.encode_prompt(text), plain = t.encode(text);
  return {
      {"prompt", prompt}, {"plain", plain}, {"decoded", to_hex(t.decode(prompt))}, {"read", to_hex(t.decode(plain))}};
}

}  // namespace
}  // namespace sennit::tokenizers

int main(int count, char** arguments) {
  using namespace sennit;
  if (count != 2) return 2;
  try {
    const auto tokenizer = tokenizers::load_tokenizer(arguments[1]);
    for (std::string line; std::getline(std::cin, line);)
      fmt::print("{}\n", json_text(tokenizers::answer(*tokenizer, json_of(line))));
  } catch (const std::exception& e) {
    fmt::print(stderr, "tokenizer_lines: {}\n", e.what());
    return 1;
  }
}
