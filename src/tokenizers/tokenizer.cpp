#include "tokenizers/tokenizer.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/json_file.h"
#include "tokenizers/sentencepiece.h"

namespace sennit::tokenizers {

void Tokenizer::check_id(int32_t id) const {
  if (id < 0 || id >= vocab_size())
    fail({"tokenizer", fmt::format("a token id from 0 to {}", vocab_size() - 1), fmt::format("{}", id), name()});
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (path == "bytes" && !fs::exists(path, ignored)) return bytes_tokenizer();
  fs::path file(path);
  if (fs::is_directory(file, ignored)) {
    file = fs::path(path) / "tokenizer.model";
    if (!fs::exists(file, ignored)) file = fs::path(path) / kTokenizerFile;
    if (!fs::exists(file, ignored))
      fail({"tokenizer", fmt::format("tokenizer.model or {}", kTokenizerFile), "neither", path});
  }
  if (file.extension() != ".json") return load_sentencepiece(file.string());
  const Json settings = io::read_json_file(file.string(), {.max_bytes = 1 << 20});
  const auto kind = settings.is_object() ? settings.find("tokenizer") : settings.end();
  if (kind == settings.end() || *kind != "bytes")
    fail({"tokenizer", "\"tokenizer\": \"bytes\"", "something else", file.string()});
  return bytes_tokenizer();
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
  first_ = first_ && tokenizer_.special().contains(id);
  return stream_.push(bytes);
}

}  // namespace sennit::tokenizers
