#pragma once
#include <memory>
#include <string_view>
#include <vector>

#include "tokenizers/json_part.h"
#include "tokenizers/vocabulary.h"

namespace sennit::tokenizers {

// The "model" of a tokenizer.json: a word to ids. Safe to use from many threads.
class WordModel {
 public:
  virtual ~WordModel() = default;
  virtual void encode(std::string_view word, std::vector<int32_t>& ids) const = 0;
  virtual int32_t unknown() const { return -1; }  // the id for what has none; -1: there is none
};

// Each reads its own part and adds the tokens that it lists to `vocabulary`, which it goes on using. Throws Error.

// Byte-pair encoding (Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units",
// arXiv:1508.07909). With `bytes`, words are bytes and the vocabulary is written in the byte-level alphabet.
std::unique_ptr<WordModel> make_bpe(const JsonPart& part, bool bytes, Vocabulary& vocabulary);

// WordPiece (Wu et al., "Google's Neural Machine Translation System", arXiv:1609.08144) as BERT reads it: the longest
// piece that fits, from left to right.
std::unique_ptr<WordModel> make_word_piece(const JsonPart& part, Vocabulary& vocabulary);

// Whole words only.
std::unique_ptr<WordModel> make_word_level(const JsonPart& part, Vocabulary& vocabulary);

// The most probable cut under a unigram model (Kudo, "Subword Regularization", arXiv:1804.10959), found by Viterbi.
std::unique_ptr<WordModel> make_unigram(const JsonPart& part, Vocabulary& vocabulary);

// The member "vocab": {token: id}.
void read_vocabulary(const JsonPart& part, Vocabulary& vocabulary);

}  // namespace sennit::tokenizers
