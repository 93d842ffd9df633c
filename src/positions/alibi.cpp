// Train Short, Test Long: Attention with Linear Biases Enables Input Length Extrapolation (Press et al.,
// arXiv:2108.12409), section 3: head h of H (from 1) lowers a score by 2^(-8h/H) for each token of distance.
#include <cmath>

#include "positions/position.h"

namespace sennit::positions {
namespace {

struct Alibi : Position {
  struct Options {
    Fields fields() { return {}; }
  };
  static Info info() { return {"Attention with linear biases", "arXiv:2108.12409"}; }
  Alibi(const Dims& d, const Options&, Rng) : heads(d.heads) {}

  std::vector<float> slopes() const override {
    std::vector<float> m;
    for (int64_t h = 1; h <= heads; ++h) m.push_back(std::exp2(-8.0f * static_cast<float>(h) / static_cast<float>(heads)));
    return m;
  }

  int64_t heads;
};

}  // namespace

void register_alibi(Registry<Position>& r) { r.add<Alibi>("alibi"); }

}  // namespace sennit::positions
