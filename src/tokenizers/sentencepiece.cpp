#include "tokenizers/sentencepiece.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "base/error.h"
#include "io/atomic_file.h"
#include "io/checksum.h"
#include "io/mapped_file.h"
#include "tokenizers/added_tokens.h"
#include "tokenizers/sentencepiece_library.h"
#include "tokenizers/unicode.h"
#include "tokenizers/word_cache.h"

namespace sennit::tokenizers {
namespace {


bool crosses_words(std::string_view piece) {
  size_t word = 0;
  while (piece.substr(word).starts_with(unicode::kSpaceMark)) word += unicode::kSpaceMark.size();
  const bool newline_inside = piece.size() > 1 && piece.find('\n') != piece.npos;
  return newline_inside || (word < piece.size() && piece.find(unicode::kSpaceMark, word) != piece.npos);
}

class SentencePiece final : public Tokenizer {
 public:
  SentencePiece(std::string model, const std::string& where) : model_(std::move(model)) {
    quiet_sentencepiece();
    try {
      const auto status = processor_.LoadFromSerializedProto(model_);
      if (!status.ok()) fail({"sentencepiece", "a tokenizer.model", status.ToString(), where});
    } catch (const Error&) {
      throw;
    } catch (const std::exception& e) {  // an empty piece, say
      fail({"sentencepiece", "a tokenizer.model", e.what(), where});
    }
    if (processor_.GetPieceSize() < 1 || processor_.unk_id() < 0)
      fail({"sentencepiece", "a model with an unknown token", "none", where});
    lossless_ = model_.find(kLosslessMark) != std::string::npos;
    for (int id = 0; id < vocab_size(); ++id)
      if (processor_.IsControl(id)) special_.add({.id = id, .special = true}, processor_.IdToPiece(id));
    for (int id = 0; lossless_ && id < vocab_size(); ++id)
      if (crosses_words(processor_.IdToPiece(id)))
        fail({"sentencepiece", "pieces inside words", fmt::format("`{}`", processor_.IdToPiece(id)), where});
    for (int byte = 0; lossless_ && byte < 256; ++byte) {
      byte_ids_[byte] = processor_.PieceToId(fmt::format("<0x{:02X}>", byte));
      if (!processor_.IsByte(byte_ids_[byte]))
        fail({"sentencepiece", "a piece for each byte", fmt::format("none for {}", byte), where});
    }
  }

  std::string name() const override { return "sentencepiece"; }
  int32_t vocab_size() const override { return processor_.GetPieceSize(); }
  SpecialTokens special() const override {
    return {processor_.bos_id(), processor_.eos_id(), processor_.unk_id(), processor_.pad_id()};
  }
  bool is_special(int32_t id) const override { return check_id(id), processor_.IsControl(id); }
  uint64_t fingerprint() const override { return io::xxh64(model_); }

  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> ids;
    if (!lossless_) {
      append(text, ids);
      return ids;
    }
    // The library reads U+2581 as a space and broken bytes as U+FFFD: both go in as bytes.
    size_t begin = 0;
    for (size_t at = 0; at < text.size();) {
      const Utf8Start start = utf8_start(text.substr(at));
      const bool mark = text.substr(at).starts_with(unicode::kSpaceMark);
      if (start.kind != Utf8Start::whole || mark) {
        append_words(text.substr(begin, at - begin), ids);
        for (int i = 0; i < start.length; ++i) ids.push_back(byte_ids_[static_cast<unsigned char>(text[at + i])]);
        begin = at + start.length;
      }
      at += start.length;
    }
    append_words(text.substr(begin), ids);
    return ids;
  }

  std::vector<int32_t> encode_prompt(std::string_view text, const PromptOptions& options) const override {
    std::vector<int32_t> ids;
    if (options.add_special && !lossless_ && processor_.bos_id() >= 0) ids.push_back(processor_.bos_id());
    const auto plain = [&](std::string_view part) {
      const std::vector<int32_t> more = encode(part);
      ids.insert(ids.end(), more.begin(), more.end());
    };
    special_.split(text, options.parse_special, plain, [&](int32_t id) { ids.push_back(id); });
    return ids;
  }

  std::string decode(std::span<const int32_t> ids) const override {
    for (const int32_t id : ids) check_id(id);
    std::string text;
    if (lossless_) {
      for (const int32_t id : ids) text += bytes(id);
      return text;
    }
    const auto status = processor_.Decode(std::vector<int>(ids.begin(), ids.end()), &text);
    if (!status.ok()) fail({"sentencepiece", "ids to decode", status.ToString()});
    return text;
  }

  std::string bytes(int32_t id) const override {
    check_id(id);
    if (processor_.IsControl(id)) return "";
    const std::string& text = processor_.IdToPiece(id);
    if (processor_.IsByte(id) && text.size() == 6) {  // "<0x0A>"
      unsigned char byte = 0;
      std::from_chars(text.data() + 3, text.data() + 5, byte, 16);
      return std::string(1, static_cast<char>(byte));
    }
    if (processor_.IsUnknown(id)) return " \xE2\x81\x87 ";  // U+2047 between spaces, as the library decodes it
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const bool mark = std::string_view(text).substr(at).starts_with(unicode::kSpaceMark);
      out += mark ? ' ' : text[at];
      at += mark ? unicode::kSpaceMark.size() : 1;
    }
    return out;
  }

  std::string piece(int32_t id) const override {
    check_id(id);
    return processor_.IdToPiece(id);
  }

  void save(const std::string& folder) const override {
    io::write_file((std::filesystem::path(folder) / "tokenizer.model").string(), model_);
  }

 private:
  // No piece goes on behind a newline or from a character into a space (the constructor saw to it), so that cuts there
  // change nothing, and words can be remembered.
  void append_words(std::string_view text, std::vector<int32_t>& ids) const {
    const auto encode = [this](std::string_view word, std::vector<int32_t>& out) { append(word, out); };
    while (!text.empty()) {
      size_t end = std::min(text.find_first_not_of(' '), text.size());
      if (end < text.size()) end = text[end] == '\n' ? end + 1 : std::min(text.find_first_of(" \n", end), text.size());
      words_.append(text.substr(0, end), ids, encode);
      text.remove_prefix(end);
    }
  }

  void append(std::string_view text, std::vector<int32_t>& ids) const {
    if (text.empty()) return;
    std::vector<int> part;
    const auto status = processor_.Encode({text.data(), text.size()}, &part);
    if (!status.ok()) fail({"sentencepiece", "text to encode", status.ToString()});
    ids.insert(ids.end(), part.begin(), part.end());
  }

  std::string model_;
  sentencepiece::SentencePieceProcessor processor_;
  bool lossless_ = false;
  int32_t byte_ids_[256] = {};
  TokenFinder special_;
  mutable WordCache words_;
};

}  // namespace

std::unique_ptr<Tokenizer> save_model(std::string model, const std::string& folder) {
  auto tokenizer = std::make_unique<SentencePiece>(std::move(model), folder);
  tokenizer->save(folder);
  return tokenizer;
}

std::unique_ptr<Tokenizer> load_sentencepiece(const std::string& path) {
  return std::make_unique<SentencePiece>(std::string(io::MappedFile::open(path)->text()), path);
}

}  // namespace sennit::tokenizers
