#include "tokenizers/word_patterns.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace sennit::tokenizers {
namespace {

constexpr std::string_view kCl100k =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kO200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDeepSeek3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct Named {
  std::string_view name;
  WordPatterns patterns;
};

// Of those with the same patterns the first is GGUF's.
const std::vector<Named>& all() {
  static const std::vector<Named> known = [] {
    std::vector<Named> out;
    const auto add = [&](std::initializer_list<std::string_view> names, const WordPatterns& patterns) {
      for (const std::string_view name : names) out.push_back({name, patterns});
    };
    add({"gpt-2", "gpt2", "r50k_base", "p50k_base", "p50k_edit", "phi-2", "mpt", "olmo", "jina-es", "jina-de",
         "roberta-bpe"},
        {{std::string(kGpt2Words)}});
    add({"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone"}, {{R"(\p{N})", std::string(kGpt2Words)}});
    add({"dbrx", "cl100k_base", "smaug-bpe"}, {{std::string(kCl100k)}});
    add({"llama-bpe", "llama3", "llama-v3", "falcon3"}, {{std::string(kCl100k)}, true});
    add({"qwen2", "qwen", "stablelm2", "deepseek-r1-qwen"}, {{std::string(kQwen2)}, false, true});
    add({"qwen35"}, {{std::string(kQwen35)}, false, true});
    add({"gpt-4o", "o200k_base", "o200k_harmony", "llama4"}, {{std::string(kO200k)}});
    add({"tekken"}, {{std::string(kTekken)}, true});
    add({"deepseek-v3"}, {{R"(\p{N}{1,3})", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", std::string(kDeepSeek3)}});
    add({"falcon"}, {{R"([\p{P}\$\+<=>\^~\|`]+)", std::string(kGpt2Words), "[0-9][0-9][0-9]"}});
    return out;
  }();
  return known;
}

}  // namespace

WordPatterns word_patterns(const std::string& name, const std::string& where) {
  const auto it = std::find_if(all().begin(), all().end(), [&](const Named& n) { return n.name == name; });
  if (it != all().end()) return it->patterns;
  std::vector<std::string> names;
  for (const Named& n : all()) names.emplace_back(n.name);
  const std::string near = closest(name, names);
  fail({"tokenizer", fmt::format("a known way to cut words{}", near.empty() ? "" : ", such as " + near),
        fmt::format("`{}`", name), where});
}

std::string name_of(const WordPatterns& p) {
  for (const Named& n : all())
    if (n.patterns.patterns == p.patterns && n.patterns.ignore_merges == p.ignore_merges &&
        n.patterns.compose == p.compose)
      return std::string(n.name);
  return "";
}

Json pre_tokenizer_of(const WordPatterns& patterns) {
  Json steps = Json::array();
  for (const std::string& p : patterns.patterns)
    steps.push_back({{"type", "Split"}, {"pattern", {{"Regex", p}}}, {"behavior", "Isolated"}});
  steps.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}});
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

}  // namespace sennit::tokenizers
