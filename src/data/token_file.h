#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/atomic_file.h"
#include "io/checksum.h"
#include "io/mapped_file.h"
#include "tokenizers/tokenizer.h"

namespace sennit::data {

// A token file holds documents as token ids, back to back. Little-endian:
//   offset  0  "SNTTOKEN"
//           8  u32 version = 1            12  u32 bytes of a token: 2 or 4
//          16  u64 tokens                 24  u64 documents
//          32  u64 tokenizer fingerprint  40  u32 vocabulary size   44  i32 end-of-document id, -1 for none
//          48  u64 xxHash64 of all after the header                 56  u64 xxHash64 of bytes 0-55
//          64  tokens, zeros up to a multiple of 8, then documents + 1 u64: where each document begins, and the end
// When the end-of-document id is not -1, every document ends with it.
struct TokenFileHeader {
  char magic[8];
  uint32_t version, token_bytes;
  uint64_t tokens, documents, fingerprint;
  uint32_t vocab_size;
  int32_t end_token;
  uint64_t checksum, header_checksum;
};
static_assert(sizeof(TokenFileHeader) == 64);

// A view of a token file in memory; ids and offsets are checked as they are read.
class TokenFile {
 public:
  explicit TokenFile(const std::string& path);                            // maps the file
  TokenFile(std::span<const std::byte> bytes, const std::string& where);  // the bytes must outlive it

  int64_t tokens() const { return static_cast<int64_t>(header_.tokens); }
  int64_t documents() const { return static_cast<int64_t>(header_.documents); }
  int32_t vocab_size() const { return static_cast<int32_t>(header_.vocab_size); }
  int32_t end_token() const { return header_.end_token; }
  uint64_t fingerprint() const { return header_.fingerprint; }
  const std::string& path() const { return where_; }

  int64_t document_begin(int64_t document) const { return static_cast<int64_t>(offsets_[document]); }
  int64_t document_end(int64_t document) const { return static_cast<int64_t>(offsets_[document + 1]); }
  int64_t document_at(int64_t token) const;  // the document that holds a token

  // Copies tokens [begin, begin + out.size()). Throws Error on an id outside the vocabulary.
  void read(int64_t begin, std::span<int32_t> out) const;

  void verify() const;  // throws Error when the content differs from its checksum
  // Throws Error when the file was made by another tokenizer.
  void check_tokenizer(const tokenizers::Tokenizer& tokenizer) const;

 private:
  void open(std::span<const std::byte> bytes);
  std::string where_;
  std::shared_ptr<const io::MappedFile> file_;
  TokenFileHeader header_{};
  std::span<const std::byte> content_;  // after the header
  const uint64_t* offsets_ = nullptr;
};

// Writes a token file atomically, document by document.
class TokenFileWriter {
 public:
  TokenFileWriter(const std::string& path, const tokenizers::Tokenizer& tokenizer);
  // Adds the end-of-document id of the tokenizer, if it has one. Documents without tokens are dropped.
  void add(std::span<const int32_t> document);
  int64_t tokens() const { return static_cast<int64_t>(header_.tokens); }
  int64_t documents() const { return static_cast<int64_t>(header_.documents); }
  void commit();

 private:
  void put(const void* data, size_t bytes);
  void flush();
  io::AtomicFile file_;
  TokenFileHeader header_;
  io::Xxh64 hash_;
  std::vector<char> buffer_;
  std::vector<uint64_t> offsets_ = {0};
};

}  // namespace sennit::data
