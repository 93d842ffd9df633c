#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sennit/error.h"

// Language models for programs: load, generate, look at logits, embed, keep and restore what was read.
//
// Tokens are ids in [0, vocab_size()). Matrices are row-major, a row a token. Errors are thrown as sennit::Error, whose
// text names what was expected, what was found, and where. One model and its sessions belong to one thread at a time;
// inside, the work is spread over all CPUs (the environment variable SENNIT_THREADS limits it).
namespace sennit {

struct LoadOptions {
  bool bf16 = true;    // round the factors of matrix products to bfloat16: faster on most CPUs; sums are always f32
  bool exact = false;  // the same bits however a text is cut into pieces
  // In which sessions keep keys and values of attention: "f32", "bf16", "f16" or "q8_0" (a quarter of the memory).
  std::string cache = "f32";
};

// How the next token is chosen, and when to stop. The filters apply in this order: repetition penalty, temperature,
// top-k, top-p, min-p. The same seed gives the same choices.
struct WriteOptions {
  int64_t max_tokens = 256;
  std::vector<std::string> stop = {};  // texts that end the answer; they are not part of it
  bool stop_at_end = true;             // end where the model ends the text
  double temperature = 0.8;            // 0: always the likeliest token
  int64_t top_k = 0;                   // 0: all
  double top_p = 1, min_p = 0;
  double repetition_penalty = 1;
  int64_t penalty_tokens = 64;  // how many tokens count as recent
  int64_t seed = 0;
};

enum class Ending { max_tokens, stop_text, end_of_text, cancelled };

struct Answer {
  std::string text;             // UTF-8; broken sequences are replaced by U+FFFD
  std::vector<int32_t> tokens;  // as chosen, with those of a stop text
  Ending ending = Ending::max_tokens;
  double prompt_seconds = 0, seconds = 0;  // of reading what was waiting, and of writing
};

// Called with each new piece of the answer, whole UTF-8 characters; returning false ends the answer.
using OnText = std::function<bool(std::string_view piece)>;

class TextSession;

class TextModel {
 public:
  // Loads a checkpoint folder (config.json, model.safetensors, tokenizer) or the newest checkpoint of a training run.
  // Throws Error when a file is missing or damaged, or the parts do not fit one another.
  static TextModel load(const std::string& path, const LoadOptions& options = {});

  int64_t vocab_size() const;
  int64_t width() const;  // numbers of an embedding
  int64_t parameter_count() const;
  int64_t state_bytes(int64_t tokens) const;  // of one session that has read so many tokens

  std::vector<int32_t> encode(std::string_view text) const;
  std::string decode(std::span<const int32_t> tokens) const;  // throws Error on an id outside the vocabulary

  // Continues `prompt`, which must hold at least one token.
  Answer generate(std::string_view prompt, const WriteOptions& options = {}, const OnText& on_text = {}) const;
  // The logits after each of n >= 1 tokens: n rows of vocab_size() numbers.
  std::vector<float> logits(std::span<const int32_t> tokens) const;
  // The mean of the last hidden rows of a text of at least one token: width() numbers.
  std::vector<float> embed(std::string_view text) const;

  TextSession begin() const;                                // an empty text
  // Throws Error for a session of another model, or with another format of keys and values.
  TextSession load_session(const std::string& path) const;

 private:
  friend class TextSession;
  struct Impl;
  explicit TextModel(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

// A text that grows, with what the model keeps of it. It keeps its model alive.
class TextSession {
 public:
  TextSession(TextSession&&) noexcept;
  TextSession& operator=(TextSession&&) noexcept;
  ~TextSession();

  void read(std::string_view text);
  void read(std::span<const int32_t> tokens);  // throws Error on an id outside the vocabulary
  // Continues what was read (at least one token), and reads its own answer.
  Answer write(const WriteOptions& options = {}, const OnText& on_text = {});
  std::vector<float> logits();  // after the last token: vocab_size() numbers

  std::span<const int32_t> tokens() const;  // all that were read or written
  int64_t state_bytes() const;
  TextSession snapshot() const;  // an independent copy
  // Writes one file; TextModel::load_session() goes on from it to the bit.
  void save(const std::string& path) const;

 private:
  friend class TextModel;
  struct Impl;
  explicit TextSession(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sennit
