#pragma once
#include "io/gguf.h"
#include "model/stored_model.h"
#include "tokenizers/gguf_vocabulary.h"
#include "tokenizers/tokenizer.h"

namespace sennit {

// The keys tokenizer.* of a GGUF for a tokenizer of bytes or a SentencePiece one of merges (BPE), padded to `vocab`
// tokens; for any other, "none" as the kind of vocabulary, so that ids work and text does not.
io::GgufMetadata gguf_vocabulary(const tokenizers::Tokenizer* tokenizer, int64_t vocab);
// The keys for a vocabulary, padded to `vocab` tokens.
io::GgufMetadata gguf_vocabulary(const tokenizers::GgufVocabulary& v, int64_t vocab);
// The tokenizer that a GGUF's keys tokenizer.* describe; nullptr where they describe none. Throws Error with `where`.
std::unique_ptr<tokenizers::Tokenizer> tokenizer_of(const io::GgufMetadata& m, const std::string& where);
// The same keys of another GGUF.
io::GgufMetadata gguf_vocabulary(const io::GgufMetadata& from);

}  // namespace sennit
