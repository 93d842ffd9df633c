#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "io/json_file.h"
#include "tokenizers/sentencepiece.h"
#include "tokenizers/tokenizer.h"

namespace sennit::tokenizers {
namespace {

class Bytes final : public Tokenizer {
 public:
  static constexpr int32_t kEnd = 256;

  std::string name() const override { return "bytes"; }
  int32_t vocab_size() const override { return kEnd + 1; }
  SpecialTokens special() const override { return {.eos = kEnd}; }
  uint64_t fingerprint() const override { return hash64("sennit bytes 257"); }

  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> ids(text.size());
    for (size_t i = 0; i < text.size(); ++i) ids[i] = static_cast<unsigned char>(text[i]);
    return ids;
  }

  std::string decode(std::span<const int32_t> ids) const override {
    std::string text;
    text.reserve(ids.size());
    for (const int32_t id : ids) {
      check_id(id);
      if (id != kEnd) text += static_cast<char>(id);
    }
    return text;
  }

  std::string bytes(int32_t id) const override { return decode({&id, 1}); }

  std::string piece(int32_t id) const override {
    check_id(id);
    if (id == kEnd) return "</s>";
    return id > 0x20 && id < 0x7f ? std::string(1, static_cast<char>(id)) : fmt::format("<0x{:02X}>", id);
  }

  void save(const std::string& folder) const override {
    io::write_json_file((std::filesystem::path(folder) / kTokenizerFile).string(), {{"tokenizer", "bytes"}});
  }
};

}  // namespace

std::unique_ptr<Tokenizer> bytes_tokenizer() {
  return std::make_unique<Bytes>();
}

}  // namespace sennit::tokenizers
