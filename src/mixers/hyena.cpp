// Hyena Hierarchy: Towards Larger Convolutional Language Models (Poli et al., arXiv:2302.10866), definition 3.1, with
// its implicit filters (section 3.3):
//   v, x^1 ... x^N = short_conv(W u);   z = v;   z <- x^n * (h^n conv z + D^n * z) for n = 1 ... N;   y = W_o z
//   h^n_t = exp(-t a) FFN(features of t),   FFN with sines
// A filter has `length` taps; `filters` of them are shared by neighbouring channels (MultiHyena, Massaroli et al.,
// arXiv:2310.18780). The state is the inputs that filters still reach.
#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/parallel.h"
#include "mixers/gated_convolutions.h"
#include "nn/init.h"
#include "nn/modes.h"
#include "nn/naive_sequence.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "sequence/long_conv.h"

namespace sennit::mixers {
namespace {

struct Hyena : GatedConvolutions {
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

  Hyena(const Dims& d, const Options& o, Rng rng) : GatedConvolutions("hyena", d, o.order, o.filters, rng), options(o) {
    if (o.features % 2 == 0) fail({"hyena", "an odd number of features", fmt::format("{}", o.features)});
    const int64_t outputs = (order - 1) * filters;
    first = Linear(o.features, o.hidden, rng.fork("first"), {.bias = true});
    second = Linear(o.hidden, o.hidden, rng.fork("second"), {.bias = true});
    third = Linear(o.hidden, outputs, rng.fork("third"), {.scale = 0.3});
    frequency.init(Tensor::full({o.hidden}, 3));
    // From filters of a few tokens to ones that have faded to 1/100 at their end.
    Tensor rates({outputs});
    for (int64_t c = 0; c < outputs; ++c) {
      const double place = static_cast<double>(c % filters) / static_cast<double>(std::max<int64_t>(1, filters - 1));
      rates.data()[c] = static_cast<float>(std::log(std::log(100.0) / std::pow(static_cast<double>(o.length), place)));
    }
    rate.init(rates);
    frequency.decays = rate.decays = false;
  }
  void visit(const ParameterVisitor& p) override {
    GatedConvolutions::visit(p);
    for (auto [name, m] : {std::pair<const char*, Module*>{"first", &first}, {"second", &second}, {"third", &third}})
      p(name, *m);
    p("frequency", frequency), p("rate", rate);
  }
  StateSpec state_spec() const override {
    StateSpec s = {conv_state()};
    for (int64_t n = 1; n < order; ++n) s.push_back(long_conv_state(fmt::format("z{}", n), options.length, width));
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
  Var forward(const Var& u, const Batch& batch) override {
    check_batch<Hyena>("hyena", batch);
    const Var all = filters_for(batch);
    const auto filtered = [&](const Var& z, int64_t n) {
      const Var h = repeat_groups(columns(all, (n - 1) * filters, filters), filters, width / filters);
      return long_conv(z, h, batch, static_cast<size_t>(n), options.length);
    };
    return gated(u, batch, std::ref(filtered));  // a copy would ask for memory
  }
  std::optional<ImplicitMatrix> implicit(const Var& u, const Context& c) override {
    const Segment whole[] = {{0, u.rows(), 0, nullptr}};
    const Tensor all = filters_for({whole, &c}).value();
    return product(u, c, [&](int64_t n, int64_t filter, int64_t lag) {
      return lag < all.rows() ? double{all.data()[lag * all.row_size() + (n - 1) * filters + filter]} : 0.0;
    });
  }
  int64_t flops(int64_t n) const override {
    const int64_t taps = std::min(options.length, static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(n)))),
                  h = options.hidden;
    return gated_flops(n) + taps * (2 * h * (options.features + h + third.out()) + 4 * h + 4 * third.out()) +
           (order - 1) * long_conv_flops(n, taps, width);
  }

  naive::Matrix naive_filters(const naive::Weights& w, int64_t taps) const {
    const naive::Matrix &turns = w.at("frequency"), &rates = w.at("rate");
    naive::Matrix features(taps, options.features);
    for (int64_t t = 0; t < taps; ++t)
      for (int64_t i = 0; i < options.features; ++i) features(t, i) = feature(t, i);
    for (const char* layer : {"first", "second"}) {
      features = naive::linear(features, w, layer);
      for (int64_t t = 0; t < taps; ++t)
        for (int64_t i = 0; i < features.cols; ++i) features(t, i) = std::sin(turns.a[i] * features(t, i));
    }
    naive::Matrix h = naive::linear(features, w, "third");
    for (int64_t t = 0; t < taps; ++t)
      for (int64_t c = 0; c < h.cols; ++c) h(t, c) *= std::exp(-std::exp(rates.a[c]) * static_cast<double>(t));
    return h;
  }
  naive::Matrix naive(NaiveRun& run) const override {
    // Later taps meet nothing.
    const naive::Matrix h = naive_filters(run.w, std::min(options.length, run.position + run.x.rows));
    return naive_gated(run, [&](const naive::Matrix& z, int64_t n) {
      naive::Matrix filter(options.length, width);
      for (int64_t t = 0; t < h.rows; ++t)
        for (int64_t c = 0; c < width; ++c) filter(t, c) = h(t, (n - 1) * filters + c * filters / width);
      return naive::long_conv(z, filter, run.state[fmt::format("z{}", n)]);
    });
  }

  // Each filter by itself becomes modes; the largest number of them decides.
  std::optional<Distilled> distilled(const DistillOptions& how) override {
    NoGrad off;
    const Tensor h = made_filters(options.length, {}).value();
    std::vector<Modes> fits(static_cast<size_t>(h.row_size()));
    std::vector<double> left_out(fits.size());
    parallel_for(std::ssize(fits), 1, [&](int64_t b, int64_t e) {
      for (int64_t f = b; f < e; ++f) {
        std::vector<double> taps;
        for (int64_t t = 0; t < options.length; ++t) taps.push_back(h.data()[t * h.row_size() + f]);
        fits[f] = fit_modes(taps, how.order, how.tolerance);
        left_out[f] = relative_error(taps, fits[f]);
      }
    });
    return as_modes(h, fits, *std::max_element(left_out.begin(), left_out.end()));
  }
  static double relative_error(std::span<const double> h, const Modes& fit) {
    double wrong = 0, size = 0;
    for (size_t t = 1; t < h.size(); ++t) {
      wrong += std::pow(h[t] - fit.tap(static_cast<int64_t>(t)), 2);
      size += h[t] * h[t];
    }
    return size > 0 ? std::sqrt(wrong / size) : 0;
  }
  Distilled as_modes(const Tensor& h, const std::vector<Modes>& fits, double left_out) {
    size_t modes = 1;
    Distilled d;
    d.left_out = left_out;
    for (const Modes& fit : fits) modes = std::max(modes, fit.poles.size()), d.order = std::max(d.order, fit.order());
    d.mixer = json_text({{"name", "laughing_hyena"}, {"order", order}, {"filters", filters}, {"modes", modes}});
    GatedConvolutions::visit(
        ParameterVisitor([&](const std::string& name, Parameter& p) { d.parameters[name] = p.value().clone(); }));
    const Shape shape{std::ssize(fits), static_cast<int64_t>(modes)};
    Tensor &rates = d.parameters["rate"] = Tensor::zeros(shape), &turns = d.parameters["turn"] = Tensor::zeros(shape),
           &reals = d.parameters["real"] = Tensor::zeros(shape),
           &imaginaries = d.parameters["imaginary"] = Tensor::zeros(shape), &skips = d.parameters["skip"];
    for (size_t f = 0; f < fits.size(); ++f) {
      for (size_t m = 0; m < fits[f].poles.size(); ++m) {
        const size_t at = f * modes + m;
        const std::complex<double> l = fits[f].poles[m], w = fits[f].weights[m];
        rates.data()[at] = static_cast<float>(std::log(-std::log(std::abs(l))));
        turns.data()[at] = static_cast<float>(std::arg(l));
        reals.data()[at] = static_cast<float>(w.real()), imaginaries.data()[at] = static_cast<float>(w.imag());
      }
      const int64_t each = width / filters, first_channel = static_cast<int64_t>(f) * each;
      for (int64_t c = first_channel; c < first_channel + each; ++c)  // what modes have at tap 0, and the filter does
        skips.data()[c] += static_cast<float>(h.data()[f] - fits[f].tap(0));
    }
    return d;
  }

  Options options;
  Linear first, second, third;
  Parameter frequency, rate;
  Var kept;
  uint64_t kept_version = 0;
};

}  // namespace

void register_hyena(Registry<Mixer>& r) {
  r.add<Hyena>("hyena");
}

}  // namespace sennit::mixers
