#include "fuzz/input_folder.h"
#include "model/stored_model.h"
#include "model/vocabulary.h"

// Any bytes are a GGUF of a family that we know, and then a model that can be made, or one Error; so are its vocabulary
// and what that says of a text.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sennit;
  static const InputFolder folder;
  const std::string path = folder.write("model.gguf", {data, size});
  try {
    const io::GgufFile file(path);
    if (const auto tokenizer = tokenizer_of(file.metadata(), path))
      tokenizer->decode(tokenizer->encode("The old man, 1951: \xc3\xa9t\xc3\xa9 <s>"));
  } catch (const Error&) {
  }
  try {
    if (is_gguf(path)) make_model(read_stored_model(path));
  } catch (const Error&) {
  }
  return 0;
}
