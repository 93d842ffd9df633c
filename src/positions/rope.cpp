// RoFormer: Enhanced Transformer with Rotary Position Embedding (Su et al., arXiv:2104.09864), equation 34.
//   pair i of the first `dims` numbers of a head turns by the angle position * base^(-2i/dims)
#include <cmath>

#include "positions/position.h"
#include "sequence/rotary.h"

namespace sennit::positions {
namespace {

struct Rope : Position {
  struct Options {
    double base = 10000, fraction = 1;
    bool interleaved = false;
    Fields fields() {
      return {{"base", &base, "the slowest pair turns once in about 2 pi base tokens", {.min = 1}},
              {"fraction", &fraction, "the part of each head that turns", {.min = 0, .max = 1}},
              {"interleaved", &interleaved, "pairs are neighbours (2i, 2i+1) instead of halves (i, i + dims/2)"}};
    }
  };
  static Info info() { return {"Rotary position embedding", "arXiv:2104.09864"}; }

  Rope(const Dims& d, const Options& o, Rng)
      : options(o), dims(static_cast<int64_t>(o.fraction * static_cast<double>(d.head_dim)) / 2 * 2) {}

  Var turn(const Var& x, std::span<const Segment> segments, int64_t heads) const override {
    return rotary(x, segments, {.heads = heads, .dims = dims, .base = options.base, .interleaved = options.interleaved});
  }

  void naive_turn(double* row, int64_t position) const override {
    for (int64_t i = 0; i < dims / 2; ++i) {
      const double angle = static_cast<double>(position) * std::pow(options.base, -2.0 * static_cast<double>(i) / static_cast<double>(dims));
      double& a = row[options.interleaved ? 2 * i : i];
      double& b = row[options.interleaved ? 2 * i + 1 : i + dims / 2];
      const double a0 = a, b0 = b;
      a = a0 * std::cos(angle) - b0 * std::sin(angle);
      b = a0 * std::sin(angle) + b0 * std::cos(angle);
    }
  }

  Options options;
  int64_t dims;
};

}  // namespace

void register_rope(Registry<Position>& r) { r.add<Rope>("rope"); }

}  // namespace sennit::positions
