#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace sennit {

// How a model foresaw a token: natural logarithms of probabilities, of the softmax of its logits as they are (no
// temperature, no filter), summed in double.
struct TokenScore {
  int32_t token;
  std::optional<double> log_probability;             // nothing for the first token of a text
  std::vector<std::pair<int32_t, double>> top = {};  // the likeliest in its place, falling; equals by rising id
};

// `top` of the likeliest tokens are listed, or all where there are fewer.
TokenScore score(std::span<const float> logits, int32_t token, int64_t top);

}  // namespace sennit
