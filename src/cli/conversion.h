#pragma once
#include <string>
#include <vector>

#include "model/export.h"

namespace sennit::cli {

struct Conversion {
  std::string in, out, to = "hf", weights;
};
struct ConversionReport {
  std::string origin;
  Container container;
  std::vector<TensorUse> read, written;
  std::vector<std::string> unread;  // settings that nobody understood
  std::string tokenizer;            // what became of it
  int64_t parameters = 0, bytes = 0;
};

// Reads, writes and takes the tokenizer along.
ConversionReport convert(const Conversion& conversion);

// How two models answer the same random tokens.
struct LogitDifference {
  int64_t tokens = 0;
  double largest = 0;     // of a logit
  double divergence = 0;  // mean KL divergence of the second's next token from the first's, in nats
  double same_top = 0;    // share of places with the same likeliest token
};
LogitDifference logit_difference(const std::string& first, const std::string& second);

}  // namespace sennit::cli
