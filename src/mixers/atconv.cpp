// Attentive Convolution: Unifying the Expressivity of Self-Attention with Convolutional Efficiency (Yu et al.,
// arXiv:2510.20092), ATConv over a line or a grid of tokens: every sequence is convolved with kernels of its own, made
// from what it holds,
//   K = W_k gelu(pool_w(W_c x)),   K <- K - sigmoid(a) * mean of K over its w taps,   y = W_o (K conv V x)
// pool_w is the mean of w even runs of the sequence, the convolution depthwise and centred, and the mean is lateral
// inhibition: with all of it taken away a constant stretch is nothing. On a grid w is the square of `taps`.
// With learned kernels it is a plain depthwise convolution, y = W_o (K conv V x).
#include <cmath>

#include "mixers/mixer.h"
#include "nn/init.h"
#include "nn/naive_sequence.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "ops/products.h"
#include "sequence/long_conv.h"
#include "sequence/plane.h"
#include "sequence/reverse.h"

namespace sennit::mixers {
namespace {

struct AtConv : Mixer {
  struct Options {
    int64_t taps = 0, columns = 0;
    std::string kernels = "content";
    Fields fields() {
      return {{"taps",
               &taps,
               "taps of a kernel, on a grid on each side: an odd number; 0: 9, or 3 by 3",
               {.min = 0, .max = 1023}},
              columns_field(&columns),
              {"kernels", &kernels, "what makes them", {.choices = {"content", "learned"}}}};
    }
  };
  static Info info() {
    return {.title = "Attentive convolution (ATConv)",
            .paper = "arXiv:2510.20092",
            .equation = "y = W_o (K conv V x), K = W_k gelu(pool(W_c x)) less sigmoid(a) times its mean",
            .cost = "O(n d (d + taps))",
            .patterns = {Pattern::bidirectional},
            .no_state = "kernels are made from the whole sequence",
            .settings = {{"narrow", R"({"taps": 3})"},
                         {"grid", R"({"columns": 7})"},
                         {"learned kernels", R"({"kernels": "learned"})"},
                         {"learned kernels on a grid", R"({"columns": 5, "taps": 5, "kernels": "learned"})"}}};
  }
  AtConv(const Dims& d, const Options& o, Rng rng)
      : width(d.d_model),
        side(o.taps ? o.taps : (o.columns ? 3 : 9)),
        content(o.kernels == "content"),
        grid(o.columns > 0) {
    const int64_t most = o.columns ? 31 : 1023;
    if (side % 2 == 0 || side < 3 || side > most)
      fail({"atconv", fmt::format("an odd number of taps from 3 to {}", most), fmt::format("{}", side)});
    near = o.columns ? grid_neighbours(o.columns, side / 2) : line_neighbours(side / 2);
    if (content) {
      context_map = Linear(width, width, rng.fork("context"));
      kernel = Linear(width, width, rng.fork("kernel"), {.bias = true});
      inhibition.init(Tensor::zeros({width}));
      inhibition.decays = false;
    } else {
      const double bound = 1 / std::sqrt(static_cast<double>(near.taps()));
      learned.init(uniform_init({near.taps(), width}, -bound, bound, rng.fork("taps")));
      learned.decays = false;
    }
    v = Linear(width, width, rng.fork("v"));
    out = Linear(width, width, rng.fork("out"), {.scale = d.out_scale});
  }
  void visit(const ParameterVisitor& p) override {
    if (content) p("context", context_map), p("kernel", kernel);
    p("v", v);
    p("out", out);
    p("inhibition", inhibition);
    p("taps", learned);
  }
  StateSpec state_spec() const override { return {}; }
  int64_t grid_columns() const override { return near.columns; }

  // Run i of w over n rows, of at least one row: [begin, end).
  struct Run {
    int64_t begin, end;
  };
  Run run_of(int64_t i, int64_t n) const {
    return {i * n / near.taps(), ((i + 1) * n + near.taps() - 1) / near.taps()};
  }
  // The kernel of one sequence [taps, width], before W_k.
  Var pooled(const Var& x, const Segment& s) const {
    const int64_t taps = near.taps();
    Tensor mean = Tensor::zeros({taps, s.length});
    for (int64_t i = 0; i < taps; ++i) {
      const Run r = run_of(i, s.length);
      for (int64_t t = r.begin; t < r.end; ++t) mean.data()[i * s.length + t] = 1 / static_cast<float>(r.end - r.begin);
    }
    return matmul(Var(mean), rows(x, s.begin, s.length));
  }
  Var inhibited(const Var& k) const {
    const Var mean = scale(sum_rows(k), 1 / static_cast<float>(near.taps()));
    return add_row(k, scale(mean * sigmoid(inhibition), -1));
  }
  // The kernels of the sequences, one below another; `learned` is everyone's.
  std::vector<Var> kernels(const Var& x, std::span<const Segment> segments, const Context& c) {
    if (!content) return {learned.var};
    const Var context = context_map(x, c);
    std::vector<Var> all;
    for (const Segment& s : segments) all.push_back(inhibited(kernel(gelu(pooled(context, s)), c)));
    return all;
  }
  // One sequence on a line, by long convolutions.
  Var convolved(const Var& x, const Var& k, const Segment& s, const Context& c) const {
    const Segment whole[] = {{0, s.length, 0, nullptr}};
    const Batch one{whole, &c};
    const int64_t middle = side / 2;
    // Tap `middle` and those before it look back; those after it look ahead, one token late.
    std::vector<int64_t> back, ahead;
    for (int64_t i = middle; i >= 0; --i) back.push_back(i);
    for (int64_t i = middle + 1; i < side; ++i) ahead.push_back(i);
    const Var in = rows(x, s.begin, s.length), parts[] = {Var(Tensor::zeros({1, width})), gather_rows(k, ahead)};
    return long_conv(in, gather_rows(k, back), one, 0) +
           reversed(long_conv(reversed(in, whole), concat_rows(parts), one, 0), whole);
  }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<AtConv>("atconv", batch);
    check_grid("atconv", near.columns, batch);
    const Context& c = *batch.context;
    std::vector<Segment> filled;
    for (const Segment& s : batch.segments)
      if (s.length > 0) filled.push_back(s);
    const Var values = v(x, c);
    if (filled.empty()) return out(values, c);
    const std::vector<Var> taps = kernels(x, filled, c);
    if (grid) return out(plane_conv(values, concat_rows(taps), near, {filled, &c, batch.pattern}, 0), c);
    std::vector<Var> said;
    for (size_t i = 0; i < filled.size(); ++i) said.push_back(convolved(values, taps[content ? i : 0], filled[i], c));
    return out(concat_rows(said), c);
  }
  Var output(const Var&, const Var& core, const Context& c) override { return out(core, c); }
  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const int64_t n = x.rows();
    const Segment whole[] = {{0, n, 0, nullptr}};
    const Var taps = kernels(x, whole, c)[0];
    ImplicitMatrix m{Tensor::zeros({width, n, n}), v(x, c).value()};
    for (int64_t t = 0; t < n; ++t)
      each_neighbour(near, t, n, false, [&](int64_t s, int64_t tap) {
        for (int64_t h = 0; h < width; ++h)
          m.weights.data()[(h * n + t) * n + s] = taps.value().data()[tap * width + h];
      });
    return m;
  }
  int64_t flops(int64_t n) const override {
    const int64_t w = near.taps(),
                  maps = content ? 6 * n * width * width + 2 * w * width * width : 4 * n * width * width,
                  made = content ? width * (2 * n * w + 5 * w) : 0;
    return maps + made +
           (grid ? plane_conv_flops(n, near, width) : width * n + 2 * long_conv_flops(n, w / 2 + 1, width));
  }

  naive::Matrix naive_kernels(const NaiveRun& run) const {
    const int64_t n = run.x.rows, w = near.taps();
    if (!content) return run.w.at("taps");
    const naive::Matrix context = naive::linear(run.x, run.w, "context");
    naive::Matrix means(w, width);
    for (int64_t i = 0; i < w; ++i) {
      const int64_t first = i * n / w,
                    last = static_cast<int64_t>(std::ceil(static_cast<double>((i + 1) * n) / static_cast<double>(w)));
      for (int64_t c = 0; c < width; ++c) {
        for (int64_t t = first; t < last; ++t) means(i, c) += context(t, c) / static_cast<double>(last - first);
        means(i, c) = naive::activation("gelu", means(i, c));
      }
    }
    naive::Matrix k = naive::linear(means, run.w, "kernel");
    for (int64_t c = 0; c < width; ++c) {
      double mean = 0;
      for (int64_t i = 0; i < w; ++i) mean += k(i, c) / static_cast<double>(w);
      for (int64_t i = 0; i < w; ++i) k(i, c) -= naive::sigmoid(run.w.at("inhibition").a[c]) * mean;
    }
    return k;
  }
  naive::Matrix naive(NaiveRun& run) const override {
    const int64_t n = run.x.rows, middle = side / 2, wide = grid ? near.columns : 1;
    const naive::Matrix values = naive::linear(run.x, run.w, "v");
    naive::Matrix y(n, width);
    if (n == 0) return y;
    const naive::Matrix k = naive_kernels(run);
    for (int64_t t = 0; t < n; ++t)
      for (int64_t s = 0; s < n; ++s) {
        const int64_t down = s / wide - t / wide + middle, right = grid ? s % wide - t % wide + middle : 0;
        if (down < 0 || down >= side || right < 0 || right >= side) continue;
        for (int64_t c = 0; c < width; ++c) y(t, c) += k(grid ? down * side + right : down, c) * values(s, c);
      }
    return naive::linear(y, run.w, "out");
  }

  int64_t width, side;
  bool content, grid;
  Neighbours near;
  Linear context_map, kernel, v, out;
  Parameter inhibition, learned;
};

}  // namespace

void register_atconv(Registry<Mixer>& r) {
  r.add<AtConv>("atconv");
}

}  // namespace sennit::mixers
