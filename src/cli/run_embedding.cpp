#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/parallel.h"
#include "cli/run_options.h"
#include "decoding/embedding.h"

namespace sennit::cli {

int run_embedding(const RunOptions& o) {
  const LoadedModel loaded = o.choice.load_with_tokenizer();
  std::vector<std::vector<int32_t>> texts;
  const std::string all = o.text();
  if (o.has_prompt) {
    texts.push_back(loaded.tokenizer->encode_prompt(all));
  } else {
    for (size_t at = 0; at < all.size();) {
      const size_t end = std::min(all.find('\n', at), all.size());
      texts.push_back(loaded.tokenizer->encode_prompt(std::string_view(all).substr(at, end - at)));
      at = end + 1;
    }
  }
  if (texts.empty()) fail({"run", "a text (-p TEXT, --file FILE, or lines on standard input)", "none"});
  const FlushDenormals flush;
  const auto rows = embed(*loaded.model, texts,
                          {.pooling = o.pooling == "auto" ? stored_pooling(loaded.path) : parse_pooling(o.pooling),
                           .normalize = o.normalize,
                           .context = o.choice.context()});
  if (o.json) {
    fmt::print("{}\n", json_text(Json{{"checkpoint", loaded.path}, {"embeddings", rows}}));
    return 0;
  }
  for (size_t i = 0; i < rows.size(); ++i)
    fmt::print("{}\n", o.json_lines ? json_text(Json{{"tokens", texts[i].size()}, {"embedding", rows[i]}})
                                    : fmt::format("{:.8g}", fmt::join(rows[i], " ")));
  return 0;
}

}  // namespace sennit::cli
