#include "fuzz/input_folder.h"
#include "tokenizers/sentencepiece.h"

// Any bytes are a model of the sentencepiece library or one Error.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sennit;
  static const InputFolder folder;
  try {
    const auto tokenizer = tokenizers::load_sentencepiece(folder.write("tokenizer.model", {data, size}));
    tokenizer->decode(tokenizer->encode("The old man, 1951: \xc3\xa9t\xc3\xa9"));
  } catch (const Error&) {
  }
  return 0;
}
