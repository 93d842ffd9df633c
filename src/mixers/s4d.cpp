// On the Parameterization and Initialization of Diagonal State Space Models (S4D, Gu et al., arXiv:2206.11893),
// sections 3 and 4, the diagonal form of Efficiently Modeling Long Sequences with Structured State Spaces (S4, Gu et
// al., arXiv:2111.00396):
//   h_t = l h_{t-1} + u_t,   y_t = W_o gelu(2 Re(sum_n C_n b_n h_tn) + D u_t),   l = exp(dt A),   b = (l - 1) / A
// for every channel, with A = -exp(a) + i f complex, M modes of a conjugate pair each, and steps dt (zero-order hold).
// At the start A_n = -1/2 + i pi n (S4D-Lin) or -1/2 + i (2M / pi) (2M / (2n + 1) - 1) (S4D-Inv).
#include <array>
#include <cmath>
#include <complex>

#include "mixers/mixer.h"
#include "nn/init.h"
#include "ops/arithmetic.h"
#include "ops/count.h"
#include "ops/maps.h"
#include "sequence/recurrences.h"

namespace sennit::mixers {
namespace {

using Complex = std::complex<double>;

// One mode's parameters, and what comes of them; in double, since l - 1 loses what a small step leaves of it.
struct S4dMode {
  double step;
  Complex a, c, l, b;
  S4dMode(std::span<const Tensor> p, int64_t i) {
    const auto at = [&](size_t which) { return double{p[which].data()[i]}; };
    step = std::exp(double{p[0].data()[i / p[1].row_size()]});
    a = {-std::exp(at(1)), at(2)}, c = {at(3), at(4)};
    l = std::exp(step * a), b = (l - 1.0) / a;
  }
};

// From log_step [C, 1], log_rate, frequency and the parts of C [C, M] to the parts of l and of 2 C b [C, M].
std::vector<Var> zero_order_hold(const std::array<Var, 5>& in) {
  std::array<Tensor, 5> p;
  for (size_t i = 0; i < p.size(); ++i) p[i] = in[i].value();
  std::vector<Tensor> out;
  for (int i = 0; i < 4; ++i) out.emplace_back(p[1].shape());
  for (int64_t i = 0; i < p[1].elements(); ++i) {
    const S4dMode m(p, i);
    const Complex w = 2.0 * m.c * m.b;
    const double parts[] = {m.l.real(), m.l.imag(), w.real(), w.imag()};
    for (int j = 0; j < 4; ++j) out[j].data()[i] = static_cast<float>(parts[j]);
  }
  count_flops(30 * p[1].elements());
  return record_all(std::move(out), in, [p](std::span<const Tensor> d, Gradients& into) {
    // A pair of gradients is a complex number g; through y = f(x) it goes as conj(f') g.
    const auto pair = [&](int re, int64_t i) {
      return Complex{d[re] ? d[re].data()[i] : 0, d[re + 1] ? d[re + 1].data()[i] : 0};
    };
    count_flops(60 * p[1].elements());
    for (int64_t i = 0; i < p[1].elements(); ++i) {
      const S4dMode m(p, i);
      const Complex dw = 2.0 * pair(2, i), dc = std::conj(m.b) * dw, db = std::conj(m.c) * dw;
      const Complex dz = std::conj(m.l) * (pair(0, i) + db / std::conj(m.a)),
                    da = m.step * dz - std::conj(m.b / m.a) * db;
      into.sum(0).data()[i / p[1].row_size()] += static_cast<float>(m.step * (std::conj(m.a) * dz).real());
      const double parts[] = {m.a.real() * da.real(), da.imag(), dc.real(), dc.imag()};
      for (int j = 0; j < 4; ++j) into.sum(1 + j).data()[i] += static_cast<float>(parts[j]);
    }
  });
}

struct S4d : Mixer {
  struct Options {
    int64_t modes = 16;
    std::string start = "lin";
    double dt_min = 1e-3, dt_max = 1e-1;
    Fields fields() {
      return {{"modes", &modes, "complex modes a channel; the state is twice as many numbers", {.min = 1, .max = 4096}},
              {"start", &start, "where the frequencies start", {.choices = {"lin", "inv"}}},
              {"dt_min", &dt_min, "smallest step at the start", {.min = 1e-6, .max = 10}},
              {"dt_max", &dt_max, "largest step at the start", {.min = 1e-6, .max = 10}}};
    }
  };
  static Info info() {
    return {.title = "Diagonal state space (S4D)",
            .paper = "arXiv:2206.11893",
            .equation = "h_t = exp(dt A) h_{t-1} + u_t, y_t = 2 Re(C b h_t) + D u_t",
            .cost = "O(n d modes)",
            .settings = {{"inverse frequencies", R"({"start": "inv", "modes": 5})"}}};
  }

  S4d(const Dims& d, const Options& o, Rng rng) : options(o), channels(d.d_model) {
    if (o.dt_min > o.dt_max)
      fail({"s4d", fmt::format("dt_max of at least dt_min = {}", o.dt_min), fmt::format("{}", o.dt_max)});
    const Shape shape{channels, o.modes};
    Tensor rates = Tensor::full(shape, std::log(0.5f)), turns(shape);
    const double m = static_cast<double>(o.modes);
    for (int64_t i = 0; i < turns.elements(); ++i) {
      const double n = static_cast<double>(i % o.modes);
      turns.data()[i] = static_cast<float>(o.start == "lin" ? M_PI * n : 2 * m / M_PI * (2 * m / (2 * n + 1) - 1));
    }
    log_step.init(uniform_init({channels, 1}, std::log(o.dt_min), std::log(o.dt_max), rng.fork("step")));
    log_rate.init(rates);
    frequency.init(turns);
    c_real.init(normal_init(shape, std::sqrt(0.5), rng.fork("c_real")));
    c_imaginary.init(normal_init(shape, std::sqrt(0.5), rng.fork("c_imaginary")));
    skip.init(Tensor::full({channels}, 1));
    for (Parameter* p : {&log_step, &log_rate, &frequency, &skip}) p->decays = false;
    out = Linear(channels, channels, rng.fork("out"), {.scale = d.out_scale});
  }

  void visit(const ParameterVisitor& p) override {
    p("log_step", log_step);
    p("log_rate", log_rate);
    p("frequency", frequency);
    p("c_real", c_real);
    p("c_imaginary", c_imaginary);
    p("skip", skip);
    p("out", out);
  }
  StateSpec state_spec() const override { return {{"h", {channels, 2, options.modes}}}; }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<S4d>("s4d", batch);
    const std::vector<Var> fresh = recording() ? zero_order_hold(parameters_of_modes()) : std::vector<Var>();
    const std::vector<Var>& m = recording() ? fresh : kept_modes();
    return output(x, modal_scan({x, m[0], m[1], m[2], m[3]}, batch, 0), *batch.context);
  }
  std::array<Var, 5> parameters_of_modes() const { return {log_step, log_rate, frequency, c_real, c_imaginary}; }
  // Without recording they are made once for a version of the parameters.
  const std::vector<Var>& kept_modes() {
    uint64_t version = 0;
    for (const Parameter* p : {&log_step, &log_rate, &frequency, &c_real, &c_imaginary}) version += p->version;
    if (version != kept_version) {
      kept = zero_order_hold(parameters_of_modes());
      kept_version = version;
    }
    return kept;
  }
  Var output(const Var& x, const Var& core, const Context& c) override {
    return out(gelu(core + multiply_row(x, skip)), c);
  }
  int64_t flops(int64_t n) const override {
    return n * channels * (2 * channels + 11 * options.modes + 3) + 30 * channels * options.modes;
  }

  // l and 2 C b of a channel's mode.
  static std::pair<Complex, Complex> mode(const naive::Weights& w, int64_t c, int64_t n) {
    const auto at = [&](const char* name) { return w.at(name)(c, n); };
    const Complex a{-std::exp(at("log_rate")), at("frequency")}, l = std::exp(std::exp(w.at("log_step").a[c]) * a);
    return {l, 2.0 * Complex{at("c_real"), at("c_imaginary")} * (l - 1.0) / a};
  }
  naive::Matrix naive(NaiveRun& run) const override {
    naive::Matrix& h = run.state["h"];
    if (!h.rows) h = naive::Matrix(channels, 2 * options.modes);
    naive::Matrix y(run.x.rows, channels);
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t n = 0; n < options.modes; ++n) {
        const auto [l, weight] = mode(run.w, c, n);
        Complex s{h(c, n), h(c, options.modes + n)};
        for (int64_t t = 0; t < run.x.rows; ++t) {
          s = l * s + run.x(t, c);
          y(t, c) += (weight * s).real();
        }
        h(c, n) = s.real(), h(c, options.modes + n) = s.imag();
      }
      for (int64_t t = 0; t < run.x.rows; ++t)
        y(t, c) = naive::activation("gelu", y(t, c) + run.w.at("skip").a[c] * run.x(t, c));
    }
    return naive::linear(y, run.w, "out");
  }

  // The convolution: K_k = 2 Re(sum_n C_n b_n l_n^k).
  std::optional<ImplicitMatrix> implicit(const Var& x, const Context&) override {
    naive::Weights w;
    parameters([&](const std::string& name, Parameter& p) {
      const Tensor& t = p.value();
      w[name] = naive::Matrix(t.rows(), t.row_size());
      for (int64_t i = 0; i < t.elements(); ++i) w[name].a[static_cast<size_t>(i)] = t.data()[i];
    });
    const int64_t n = x.rows();
    ImplicitMatrix m{Tensor::zeros({channels, n, n}), x.value()};
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t k = 0; k < n; ++k) {
        double kernel = 0;
        for (int64_t j = 0; j < options.modes; ++j) {
          const auto [l, weight] = mode(w, c, j);
          kernel += (weight * std::pow(l, static_cast<double>(k))).real();
        }
        for (int64_t i = k; i < n; ++i) m.weights.data()[(c * n + i) * n + i - k] = static_cast<float>(kernel);
      }
    return m;
  }

  Options options;
  int64_t channels;
  Parameter log_step, log_rate, frequency, c_real, c_imaginary, skip;
  Linear out;
  std::vector<Var> kept;
  uint64_t kept_version = 0;
};

}  // namespace

void register_s4d(Registry<Mixer>& r) {
  r.add<S4d>("s4d");
}

}  // namespace sennit::mixers
