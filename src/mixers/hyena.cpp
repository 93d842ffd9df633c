// Hyena Hierarchy: Towards Larger Convolutional Language Models (Poli et al., arXiv:2302.10866), definition 3.1, with
// its implicit filters (section 3.3):
//   v, x^1 ... x^N = short_conv(W u);   z = v;   z <- x^n * (h^n conv z + D^n * z) for n = 1 ... N;   y = W_o z
//   h^n_t = exp(-t a) FFN(features of t),   FFN with sines
// A filter has `length` taps; `filters` of them are shared by neighbouring channels (MultiHyena, Massaroli et al.,
// arXiv:2310.18780). The state is the inputs that filters still reach.
#include <bit>
#include <cmath>

#include "mixers/heads.h"
#include "nn/init.h"
#include "nn/naive_sequence.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "sequence/long_conv.h"
#include "sequence/recurrences.h"

namespace sennit::mixers {
namespace {

constexpr int64_t kConv = 3;

struct Hyena : Mixer {
  struct Options {
    int64_t order = 2, length = 2048, filters = 0, features = 17, hidden = 32;
    Fields fields() {
      return {
          {"order", &order, "gated convolutions, one after another, and one", {.min = 2, .max = 8}},
          {"length", &length, "taps of a filter: how far back a token reads", {.min = 2, .max = 1 << 24}},
          {"filters",
           &filters,
           "filters of each convolution, a divisor of d_model; 0: one a channel",
           {.min = 0, .max = 65536}},
          {"features", &features, "numbers that tell a filter's network the time: an odd one", {.min = 3, .max = 1025}},
          {"hidden", &hidden, "width of the filters' network", {.min = 1, .max = 4096}}};
    }
  };
  static Info info() {
    return {.title = "Hyena",
            .paper = "arXiv:2302.10866",
            .equation = "z <- x^n (h^n conv z + D^n z), h^n an implicit filter",
            .cost = "O(n log^2 n d order)",
            .settings = {{"third order", R"({"order": 3, "length": 150})"},
                         {"shared filters", R"({"filters": 4, "length": 80})"}}};
  }

  Hyena(const Dims& d, const Options& o, Rng rng) : options(o), width(d.d_model) {
    if (!options.filters) options.filters = width;
    head_dim("hyena", width, options.filters);
    if (o.features % 2 == 0) fail({"hyena", "an odd number of features", fmt::format("{}", o.features)});
    const int64_t maps = (o.order) * width, outputs = (o.order - 1) * options.filters;
    in = Linear(width, maps + width, rng.fork("in"));
    out = Linear(width, width, rng.fork("out"), {.scale = d.out_scale});
    const double bound = 1 / std::sqrt(static_cast<double>(kConv));
    conv.init(uniform_init({maps + width, kConv}, -bound, bound, rng.fork("conv")));
    first = Linear(o.features, o.hidden, rng.fork("first"), {.bias = true});
    second = Linear(o.hidden, o.hidden, rng.fork("second"), {.bias = true});
    third = Linear(o.hidden, outputs, rng.fork("third"), {.scale = 0.3});
    frequency.init(Tensor::full({o.hidden}, 3));
    skip.init(normal_init({(o.order - 1) * width}, 1, rng.fork("skip")));
    // From filters of a few tokens to ones that have faded to 1/100 at their end.
    Tensor rates({outputs});
    for (int64_t c = 0; c < outputs; ++c) {
      const double place =
          static_cast<double>(c % options.filters) / static_cast<double>(std::max<int64_t>(1, options.filters - 1));
      rates.data()[c] = static_cast<float>(std::log(std::log(100.0) / std::pow(static_cast<double>(o.length), place)));
    }
    rate.init(rates);
    conv.decays = frequency.decays = skip.decays = rate.decays = false;
  }
  void visit(const ParameterVisitor& p) override {
    for (auto [name, m] : {std::pair<const char*, Module*>{"in", &in},
                           {"out", &out},
                           {"first", &first},
                           {"second", &second},
                           {"third", &third}})
      p(name, *m);
    for (auto [name, x] : {std::pair<const char*, Parameter*>{"conv", &conv},
                           {"frequency", &frequency},
                           {"skip", &skip},
                           {"rate", &rate}})
      p(name, *x);
  }
  StateSpec state_spec() const override {
    StateSpec s = {{"conv", {kConv - 1, in.out()}}};
    for (int64_t n = 1; n < options.order; ++n)
      s.push_back(long_conv_state(fmt::format("z{}", n), options.length, width));
    return s;
  }

  // Features of times 0 to count - 1: the time over the length, and cosines and sines of its turns.
  double feature(int64_t t, int64_t i) const {
    const double time = static_cast<double>(t) / static_cast<double>(options.length);
    if (i == 0) return time;
    const double angle = 2 * M_PI * time * static_cast<double>((i + 1) / 2);
    return i % 2 ? std::cos(angle) : std::sin(angle);
  }
  // The filters' first `taps` taps [taps, (order - 1) filters].
  Var made_filters(int64_t taps, const Context& c) {
    Tensor features({taps, options.features}), times({taps, 1});
    for (int64_t t = 0; t < taps; ++t) {
      times.data()[t] = -static_cast<float>(t);
      for (int64_t i = 0; i < options.features; ++i)
        features.data()[t * options.features + i] = static_cast<float>(feature(t, i));
    }
    const Var x = sine(multiply_row(second(sine(multiply_row(first(Var(features), c), frequency)), c), frequency));
    const Var ones(Tensor::full({taps, rate.value().elements()}, 1));
    const Var window = exp(multiply_groups(multiply_row(ones, exp(rate)), Var(times)));
    return third(x, c) * window;
  }
  // Those that a batch needs. Without recording they are made once for a version of the parameters, and again when more
  // taps are wanted.
  Var filters_for(const Batch& batch) {
    int64_t taps = 1;
    for (const Segment& s : batch.segments) taps = std::max(taps, s.position + s.length);
    taps = std::min(options.length, static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(taps))));
    if (recording()) return made_filters(taps, *batch.context);
    uint64_t version = batch.context->precision == Precision::f32 ? 0 : 1ull << 60;
    parameters([&](const std::string&, Parameter& p) { version += p.version; });
    if (version != kept_version || kept.rows() < taps)
      kept = made_filters(taps, *batch.context), kept_version = version;
    return kept;
  }
  Var filter_of(const Var& all, int64_t n) const {
    const Var h = columns(all, (n - 1) * options.filters, options.filters);
    return repeat_groups(h, options.filters, width / options.filters);
  }

  Var forward(const Var& u, const Batch& batch) override {
    check_batch<Hyena>("hyena", batch);
    const Var x = short_conv(in(u, *batch.context), conv, {}, batch, 0), all = filters_for(batch);
    Var z = columns(x, 0, width);
    for (int64_t n = 1; n < options.order; ++n) {
      z = columns(x, n * width, width) * z;
      const Var d = reshape(columns(reshape(skip, {1, skip.value().elements()}), (n - 1) * width, width), {width});
      z = long_conv(z, filter_of(all, n), batch, static_cast<size_t>(n), options.length) + multiply_row(z, d);
    }
    return out(columns(x, options.order * width, width) * z, *batch.context);
  }
  Var output(const Var&, const Var& core, const Context& c) override { return out(core, c); }
  // Gates are diagonal matrices and filters are those with equal diagonals: their product, channel by channel.
  std::optional<ImplicitMatrix> implicit(const Var& u, const Context& c) override {
    const int64_t n = u.rows();
    const Segment whole[] = {{0, n, 0, nullptr}};
    const Batch batch{whole, &c};
    const Var x = short_conv(in(u, c), conv, {}, batch, 0), all = filters_for(batch);
    ImplicitMatrix m{Tensor::zeros({width, n, n}), columns(x, 0, width).value()};
    for (int64_t channel = 0; channel < width; ++channel) {
      const auto gate = [&](int64_t level, int64_t t) {
        return double{x.value().data()[t * x.columns() + level * width + channel]};
      };
      std::vector<double> product(n * n);
      for (int64_t t = 0; t < n; ++t) product[t * n + t] = 1;
      for (int64_t level = 1; level < options.order; ++level)
        product = filtered(product, n, [&](int64_t t, int64_t j) {
          const int64_t filter = (level - 1) * options.filters + channel / (width / options.filters);
          const double tap = t - j < all.rows() ? all.value().data()[(t - j) * all.columns() + filter] : 0;
          return (tap + (t == j ? skip.value().data()[(level - 1) * width + channel] : 0)) * gate(level, j);
        });
      for (int64_t t = 0; t < n; ++t)
        for (int64_t j = 0; j <= t; ++j)
          m.weights.data()[(channel * n + t) * n + j] = static_cast<float>(gate(options.order, t) * product[t * n + j]);
    }
    return m;
  }
  // weight(t, j) of j <= t times a lower triangular matrix [n, n].
  template <class Weight>
  static std::vector<double> filtered(const std::vector<double>& of, int64_t n, Weight&& weight) {
    std::vector<double> y(of.size());
    for (int64_t t = 0; t < n; ++t)
      for (int64_t j = 0; j <= t; ++j) {
        const double w = weight(t, j);
        for (int64_t i = 0; i <= j; ++i) y[t * n + i] += w * of[j * n + i];
      }
    return y;
  }
  int64_t flops(int64_t n) const override {
    const int64_t taps = std::min(options.length, static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(n)))),
                  h = options.hidden;
    return n * width * (2 * (in.out() + width) + 2 * kConv * (options.order + 1) + 4 * options.order) +
           taps * (2 * h * (options.features + h + third.out()) + 4 * h + 4 * third.out()) +
           (options.order - 1) * long_conv_flops(n, taps, width);
  }

  naive::Matrix naive_filters(const naive::Weights& w, int64_t taps) const {
    naive::Matrix features(taps, options.features);
    for (int64_t t = 0; t < taps; ++t)
      for (int64_t i = 0; i < options.features; ++i) features(t, i) = feature(t, i);
    for (const char* layer : {"first", "second"}) {
      features = naive::linear(features, w, layer);
      for (int64_t t = 0; t < taps; ++t)
        for (int64_t i = 0; i < features.cols; ++i) features(t, i) = std::sin(w.at("frequency").a[i] * features(t, i));
    }
    naive::Matrix h = naive::linear(features, w, "third");
    for (int64_t t = 0; t < taps; ++t)
      for (int64_t c = 0; c < h.cols; ++c) h(t, c) *= std::exp(-std::exp(w.at("rate").a[c]) * static_cast<double>(t));
    return h;
  }
  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix x = naive::plain_conv(naive::linear(run.x, run.w, "in"), run.w.at("conv"), run.state["conv"]);
    const naive::Matrix h = naive_filters(run.w, options.length);
    naive::Matrix z = naive::columns(x, 0, width);
    for (int64_t n = 1; n < options.order; ++n) {
      naive::Matrix filter(options.length, width);
      for (int64_t t = 0; t < z.rows; ++t)
        for (int64_t c = 0; c < width; ++c) z(t, c) *= x(t, n * width + c);
      for (int64_t t = 0; t < options.length; ++t)
        for (int64_t c = 0; c < width; ++c)
          filter(t, c) = h(t, (n - 1) * options.filters + c * options.filters / width);
      naive::Matrix y = naive::long_conv(z, filter, run.state[fmt::format("z{}", n)]);
      for (int64_t t = 0; t < z.rows; ++t)
        for (int64_t c = 0; c < width; ++c) y(t, c) += run.w.at("skip").a[(n - 1) * width + c] * z(t, c);
      z = y;
    }
    for (int64_t t = 0; t < z.rows; ++t)
      for (int64_t c = 0; c < width; ++c) z(t, c) *= x(t, options.order * width + c);
    return naive::linear(z, run.w, "out");
  }

  Options options;
  int64_t width;
  Linear in, out, first, second, third;
  Parameter conv, frequency, skip, rate;
  Var kept;
  uint64_t kept_version = 0;
};

}  // namespace

void register_hyena(Registry<Mixer>& r) {
  r.add<Hyena>("hyena");
}

}  // namespace sennit::mixers
