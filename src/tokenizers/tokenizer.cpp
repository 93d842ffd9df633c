#include "tokenizers/tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/json_file.h"
#include "io/mapped_file.h"
#include "tokenizers/rwkv_world.h"
#include "tokenizers/sentencepiece.h"
#include "tokenizers/tiktoken.h"
#include "tokenizers/tokenizer_json.h"

namespace sennit::tokenizers {

void Tokenizer::check_id(int32_t id) const {
  if (id < 0 || id >= vocab_size())
    fail({"tokenizer", fmt::format("a token id from 0 to {}", vocab_size() - 1), fmt::format("{}", id), name()});
}

std::vector<int32_t> Tokenizer::encode_prompt(std::string_view text, const PromptOptions&) const {
  return encode(text);
}

bool Tokenizer::is_special(int32_t id) const {
  return special().contains(id);
}

namespace {

// The file of a folder that says how to make tokens; "" when there is none.
std::string file_of(const std::string& folder) {
  std::error_code ignored;
  for (const char* name : {"tokenizer.json", "tokenizer.model", kRwkvFile, kTokenizerFile})
    if (const auto file = std::filesystem::path(folder) / name; std::filesystem::exists(file, ignored))
      return file.string();
  return "";
}

bool is_sennit_json(const std::string& file, size_t bytes) {
  constexpr size_t kMost = 1000;  // it names a tokenizer and no more
  return bytes < kMost && io::read_json_file(file).contains("tokenizer");
}

}  // namespace

bool has_tokenizer(const std::string& folder) {
  return !file_of(folder).empty();
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path) {
  std::error_code ignored;
  if (path == "bytes" && !std::filesystem::exists(path, ignored)) return bytes_tokenizer();
  const std::string file = std::filesystem::is_directory(path, ignored) ? file_of(path) : path;
  if (file.empty())
    fail({"tokenizer", fmt::format("tokenizer.json, tokenizer.model, {} or {}", kRwkvFile, kTokenizerFile),
          "none of them", path});
  const auto content = io::MappedFile::open(file);
  const std::string_view text = content->text();
  const size_t start = std::min(text.find_first_not_of(" \t\r\n\xEF\xBB\xBF"), text.size());
  if (text.substr(start).starts_with('{')) {
    if (!is_sennit_json(file, text.size())) return load_tokenizer_json(file);
    if (io::read_json_file(file)["tokenizer"] != "bytes")
      fail({"tokenizer", "\"tokenizer\": \"bytes\"", "something else", file});
    return bytes_tokenizer();
  }
  if (looks_like_rwkv_world(text)) return read_rwkv_world(text, file);
  return looks_like_tiktoken(text) ? load_tiktoken(file) : load_sentencepiece(file);
}

std::string Utf8Stream::push(std::string_view bytes) {
  waiting_ += bytes;
  std::string out;
  std::string_view rest = waiting_;
  while (!rest.empty()) {
    const Utf8Start start = utf8_start(rest);
    if (start.kind == Utf8Start::partial) break;
    out += start.kind == Utf8Start::whole ? rest.substr(0, start.length) : kReplacementCharacter;
    rest.remove_prefix(start.length);
  }
  waiting_ = std::string(rest);
  return out;
}

std::string Utf8Stream::finish() {
  const bool broken = !waiting_.empty();
  waiting_.clear();
  return std::string(broken ? kReplacementCharacter : "");
}

std::string StreamDecoder::push(int32_t id) {
  // The first token may lose the space that an encoder put before the text.
  const std::string bytes = first_ ? tokenizer_.decode({&id, 1}) : tokenizer_.bytes(id);
  first_ = first_ && tokenizer_.is_special(id);
  return stream_.push(bytes);
}

}  // namespace sennit::tokenizers
