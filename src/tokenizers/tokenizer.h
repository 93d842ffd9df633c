#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/utf8.h"

namespace sennit::tokenizers {

// Ids with a part to play; -1 where a tokenizer has none.
struct SpecialTokens {
  int32_t bos = -1, eos = -1, unk = -1, pad = -1;
  bool contains(int32_t id) const { return id >= 0 && (id == bos || id == eos || id == pad); }
};

// What encode_prompt() does that encode() does not.
struct PromptOptions {
  bool add_special = true;    // put the special tokens around the text that the model was trained with, such as <s>
  bool parse_special = true;  // turn the names of special tokens in the text into those tokens
};

// Text to token ids and back. All functions are safe to call from many threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual std::string name() const = 0;  // "bytes", "sentencepiece", "BPE", "WordPiece", ...
  virtual int32_t vocab_size() const = 0;
  virtual SpecialTokens special() const = 0;

  // Adds no special tokens, and makes none of what the text says.
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  // For prompts. The text must come from somebody who may say special tokens; what users write goes through encode().
  virtual std::vector<int32_t> encode_prompt(std::string_view text, const PromptOptions& options = {}) const;
  // Special tokens add nothing. Throws Error for an id outside [0, vocab_size()).
  virtual std::string decode(std::span<const int32_t> ids) const = 0;
  // What `id` adds to the text in the middle of a sequence: maybe a part of a character, maybe nothing.
  virtual std::string bytes(int32_t id) const = 0;
  // Whether `id` plays a part and adds nothing to a text.
  virtual bool is_special(int32_t id) const;
  // `id` as shown to people: "▁the", "<0x0A>", "</s>".
  virtual std::string piece(int32_t id) const = 0;

  // The same for tokenizers that give the same ids; kept in token files to tell a mix-up.
  virtual uint64_t fingerprint() const = 0;
  // Writes into an existing folder what load_tokenizer() reads.
  virtual void save(const std::string& folder) const = 0;

 protected:
  void check_id(int32_t id) const;
};

// 256 bytes and the end of a document (id 256): every string goes round, vocabulary 257.
std::unique_ptr<Tokenizer> bytes_tokenizer();

// A folder with tokenizer.json, tokenizer.model or sennit_tokenizer.json (the first that is there), one such file, or
// the name "bytes". What a file is shows in what it holds: a tokenizer.json of Hugging Face's library, a SentencePiece
// model, or tiktoken's ranks, whose patterns go by the file's name (cl100k_base.tiktoken).
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path);
// Whether a folder holds one of these files.
bool has_tokenizer(const std::string& folder);

// Turns a stream of bytes into whole UTF-8 characters. Bytes that begin a character wait until it is complete; what can
// no longer become one is replaced by U+FFFD, one for each longest broken run (as WHATWG decoders do).
class Utf8Stream {
 public:
  std::string push(std::string_view bytes);
  std::string finish();  // an unfinished character is broken now

 private:
  std::string waiting_;
};

// Decodes one token after another into text that can be shown at once. All pieces together are decode() of all ids,
// with broken UTF-8 replaced.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string push(int32_t id);
  std::string finish() { return stream_.finish(); }

 private:
  const Tokenizer& tokenizer_;
  Utf8Stream stream_;
  bool first_ = true;
};

}  // namespace sennit::tokenizers
