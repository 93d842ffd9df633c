#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "tokenizers/gguf_export.h"
#include "tokenizers/tokenizer_json.h"

// Any bytes are a tokenizer.json or one Error. A tokenizer gives ids of its vocabulary for any text, and text for any
// ids; streamed it is the same text. GGUF has a vocabulary for it, or there is a reason why not.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sennit;
  using namespace sennit::tokenizers;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto t = read_tokenizer_json(std::string(text), "", "fuzz");
    const std::string_view samples[] = {"Hello  world's 12\n", "\xc3\xa9\xe4\xbd\xa0 \xff ab<s>", text.substr(0, 300)};
    for (const std::string_view sample : samples) {
      const auto ids = t->encode_prompt(sample);
      t->encode(sample);
      Utf8Stream whole;
      std::string decoded = whole.push(t->decode(ids));
      decoded += whole.finish();
      StreamDecoder stream(*t);
      std::string streamed;
      for (const int32_t id : ids) {
        SENNIT_CHECK(id >= 0 && id < t->vocab_size());
        streamed += stream.push(id);
      }
      SENNIT_CHECK(streamed + stream.finish() == decoded);
    }
    const GgufExport e = gguf_of_tokenizer_json(std::string(text), "", "fuzz");
    SENNIT_CHECK(e.vocabulary.has_value() == e.reason.empty());
  } catch (const Error&) {
  }
  return 0;
}
