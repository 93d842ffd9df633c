#pragma once
#include "support/trained.h"

namespace sennit::trained {

// A language model of bytes: two blocks of one mixer, and learned positions, so that mixers that know of order and
// those that do not are told the same.
inline Json two_blocks(Json mixer, int64_t d_model = 48) {
  const Json block = {{"mixer", std::move(mixer)}, {"channel", "mlp"}};
  return {{"d_model", d_model}, {"learned_positions", 128}, {"blocks", {block, block}}};
}
inline const Json kSoftmax = {{"name", "softmax"}, {"position", "none"}};

}  // namespace sennit::trained
