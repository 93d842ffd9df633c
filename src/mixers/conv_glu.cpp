// The gated network with a convolution of TransNeXt (Shi, arXiv:2311.17132, equation 9), the channel mixer of image
// models such as AttNet (arXiv:2510.20092):
//   y = W_down (gelu(K conv W_gate x) * W_up x)
// K is depthwise, over a token's neighbours on a line or a grid of tokens. It looks at other tokens, so it is a mixer.
// Without the factor W_up x it is the two-layer network of PVTv2 (arXiv:2106.13797) and LITv2 (arXiv:2205.13213), which
// tells where a token is by the zeros around the grid.
#include <cmath>

#include "mixers/mixer.h"
#include "nn/init.h"
#include "ops/arithmetic.h"
#include "ops/maps.h"
#include "sequence/plane.h"

namespace sennit::mixers {
namespace {

struct ConvGlu : Mixer {
  struct Options {
    int64_t hidden = 0, reach = 1, columns = 0;
    bool gated = true;
    Fields fields() {
      return {{"hidden",
               &hidden,
               "width between; 0: 8/3 d_model rounded up to a multiple of 32",
               {.min = 0, .max = 1 << 20}},
              {"reach", &reach, "tokens that are read on a side", {.min = 1, .max = 7}},
              columns_field(&columns),
              {"gated", &gated, "multiply by a second map of the token"}};
    }
  };
  static Info info() {
    return {.title = "Gated network with a convolution (ConvGLU)",
            .paper = "arXiv:2311.17132",
            .equation = "y = W_down (gelu(K conv W_gate x) * W_up x)",
            .cost = "O(n d^2)",
            .patterns = {Pattern::bidirectional, Pattern::causal},
            .settings = {{"grid", R"({"columns": 6, "hidden": 40})"},
                         {"two layers on a grid", R"({"columns": 4, "hidden": 40, "gated": false})"}}};
  }
  ConvGlu(const Dims& d, const Options& o, Rng rng)
      : options(o),
        near(o.columns ? grid_neighbours(o.columns, o.reach) : line_neighbours(o.reach)),
        width(o.hidden ? o.hidden : (8 * d.d_model / 3 + 31) / 32 * 32),
        gate(d.d_model, width, rng.fork("gate")),
        down(width, d.d_model, rng.fork("down"), {.scale = d.out_scale}) {
    if (o.gated) up = Linear(d.d_model, width, rng.fork("up"));
    const double bound = 1 / std::sqrt(static_cast<double>(near.taps()));
    taps.init(uniform_init({near.taps(), width}, -bound, bound, rng.fork("taps")));
    taps.decays = false;
  }

  void visit(const ParameterVisitor& p) override { p("gate", gate), p("up", up), p("down", down), p("taps", taps); }
  StateSpec state_spec() const override { return {{"gate", {near.before(), width}}}; }
  int64_t grid_columns() const override { return near.columns; }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<ConvGlu>("conv_glu", batch);
    check_grid("conv_glu", near.columns, batch);
    const Context& c = *batch.context;
    const Var said = gelu(plane_conv(gate(x, c), taps, near, batch, 0));
    return down(options.gated ? said * up(x, c) : said, c);
  }
  int64_t flops(int64_t n) const override {
    return n * width * ((options.gated ? 6 : 4) * down.out() + 2) + plane_conv_flops(n, near, width);
  }

  naive::Matrix naive(NaiveRun& run) const override {
    naive::Matrix& past = run.state["gate"];
    const int64_t n = run.x.rows, reach = options.reach, wide = std::max<int64_t>(1, options.columns),
                  kept = near.before(), side = options.columns ? 2 * reach + 1 : 1;
    const naive::Matrix gates = naive::linear(run.x, run.w, "gate"), &k = run.w.at("taps");
    if (!past.rows) past = naive::Matrix(kept, width);
    naive::Matrix all(kept + n, width), y(n, width);
    if (options.gated)
      y = naive::linear(run.x, run.w, "up");
    else
      std::fill(y.a.begin(), y.a.end(), 1.0);
    std::copy(past.a.begin(), past.a.end(), all.a.begin());
    std::copy(gates.a.begin(), gates.a.end(), all.a.begin() + kept * width);
    for (int64_t t = run.position; t < run.position + n; ++t) {
      std::vector<double> sum(static_cast<size_t>(width));
      const int64_t last = run.pattern == Pattern::causal ? t : run.position + n - 1;
      for (int64_t s = std::max<int64_t>(0, run.position - kept); s <= last; ++s) {
        const int64_t below = s / wide - t / wide, right = s % wide - t % wide;
        if (std::abs(below) > reach || std::abs(right) > reach) continue;
        const int64_t tap = (below + reach) * side + (options.columns ? right + reach : 0);
        for (int64_t c = 0; c < width; ++c) sum[c] += k(tap, c) * all(s - run.position + kept, c);
      }
      for (int64_t c = 0; c < width; ++c) y(t - run.position, c) *= naive::activation("gelu", sum[c]);
    }
    std::copy(all.a.end() - kept * width, all.a.end(), past.a.begin());
    return naive::linear(y, run.w, "down");
  }

  Options options;
  Neighbours near;
  int64_t width;
  Linear gate, down, up;
  Parameter taps;
};

}  // namespace

void register_conv_glu(Registry<Mixer>& r) {
  r.add<ConvGlu>("conv_glu");
}

}  // namespace sennit::mixers
