#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "tokenizers/rwkv_world.h"
#include "tokenizers/tiktoken.h"

namespace {

using namespace sennit;

template <class Read>
void check(const Read& read) {
  try {
    const auto tokenizer = read();
    const std::string text = "The old man, 1951: \xc3\xa9t\xc3\xa9";
    tokenizer->decode(tokenizer->encode(text));
  } catch (const Error&) {
  }
}

}  // namespace

// Any text is a file of tiktoken's ranks, or RWKV's list of words, or one Error of each.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check([&] { return tokenizers::read_tiktoken(text, "cl100k_base", "fuzz"); });
  check([&] { return tokenizers::read_rwkv_world(text, "fuzz"); });
  return 0;
}
