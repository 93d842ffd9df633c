// Efficiently Modeling Long Sequences with Structured State Spaces (S4, Gu et al., arXiv:2111.00396), sections 2 and 3:
//   x' = (diag(l) - p p^*) x + b u,   y = W_o gelu(2 Re(c x) + D u)   for every channel, M modes of a conjugate pair
//   each,
// started as HiPPO-LegS, by the bilinear step: with z = dt l / 2 and the real sum s_t = 2 Re(p^* x_t)
//   x_t = (1 + z) / (1 - z) x_{t-1} + dt b / (1 - z) u_t - dt p / (2 (1 - z)) (s_{t-1} + s_t)
// Several whole sequences go by the convolution with the answer to one impulse; else token by token.
#include <array>
#include <cmath>

#include "mixers/hippo.h"
#include "mixers/mixer.h"
#include "nn/init.h"
#include "ops/arithmetic.h"
#include "ops/count.h"
#include "ops/maps.h"
#include "sequence/long_conv.h"
#include "sequence/recurrences.h"

namespace sennit::mixers {
namespace {

using Complex = std::complex<double>;

// log_step [C, 1], log_rate and frequency [C, M]; p, b and c [C, 2 M], real parts first.
enum Given { kStep, kRate, kFrequency, kP, kB, kC, kGiven };
enum Made { kA, kIn, kE, kOut, kRead, kMade };

// One mode's parameters, and what the bilinear step makes of them.
struct Mode {
  double step, rate;
  Complex l, p, b, c, inverse;  // 1 / (1 - z)
  Mode(std::span<const Tensor> x, int64_t channel, int64_t mode) {
    const int64_t modes = x[kRate].row_size();
    const auto pair = [&](Given which) {
      const float* row = x[which].data() + channel * 2 * modes + mode;
      return Complex{row[0], row[modes]};
    };
    step = std::exp(double{x[kStep].data()[channel]});
    rate = std::exp(double{x[kRate].data()[channel * modes + mode]});
    l = {-rate, x[kFrequency].data()[channel * modes + mode]};
    p = pair(kP), b = pair(kB), c = pair(kC);
    inverse = 1.0 / (1.0 - step * l / 2.0);
  }
  std::array<Complex, kMade> made() const {
    return {(1.0 + step * l / 2.0) * inverse, step * b * inverse, step / 2 * p * inverse, std::conj(p), 2.0 * c};
  }
};

// To a, b, e, p and c of dplr_modes() [C, 2 M].
std::vector<Var> bilinear(const std::array<Var, kGiven>& in) {
  std::array<Tensor, kGiven> x;
  for (size_t i = 0; i < x.size(); ++i) x[i] = in[i].value();
  const int64_t channels = x[kRate].rows(), modes = x[kRate].row_size();
  std::vector<Tensor> out;
  for (int i = 0; i < kMade; ++i) out.emplace_back(Shape{channels, 2 * modes});
  const auto each = [=](auto&& body) {
    for (int64_t i = 0; i < channels * modes; ++i) body(i / modes, i % modes, i / modes * 2 * modes + i % modes);
  };
  each([&](int64_t c, int64_t m, int64_t at) {
    const auto made = Mode(x, c, m).made();
    for (int i = 0; i < kMade; ++i) {
      out[i].data()[at] = static_cast<float>(made[i].real());
      out[i].data()[at + modes] = static_cast<float>(made[i].imag());
    }
  });
  count_flops(60 * channels * modes);
  return record_all(std::move(out), in, [x, each, modes](std::span<const Tensor> d, Gradients& into) {
    count_flops(120 * x[kRate].elements());
    each([&](int64_t c, int64_t m, int64_t at) {
      // A pair of gradients is a complex number g; through y = f(x) it goes as conj(f') g.
      const auto g = [&](Made which) {
        return d[which] ? Complex{d[which].data()[at], d[which].data()[at + modes]} : Complex();
      };
      const auto give = [&](Given which, Complex v) {
        into.sum(which).data()[at] += static_cast<float>(v.real());
        into.sum(which).data()[at + modes] += static_cast<float>(v.imag());
      };
      const Mode o(x, c, m);
      const Complex square = o.inverse * o.inverse;
      const Complex dz = std::conj(2.0 * square) * g(kA) + std::conj(o.step * o.b * square) * g(kIn) +
                         std::conj(o.step / 2 * o.p * square) * g(kE);
      const Complex dl = o.step / 2 * dz;
      const double d_step =
          (std::conj(o.inverse * o.b) * g(kIn) + std::conj(o.inverse * o.p / 2.0) * g(kE) + std::conj(o.l / 2.0) * dz)
              .real();
      into.sum(kStep).data()[c] += static_cast<float>(o.step * d_step);
      into.sum(kRate).data()[c * modes + m] += static_cast<float>(-o.rate * dl.real());
      into.sum(kFrequency).data()[c * modes + m] += static_cast<float>(dl.imag());
      give(kB, std::conj(o.step * o.inverse) * g(kIn));
      give(kP, std::conj(o.step / 2 * o.inverse) * g(kE) + std::conj(g(kOut)));
      give(kC, 2.0 * g(kRead));
    });
  });
}

struct S4 : Mixer {
  struct Options {
    int64_t modes = 16;
    std::string start = "hippo";
    double dt_min = 1e-3, dt_max = 1e-1;
    Fields fields() {
      return {{"modes", &modes, "complex modes a channel; the state is twice as many numbers", {.min = 1, .max = 64}},
              {"start", &start, "where the state space starts", {.choices = {"hippo", "random"}}},
              {"dt_min", &dt_min, "smallest step at the start", {.min = 1e-6, .max = 10}},
              {"dt_max", &dt_max, "largest step at the start", {.min = 1e-6, .max = 10}}};
    }
  };
  static Info info() {
    return {.title = "Structured state space (S4)",
            .paper = "arXiv:2111.00396",
            .equation = "x' = (diag(l) - p p^*) x + b u, y = 2 Re(c x) + D u, by the bilinear step",
            .cost = "O(n d modes)",
            .settings = {{"random start", R"({"start": "random", "modes": 5})"}}};
  }
  S4(const Dims& d, const Options& o, Rng rng) : options(o), channels(d.d_model) {
    if (o.dt_min > o.dt_max)
      fail({"s4", fmt::format("dt_max of at least dt_min = {}", o.dt_min), fmt::format("{}", o.dt_max)});
    const Shape wide{channels, 2 * o.modes}, narrow{channels, o.modes};
    Tensor rates = Tensor::full(narrow, std::log(0.5f)), turns(narrow), ps = normal_init(wide, 1, rng.fork("p")),
           bs = normal_init(wide, 1, rng.fork("b"));
    const Dplr start = hippo_legs(o.modes);
    for (int64_t i = 0; i < turns.elements(); ++i) {
      const int64_t n = i % o.modes, at = i / o.modes * 2 * o.modes + n;
      turns.data()[i] = static_cast<float>(start.lambda[n].imag());
      if (o.start == "random") continue;
      ps.data()[at] = static_cast<float>(start.p[n].real()),
      ps.data()[at + o.modes] = static_cast<float>(start.p[n].imag());
      bs.data()[at] = static_cast<float>(start.b[n].real()),
      bs.data()[at + o.modes] = static_cast<float>(start.b[n].imag());
    }
    if (o.start == "random")
      turns = uniform_init(narrow, 0, M_PI * static_cast<double>(o.modes), rng.fork("frequency"));
    log_step.init(uniform_init({channels, 1}, std::log(o.dt_min), std::log(o.dt_max), rng.fork("step")));
    log_rate.init(rates), frequency.init(turns), p.init(ps), b.init(bs);
    c.init(normal_init(wide, std::sqrt(0.5 / static_cast<double>(o.modes)), rng.fork("c")));
    skip.init(Tensor::full({channels}, 1));
    for (Parameter* x : {&log_step, &log_rate, &frequency, &p, &b, &skip}) x->decays = false;
    out = Linear(channels, channels, rng.fork("out"), {.scale = d.out_scale});
  }
  void visit(const ParameterVisitor& v) override {
    for (auto [name, x] : {std::pair<const char*, Parameter*>{"log_step", &log_step},
                           {"log_rate", &log_rate},
                           {"frequency", &frequency},
                           {"p", &p},
                           {"b", &b},
                           {"c", &c},
                           {"skip", &skip}})
      v(name, *x);
    v("out", out);
  }
  StateSpec state_spec() const override { return {{"x", {channels, 2, options.modes}}}; }

  Var scan(const Var& u, const std::vector<Var>& m, const Batch& batch) const {
    return dplr_modes({.u = u, .a = m[kA], .b = m[kIn], .e = m[kE], .p = m[kOut], .c = m[kRead]}, batch, 0);
  }
  // The answer to an impulse: the convolution's filter [length, C].
  Var filter(int64_t length, const std::vector<Var>& m, const Context& context) const {
    Tensor impulse = Tensor::zeros({length, channels});
    for (int64_t i = 0; i < channels; ++i) impulse.data()[i] = 1;
    const Segment whole[] = {{0, length, 0, nullptr}};
    return scan(Var(impulse), m, {whole, &context});
  }
  // Whether the convolution is worth its filter: many rows for the length of the longest sequence.
  static bool convolves(const Batch& batch) {
    constexpr int64_t kWorth = 4;
    int64_t longest = 0;
    for (const Segment& s : batch.segments) {
      if (s.state) return false;
      longest = std::max(longest, s.length);
    }
    return !batch.context->exact && batch.rows() >= kWorth * longest;
  }
  Var forward(const Var& u, const Batch& batch) override {
    check_batch<S4>("s4", batch);
    const std::vector<Var>& m = coefficients();
    if (!convolves(batch)) return output(u, scan(u, m, batch), *batch.context);
    int64_t longest = 1;
    for (const Segment& s : batch.segments) longest = std::max(longest, s.length);
    return output(u, long_conv(u, filter(longest, m, *batch.context), batch, 0), *batch.context);
  }
  // Without recording they are made once for a version of the parameters.
  const std::vector<Var>& coefficients() {
    uint64_t version = 0;
    const std::array<const Parameter*, kGiven> all = {&log_step, &log_rate, &frequency, &p, &b, &c};
    for (const Parameter* x : all) version += x->version;
    if (recording() || version != kept_version) {
      kept = bilinear({all[0]->var, all[1]->var, all[2]->var, all[3]->var, all[4]->var, all[5]->var});
      kept_version = recording() ? 0 : version;
    }
    return kept;
  }
  Var output(const Var& u, const Var& core, const Context& context) override {
    return out(gelu(core + multiply_row(u, skip)), context);
  }
  int64_t flops(int64_t n) const override {
    return n * channels * (2 * channels + 32 * options.modes + 3) + 60 * channels * options.modes;
  }

  // One channel's step as real matrices of 2 M rows: (1 - dt A / 2) x_t = (1 + dt A / 2) x_{t-1} + dt b u_t.
  struct Step {
    naive::Matrix through;
    std::vector<double> in, read;
  };
  Step naive_step(const naive::Weights& w, int64_t ch) const {
    const int64_t m = options.modes, n = 2 * m;
    const double dt = std::exp(w.at("log_step").a[ch]);
    const auto pair = [&](const char* name, int64_t i) { return Complex{w.at(name)(ch, i), w.at(name)(ch, m + i)}; };
    naive::Matrix left(n, n), right(n, n + 1);
    for (int64_t j = 0; j < n; ++j) {  // column by column: A applied to a unit of the real or imaginary part
      const int64_t mode = j % m;
      const Complex unit = j < m ? Complex(1, 0) : Complex(0, 1);
      const double met = 2 * (std::conj(pair("p", mode)) * unit).real();
      for (int64_t i = 0; i < m; ++i) {
        Complex y = -pair("p", i) * met;
        if (i == mode) y += Complex{-std::exp(w.at("log_rate")(ch, i)), w.at("frequency")(ch, i)} * unit;
        for (const auto& [row, part] : {std::pair{i, y.real()}, {m + i, y.imag()}}) {
          left(row, j) = (row == j) - dt / 2 * part;
          right(row, j) = (row == j) + dt / 2 * part;
        }
      }
    }
    Step s{naive::Matrix(n, n), std::vector<double>(n), std::vector<double>(n)};
    for (int64_t i = 0; i < m; ++i) {
      right(i, n) = dt * pair("b", i).real(), right(m + i, n) = dt * pair("b", i).imag();
      s.read[i] = 2 * pair("c", i).real(), s.read[m + i] = -2 * pair("c", i).imag();
    }
    solve(left, right);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) s.through(i, j) = right(i, j);
      s.in[i] = right(i, n);
    }
    return s;
  }
  // right <- left^-1 right, by elimination with pivots.
  static void solve(naive::Matrix& left, naive::Matrix& right) {
    const int64_t n = left.rows;
    for (int64_t k = 0; k < n; ++k) {
      int64_t pivot = k;
      for (int64_t i = k; i < n; ++i)
        if (std::fabs(left(i, k)) > std::fabs(left(pivot, k))) pivot = i;
      for (int64_t j = 0; j < n; ++j) std::swap(left(k, j), left(pivot, j));
      for (int64_t j = 0; j < right.cols; ++j) std::swap(right(k, j), right(pivot, j));
      for (int64_t i = 0; i < n; ++i) {
        if (i == k) continue;
        const double share = left(i, k) / left(k, k);
        for (int64_t j = k; j < n; ++j) left(i, j) -= share * left(k, j);
        for (int64_t j = 0; j < right.cols; ++j) right(i, j) -= share * right(k, j);
      }
    }
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < right.cols; ++j) right(i, j) /= left(i, i);
  }
  naive::Matrix naive(NaiveRun& run) const override {
    const int64_t n = 2 * options.modes;
    naive::Matrix &x = run.state["x"], y(run.x.rows, channels);
    if (!x.rows) x = naive::Matrix(channels, n);
    for (int64_t ch = 0; ch < channels; ++ch) {
      const Step s = naive_step(run.w, ch);
      for (int64_t t = 0; t < y.rows; ++t) {
        std::vector<double> next(n);
        for (int64_t i = 0; i < n; ++i) {
          next[i] = s.in[i] * run.x(t, ch);
          for (int64_t j = 0; j < n; ++j) next[i] += s.through(i, j) * x(ch, j);
        }
        for (int64_t i = 0; i < n; ++i) y(t, ch) += s.read[i] * (x(ch, i) = next[i]);
        y(t, ch) = naive::activation("gelu", y(t, ch) + run.w.at("skip").a[ch] * run.x(t, ch));
      }
    }
    return naive::linear(y, run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& u, const Context& context) override {
    const int64_t n = u.rows();
    const Tensor h = filter(n, coefficients(), context).value();
    ImplicitMatrix m{Tensor::zeros({channels, n, n}), u.value()};
    for (int64_t ch = 0; ch < channels; ++ch)
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j <= i; ++j) m.weights.data()[(ch * n + i) * n + j] = h.data()[(i - j) * channels + ch];
    return m;
  }

  Options options;
  int64_t channels;
  Parameter log_step, log_rate, frequency, p, b, c, skip;
  Linear out;
  std::vector<Var> kept;
  uint64_t kept_version = 0;
};

}  // namespace

void register_s4(Registry<Mixer>& r) {
  r.add<S4>("s4");
}

}  // namespace sennit::mixers
