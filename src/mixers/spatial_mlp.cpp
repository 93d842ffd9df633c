// MLP-Mixer (Tolstikhin et al., arXiv:2105.01601), equation 1: a two-layer network over the tokens of a sequence, the
// same for every channel,
//   y_tc = sum_h D_th gelu(sum_s U_hs x_sc + a_h) + b_t
// U [hidden, length] and D [length, hidden] hold a column and a row for every place up to `length`, so that every token
// sees all others: it cannot be causal.
#include <cmath>

#include "mixers/mixer.h"
#include "nn/init.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "ops/products.h"

namespace sennit::mixers {
namespace {

struct SpatialMlp : Mixer {
  struct Options {
    int64_t hidden = 64, length = 2048;
    Fields fields() {
      return {{"hidden", &hidden, "width between", {.min = 1, .max = 65536}},
              {"length", &length, "the longest sequence", {.min = 1, .max = 1e7}}};
    }
  };
  static Info info() {
    return {.title = "Network over tokens (MLP-Mixer)",
            .paper = "arXiv:2105.01601",
            .equation = "y = D gelu(U x + a) + b, over tokens",
            .cost = "O(n d hidden)",
            .patterns = {Pattern::bidirectional},
            .no_state = "every token sees those after it"};
  }
  SpatialMlp(const Dims& d, const Options& o, Rng rng) : options(o), width(d.d_model) {
    up.init(normal_init({o.hidden, o.length}, 1 / std::sqrt(static_cast<double>(o.length)), rng.fork("up")));
    down.init(
        normal_init({o.length, o.hidden}, d.out_scale / std::sqrt(static_cast<double>(o.hidden)), rng.fork("down")));
    up_shift.init(Tensor::zeros({o.hidden, 1}));
    down_shift.init(Tensor::zeros({o.length, 1}));
    up_shift.decays = down_shift.decays = false;
  }
  void visit(const ParameterVisitor& p) override {
    p("up", up), p("down", down), p("up_shift", up_shift), p("down_shift", down_shift);
  }
  StateSpec state_spec() const override { return {}; }
  int64_t longest() const override { return options.length; }

  // x [n, d] with a number added to each row.
  static Var shifted(const Var& x, const Var& shift) {
    return x + multiply_groups(Var(Tensor::full(x.shape(), 1)), shift);
  }
  Var mixed(const Var& x, const Context& c) const {
    const int64_t n = x.rows();
    const MatmulOptions product{.precision = c.precision};
    const Var inside = gelu(shifted(matmul(columns(up, 0, n), x, product), up_shift));
    return shifted(matmul(rows(down, 0, n), inside, product), rows(down_shift, 0, n));
  }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<SpatialMlp>("spatial_mlp", batch);
    std::vector<Var> said;
    for (const Segment& s : batch.segments) {
      if (s.length > options.length)
        fail({"spatial_mlp", fmt::format("at most length = {} tokens", options.length), fmt::format("{}", s.length)});
      if (s.length > 0) said.push_back(mixed(rows(x, s.begin, s.length), *batch.context));
    }
    return said.empty() ? x : concat_rows(said);
  }
  int64_t flops(int64_t n) const override { return 4 * n * options.hidden * width + 3 * (n + options.hidden) * width; }

  naive::Matrix naive(NaiveRun& run) const override {
    const int64_t n = run.x.rows;
    naive::Matrix y(n, width);
    for (int64_t h = 0; h < options.hidden; ++h)
      for (int64_t c = 0; c < width; ++c) {
        double sum = run.w.at("up_shift").a[h];
        for (int64_t s = 0; s < n; ++s) sum += run.w.at("up")(h, s) * run.x(s, c);
        const double inside = naive::activation("gelu", sum);
        for (int64_t t = 0; t < n; ++t) y(t, c) += run.w.at("down")(t, h) * inside;
      }
    for (int64_t t = 0; t < n; ++t)
      for (int64_t c = 0; c < width; ++c) y(t, c) += run.w.at("down_shift").a[t];
    return y;
  }

  Options options;
  int64_t width;
  Parameter up, down, up_shift, down_shift;
};

}  // namespace

void register_spatial_mlp(Registry<Mixer>& r) {
  r.add<SpatialMlp>("spatial_mlp");
}

}  // namespace sennit::mixers
