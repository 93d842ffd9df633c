// Attentive Convolution: Unifying the Expressivity of Self-Attention with Convolutional Efficiency (Yu et al.,
// arXiv:2510.20092), ATConv over a line of tokens: every sequence is convolved with kernels of its own, made from what
// it holds,
//   K = W_k gelu(pool_w(W_c x)),   K <- K - sigmoid(a) * mean of K over its w taps,   y = W_o (K conv V x)
// pool_w is the mean of w even runs of the sequence, the convolution depthwise and centred, and the mean is lateral
// inhibition: with all of it taken away a constant stretch is nothing.
#include <cmath>

#include "mixers/mixer.h"
#include "nn/init.h"
#include "nn/naive_sequence.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "ops/products.h"
#include "sequence/long_conv.h"
#include "sequence/reverse.h"

namespace sennit::mixers {
namespace {

struct AtConv : Mixer {
  struct Options {
    int64_t taps = 9;
    Fields fields() { return {{"taps", &taps, "taps of a kernel: an odd number", {.min = 3, .max = 1023}}}; }
  };
  static Info info() {
    return {.title = "Attentive convolution (ATConv)",
            .paper = "arXiv:2510.20092",
            .equation = "y = W_o (K conv V x), K = W_k gelu(pool(W_c x)) less sigmoid(a) times its mean",
            .cost = "O(n d (d + taps))",
            .patterns = {Pattern::bidirectional},
            .no_state = "kernels are made from the whole sequence",
            .settings = {{"narrow", R"({"taps": 3})"}}};
  }
  AtConv(const Dims& d, const Options& o, Rng rng) : options(o), width(d.d_model) {
    if (o.taps % 2 == 0) fail({"atconv", "an odd number of taps", fmt::format("{}", o.taps)});
    context_map = Linear(width, width, rng.fork("context"));
    kernel = Linear(width, width, rng.fork("kernel"), {.bias = true});
    v = Linear(width, width, rng.fork("v"));
    out = Linear(width, width, rng.fork("out"), {.scale = d.out_scale});
    inhibition.init(Tensor::zeros({width}));
    inhibition.decays = false;
  }
  void visit(const ParameterVisitor& p) override {
    for (auto [name, m] :
         {std::pair<const char*, Module*>{"context", &context_map}, {"kernel", &kernel}, {"v", &v}, {"out", &out}})
      p(name, *m);
    p("inhibition", inhibition);
  }
  StateSpec state_spec() const override { return {}; }

  // Run i of w over n rows, of at least one row: [begin, end).
  struct Run {
    int64_t begin, end;
  };
  Run run_of(int64_t i, int64_t n) const {
    return {i * n / options.taps, ((i + 1) * n + options.taps - 1) / options.taps};
  }
  // The kernel of one sequence [taps, width], before W_k.
  Var pooled(const Var& x, const Segment& s) const {
    Tensor mean = Tensor::zeros({options.taps, s.length});
    for (int64_t i = 0; i < options.taps; ++i) {
      const Run r = run_of(i, s.length);
      for (int64_t t = r.begin; t < r.end; ++t) mean.data()[i * s.length + t] = 1 / static_cast<float>(r.end - r.begin);
    }
    return matmul(Var(mean), rows(x, s.begin, s.length));
  }
  Var inhibited(const Var& k) const {
    const Var mean = scale(sum_rows(k), 1 / static_cast<float>(options.taps));
    return add_row(k, scale(mean * sigmoid(inhibition), -1));
  }
  Var convolved(const Var& x, const Var& k, const Segment& s, const Context& c) const {
    const Segment whole[] = {{0, s.length, 0, nullptr}};
    const Batch one{whole, &c};
    const int64_t middle = options.taps / 2;
    // Tap `middle` and those before it look back; those after it look ahead, one token late.
    std::vector<int64_t> back, ahead;
    for (int64_t i = middle; i >= 0; --i) back.push_back(i);
    for (int64_t i = middle + 1; i < options.taps; ++i) ahead.push_back(i);
    const Var in = rows(x, s.begin, s.length), parts[] = {Var(Tensor::zeros({1, width})), gather_rows(k, ahead)};
    return long_conv(in, gather_rows(k, back), one, 0) +
           reversed(long_conv(reversed(in, whole), concat_rows(parts), one, 0), whole);
  }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<AtConv>("atconv", batch);
    const Context& c = *batch.context;
    const Var context = context_map(x, c), values = v(x, c);
    std::vector<Var> said;
    for (const Segment& s : batch.segments)
      if (s.length > 0) said.push_back(convolved(values, inhibited(kernel(gelu(pooled(context, s)), c)), s, c));
    return said.empty() ? out(values, c) : out(concat_rows(said), c);
  }
  Var output(const Var&, const Var& core, const Context& c) override { return out(core, c); }
  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const int64_t n = x.rows(), middle = options.taps / 2;
    const Segment whole{0, n, 0, nullptr};
    const Var taps = inhibited(kernel(gelu(pooled(context_map(x, c), whole)), c));
    ImplicitMatrix m{Tensor::zeros({width, n, n}), v(x, c).value()};
    for (int64_t h = 0; h < width; ++h)
      for (int64_t t = 0; t < n; ++t)
        for (int64_t j = std::max<int64_t>(0, t - middle); j <= std::min(n - 1, t + middle); ++j)
          m.weights.data()[(h * n + t) * n + j] = taps.value().data()[(j - t + middle) * width + h];
    return m;
  }
  int64_t flops(int64_t n) const override {
    const int64_t w = options.taps;
    return 6 * n * width * width + 2 * w * width * width + width * (2 * n * w + 5 * w + n) +
           2 * long_conv_flops(n, w / 2 + 1, width);
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const int64_t n = run.x.rows, w = options.taps;
    const naive::Matrix context = naive::linear(run.x, run.w, "context"), values = naive::linear(run.x, run.w, "v");
    naive::Matrix means(w, width), y(n, width);
    if (n == 0) return y;
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
    for (int64_t t = 0; t < n; ++t)
      for (int64_t i = 0; i < w; ++i) {
        const int64_t at = t + i - w / 2;
        for (int64_t c = 0; c < width && at >= 0 && at < n; ++c) y(t, c) += k(i, c) * values(at, c);
      }
    return naive::linear(y, run.w, "out");
  }

  Options options;
  int64_t width;
  Linear context_map, kernel, v, out;
  Parameter inhibition;
};

}  // namespace

void register_atconv(Registry<Mixer>& r) {
  r.add<AtConv>("atconv");
}

}  // namespace sennit::mixers
