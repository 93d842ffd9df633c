#include "model/dialogue_settings.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/json_file.h"
#include "model/stored_model.h"

namespace sennit {
namespace {

namespace fs = std::filesystem;

// "eos_token_id": one id, a list of them, or null.
void add_ends(const std::string& path, std::vector<int32_t>& ends) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return;
  const Json file = io::read_json_file(path, {.max_bytes = 16 << 20, .non_finite = true});
  if (!file.is_object() || !file.contains("eos_token_id")) return;
  const Json& found = file.at("eos_token_id");
  const Json list = found.is_array() ? found : Json::array({found});
  for (const Json& id : list) {
    if (id.is_null()) continue;
    if (!id.is_number_integer())
      fail({"model", "`eos_token_id` to be an id or a list of them", json_text(found).substr(0, 60), path});
    ends.push_back(id.get<int32_t>());
  }
}

}  // namespace

DialogueSettings dialogue_settings(const std::string& path, const tokenizers::Tokenizer& tokenizer) {
  DialogueSettings s;
  if (is_gguf(path)) {
    const io::GgufFile file(path);
    const io::GgufMetadata& m = file.metadata();
    s.chat_template = m.text("tokenizer.chat_template", "");
    for (const char* key : {"eos", "eot", "eom"})
      s.ends.push_back(static_cast<int32_t>(m.integer(fmt::format("tokenizer.ggml.{}_token_id", key), -1)));
  } else {
    s.chat_template = tokenizers::find_chat_template(path);
    for (const char* name : {"config.json", "generation_config.json"})
      add_ends((fs::path(path) / name).string(), s.ends);
  }
  s.ends.push_back(tokenizer.special().eos);
  std::sort(s.ends.begin(), s.ends.end());
  s.ends.erase(std::unique(s.ends.begin(), s.ends.end()), s.ends.end());
  std::erase_if(s.ends, [&](int32_t id) { return id < 0 || id >= tokenizer.vocab_size(); });
  return s;
}

}  // namespace sennit
