#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "tokenizers/chat_template.h"

// Any bytes are a template or one Error, and a template prints something or fails with one Error.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sennit;
  static const Json context =
      json_of(R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": null,
    "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1.5}}}]}], "bos_token": "<s>", "add_generation_prompt": true, "n": 3})");
  try {
    const tokenizers::ChatTemplate t(std::string(reinterpret_cast<const char*>(data), size));
    t.render(context, {});
  } catch (const Error&) {
  }
  return 0;
}
