#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/fields.h"

namespace sennit {

// A model file, read and checked: what "model.json" says, with defaults filled in and each block's flat keys sorted to
// the parts they belong to.
//   {"vocab": 8192, "d_model": 256, "blocks": [{"repeat": 6, "mixer": "gla", "heads": 4, "channel": "swiglu"}]}
struct BlockSpec {
  std::shared_ptr<Json> block, mixer, channel, norm;
};
struct ModelSpec {
  int64_t vocab = 0, d_model = 0;
  bool tie_embeddings = true;
  double embedding_deviation = 0.02;
  int64_t learned_positions = 0, token_types = 0;
  std::string pattern = "causal";             // or "bidirectional"
  std::shared_ptr<Json> norm, embedding_norm;  // the last one, and the one before the first block
  std::vector<BlockSpec> blocks;  // one for each block: "repeat" is written out

  Fields fields();  // the top level's plain keys
};

// Throws Error naming the file and the place: unknown keys (with a suggestion), wrong types, impossible sizes.
ModelSpec read_model_spec(const Json& file, const std::string& path);
Json write_model_spec(const ModelSpec& spec);  // what read_model_spec reads as the same spec

// Throws Error when a mixer is never causal: where tokens see later ones there is nothing to learn in predicting the next.
void check_predicts(const ModelSpec& spec, const std::string& path);

// Changes one setting of a model file: "d_model=128" or "blocks.0.heads=8".
void set_model_key(Json& file, const std::string& assignment);

}  // namespace sennit
