#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "laws/mixer_laws.h"

namespace sennit::laws {

// How far a is from the definition, relative to the definition's size: max |a - b| / (rms b + max |b| / 16).
struct Distance {
  double relative = 0;
  int64_t worst = 0;
};
Distance distance(const Tensor& a, const naive::Matrix& b);
Distance distance(const Tensor& a, const Tensor& b);
bool same_bits(const Tensor& a, const Tensor& b);
std::string bits_differ(const Tensor& a, const Tensor& b);  // "" or where

naive::Matrix to_matrix(const Tensor& t);  // [rows, rest]
naive::Weights weights_of(Module& module);
Tensor random_rows(int64_t n, int64_t d, Rng rng, double scale = 1);
// Multiplies every parameter by up to `violence`, or as little, but to no more than 20: gates from none to violent.
void shake(Module& module, Rng rng, double violence);

// What a mixer is run on: one sequence, and what it looks at across.
struct Sample {
  Pattern pattern;
  Tensor x, memory;  // [n, d], [m, d]: the memory only with Pattern::cross
};
Sample random_sample(const MixerCase& c, Pattern pattern, int64_t n, int64_t m, Rng rng);  // of c.whole(n) tokens

// Runs a sample as one sequence cut into pieces, each a forward call that continues `state`; without recording.
Tensor run_pieces(Mixer& mixer, const Sample& sample, const std::vector<int64_t>& lengths, const Context& context,
                  SequenceState& state);
Tensor run_whole(Mixer& mixer, const Sample& sample, const Context& context);
naive::Matrix run_naive(Mixer& mixer, const Sample& sample);
std::vector<int64_t> token_by_token(int64_t n);

// How far the definition moves when its operands do by about `share` of themselves. A nonlinear recurrence with large
// weights is chaotic: no form that rounds its operands so can follow it closer than this.
double sensitivity(Mixer& mixer, const Sample& sample, const naive::Matrix& definition, double share = 0x1p-23);

// What rounding may cost this mixer on a sample. Where it keeps a state, a small multiple of what its token-by-token
// form loses against double: throws std::string when that form itself is wrong, further off than 3e-4 and than a small
// multiple of what the definition makes of the last digits of its operands. Else such a multiple.
double budget(const MixerCase& c, Mixer& mixer, const Sample& sample, const naive::Matrix& definition);

// Whether a sample takes up to `most` operations, by the cost that the mixer declares: longer ones are left out.
inline bool affordable(const Mixer& mixer, Pattern pattern, int64_t n, int64_t memory, int64_t most) {
  return mixer.pattern_flops(pattern, n, memory) <= most;
}

inline const std::vector<int64_t>& lengths() {
  static const std::vector<int64_t> all = {1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 200};
  return all;
}

}  // namespace sennit::laws
