#include "data/token_file.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace sennit::data {
namespace {

constexpr char kMagic[8] = {'S', 'N', 'T', 'T', 'O', 'K', 'E', 'N'};
constexpr uint64_t kMost = uint64_t{1} << 48;  // tokens or documents; keeps sizes far from overflow
constexpr uint64_t kMaxVocab = uint64_t{1} << 31;

uint64_t header_checksum(const TokenFileHeader& h) {
  return io::xxh64(std::string_view(reinterpret_cast<const char*>(&h), offsetof(TokenFileHeader, header_checksum)));
}

uint64_t padded(uint64_t bytes) {
  return (bytes + 7) / 8 * 8;
}

}  // namespace

TokenFile::TokenFile(const std::string& path) : where_(path), file_(io::MappedFile::open(path)) {
  open(file_->bytes());
}

TokenFile::TokenFile(std::span<const std::byte> bytes, const std::string& where) : where_(where) {
  open(bytes);
}

void TokenFile::open(std::span<const std::byte> bytes) {
  const auto refuse = [&](const std::string& expected, const std::string& found) {
    fail({"token file", expected, found, where_});
  };
  if (bytes.size() < sizeof header_)
    refuse(fmt::format("at least {} bytes", sizeof header_), fmt::format("{}", bytes.size()));
  SENNIT_CHECK(reinterpret_cast<uintptr_t>(bytes.data()) % 8 == 0);
  std::memcpy(&header_, bytes.data(), sizeof header_);
  if (std::memcmp(header_.magic, kMagic, 8) != 0) refuse("a token file", "other content");
  if (header_.version != 1) refuse("version 1", fmt::format("version {}", header_.version));
  if (header_checksum(header_) != header_.header_checksum) refuse("an intact header", "a wrong checksum of it");
  const auto& [magic, version, width, tokens, documents, fingerprint, vocab, end, sum, own_sum] = header_;
  if (width != 2 && width != 4) refuse("tokens of 2 or 4 bytes", fmt::format("{}", width));
  if (tokens > kMost || documents > tokens)
    refuse("no more documents than tokens", fmt::format("{} and {}", documents, tokens));
  if (vocab < 1 || vocab >= kMaxVocab) refuse("a vocabulary from 1 to 2^31 - 1", fmt::format("{}", vocab));
  if (end < -1 || end >= static_cast<int64_t>(vocab))
    refuse("an end-of-document id in the vocabulary, or -1", fmt::format("{}", end));
  const uint64_t size = sizeof header_ + padded(tokens * width) + 8 * (documents + 1);
  if (bytes.size() != size) refuse(fmt::format("{} bytes", size), fmt::format("{}", bytes.size()));
  content_ = bytes.subspan(sizeof header_);
  offsets_ = reinterpret_cast<const uint64_t*>(content_.data() + padded(tokens * width));
  if (offsets_[0] != 0 || offsets_[documents] != tokens) refuse("documents from the first token to the last", "others");
  for (uint64_t d = 0; d < documents; ++d)
    if (offsets_[d] >= offsets_[d + 1])
      refuse(fmt::format("document {} to hold tokens", d), "an end at or before its begin");
}

int64_t TokenFile::document_at(int64_t token) const {
  SENNIT_CHECK(token >= 0 && token < tokens(), "token {} of {}", token, tokens());
  const uint64_t* end = offsets_ + documents() + 1;
  return std::upper_bound(offsets_, end, static_cast<uint64_t>(token)) - offsets_ - 1;
}

void TokenFile::read(int64_t begin, std::span<int32_t> out) const {
  const auto n = static_cast<int64_t>(out.size());
  SENNIT_CHECK(begin >= 0 && begin + n <= tokens(), "tokens {}+{} of {}", begin, n, tokens());
  uint32_t highest = 0;
  const auto copy = [&](const auto* from) {
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t id = from[i];
      highest = std::max(highest, id);
      out[i] = static_cast<int32_t>(id);
    }
  };
  if (header_.token_bytes == 2)
    copy(reinterpret_cast<const uint16_t*>(content_.data()) + begin);
  else
    copy(reinterpret_cast<const uint32_t*>(content_.data()) + begin);
  if (highest >= header_.vocab_size)
    fail({"token file", fmt::format("ids below {}", header_.vocab_size),
          fmt::format("{} in tokens {}+{}", highest, begin, n), where_});
}

void TokenFile::verify() const {
  if (io::xxh64(content_) != header_.checksum) fail({"token file", "intact content", "a wrong checksum of it", where_});
}

void TokenFile::check_tokenizer(const tokenizers::Tokenizer& tokenizer) const {
  if (fingerprint() != tokenizer.fingerprint())
    fail({"token file", fmt::format("tokens of the tokenizer `{}` in use", tokenizer.name()), "those of another",
          where_});
}

TokenFileWriter::TokenFileWriter(const std::string& path, const tokenizers::Tokenizer& tokenizer)
    : file_(path),
      header_{.magic = {},
              .version = 1,
              .token_bytes = tokenizer.vocab_size() <= 65536 ? 2u : 4u,
              .tokens = 0,
              .documents = 0,
              .fingerprint = tokenizer.fingerprint(),
              .vocab_size = static_cast<uint32_t>(tokenizer.vocab_size()),
              .end_token = tokenizer.special().eos,
              .checksum = 0,
              .header_checksum = 0} {
  std::memcpy(header_.magic, kMagic, sizeof kMagic);
  file_.write(&header_, sizeof header_);
}

void TokenFileWriter::put(const void* data, size_t bytes) {
  const auto* p = static_cast<const char*>(data);
  buffer_.insert(buffer_.end(), p, p + bytes);
  if (buffer_.size() >= (1 << 20)) flush();
}

void TokenFileWriter::flush() {
  hash_.update(buffer_.data(), buffer_.size());
  file_.write(buffer_.data(), buffer_.size());
  buffer_.clear();
}

void TokenFileWriter::add(std::span<const int32_t> document) {
  if (document.empty()) return;
  const auto put_token = [&](int32_t id) {
    SENNIT_CHECK(id >= 0 && static_cast<uint32_t>(id) < header_.vocab_size, "token {}", id);
    put(&id, header_.token_bytes);
    ++header_.tokens;
  };
  for (const int32_t id : document) put_token(id);
  if (header_.end_token >= 0) put_token(header_.end_token);
  offsets_.push_back(header_.tokens);
  ++header_.documents;
}

void TokenFileWriter::commit() {
  const uint64_t zeros = 0, bytes = header_.tokens * header_.token_bytes;
  put(&zeros, padded(bytes) - bytes);
  put(offsets_.data(), offsets_.size() * sizeof(uint64_t));
  flush();
  header_.checksum = hash_.digest();
  header_.header_checksum = header_checksum(header_);
  file_.overwrite(0, &header_, sizeof header_);
  file_.commit();
}

}  // namespace sennit::data
