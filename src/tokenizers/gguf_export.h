#pragma once
#include <optional>
#include <string>

#include "tokenizers/gguf_vocabulary.h"

namespace sennit::tokenizers {

struct GgufExport {
  std::optional<GgufVocabulary> vocabulary;  // nothing where GGUF cannot say it
  std::string reason;                        // why not
};

// What GGUF can say of a tokenizer.json: byte-level BPE that cuts words in a way that has a name, BPE with bytes to
// fall back on, WordPiece and Unigram. The vocabulary is read back and must give the same ids for texts of many kinds
// (kProbe); one that does not is not exported. `where` names the file.
GgufExport gguf_of_tokenizer_json(const std::string& text, const std::string& config, const std::string& where);

}  // namespace sennit::tokenizers
