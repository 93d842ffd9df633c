#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace sennit {

// How rotary embedding is stretched to contexts longer than those of pretraining. The formulas are those by which the
// published models were trained, as Hugging Face's transformers and llama.cpp compute them.
struct RopeScaling {
  std::string kind = "none";
  //   linear    Extending Context Window of Large Language Models via Positional Interpolation (Chen et al.,
  //             arXiv:2306.15595): every frequency divided by `factor`
  //   dynamic   the same by a larger base, for contexts of `length`: plain up to `original`
  //   yarn      YaRN: Efficient Context Window Extension (Peng et al., arXiv:2309.00071), section 3: frequencies that turn
  //             fewer than `low` times in `original` tokens are divided by `factor`, those above `high` stay
  //   llama3    The Llama 3 Herd of Models (arXiv:2407.21783): the same by wavelengths, between original / low and
  //             original / high
  //   longrope  LongRoPE (Ding et al., arXiv:2402.13753): frequency i divided by factors[i], which are those for short
  //             contexts when `length` is at most `original`
  double factor = 1;
  int64_t original = 0;     // tokens in pretraining
  int64_t length = 0;       // tokens to be ready for; 0: `original`
  double low = 1, high = 4;  // yarn's beta_slow and beta_fast
  double attention = 0;     // multiplies turned queries and keys; 0: what the method says
  std::vector<double> short_factors, long_factors;
};

// The angle of each of dims / 2 pairs for each step of position.
std::vector<double> rope_frequencies(int64_t dims, double base, const RopeScaling& scaling);
// By how much turned queries and keys are multiplied.
double rope_magnitude(const RopeScaling& scaling);

}  // namespace sennit
