#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "model/distillation.h"
#include "model/export.h"
#include "model/grouping.h"

namespace sennit::cli {

struct Conversion {
  std::string in, out, to = "hf", weights, adapter = {};
  std::optional<DistillOptions> distill = {};
  std::optional<GroupingOptions> group = {};
};
struct ConversionReport {
  std::string origin;
  Container container;
  std::vector<TensorUse> read, adapted, written;
  std::vector<DistilledBlock> distilled = {};
  int64_t grouped = 0;              // blocks
  std::vector<std::string> unread;  // settings that nobody understood
  std::string tokenizer;            // what became of it
  int64_t parameters = 0, bytes = 0;
};

// Reads, writes and takes the tokenizer along.
ConversionReport convert(const Conversion& conversion);

// How two models answer the same tokens.
struct LogitDifference {
  int64_t tokens = 0;
  double largest = 0;             // of a logit
  double divergence = 0;          // mean KL divergence of the second's next token from the first's, in nats
  double same_top = 0;            // share of places with the same likeliest token
  double perplexity[2] = {0, 0};  // of the tokens that follow
};
// Tokens are cut into windows of 512; without any, some are drawn at random.
LogitDifference logit_difference(Model& first, Model& second, std::vector<int32_t> tokens = {});

}  // namespace sennit::cli
