// Laughing Hyena (Massaroli et al., arXiv:2310.18780), section 3.1: Hyena whose filters are few decaying turns,
//   h^n_t = sum_m Re(w^n_m l^n_m^t),   l = exp(-exp(rate) + i turn)
// so that a convolution is a recurrence of constant size. `filters` of them are shared by neighbouring channels
// (MultiHyena). `sennit distill` makes one of a trained Hyena; what a filter has at tap 0 goes with D.
#include <cmath>
#include <complex>

#include "mixers/gated_convolutions.h"
#include "nn/init.h"
#include "nn/kept.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "sequence/recurrences.h"

namespace sennit::mixers {
namespace {

struct LaughingHyena : GatedConvolutions {
  struct Options {
    int64_t order = 2, filters = 0, modes = 8;
    Fields fields() {
      return {
          {"order", &order, "gated convolutions, one after another, and one", {.min = 2, .max = 8}},
          {"filters",
           &filters,
           "filters of each convolution, a divisor of d_model; 0: one a channel",
           {.min = 0, .max = 65536}},
          {"modes", &modes, "complex modes of a filter; the state is twice as many numbers", {.min = 1, .max = 4096}}};
    }
  };
  static Info info() {
    return {.title = "Laughing Hyena",
            .paper = "arXiv:2310.18780",
            .equation = "z <- x^n (h^n conv z + D^n z), h^n_t = sum Re(w l^t)",
            .cost = "O(n d order modes)",
            .settings = {{"third order", R"({"order": 3, "modes": 3})"}, {"shared filters", R"({"filters": 4})"}}};
  }
  LaughingHyena(const Dims& d, const Options& o, Rng rng)
      : GatedConvolutions("laughing_hyena", d, o.order, o.filters, rng), modes(o.modes) {
    const Shape shape{(order - 1) * filters, modes};
    // From modes of two tokens to ones of a thousand.
    rate.init(uniform_init(shape, std::log(1e-3), std::log(0.5), rng.fork("rate")));
    turn.init(uniform_init(shape, 0, M_PI, rng.fork("turn")));
    const double deviation = 0.3 / std::sqrt(static_cast<double>(modes));
    real.init(normal_init(shape, deviation, rng.fork("real")));
    imaginary.init(normal_init(shape, deviation, rng.fork("imaginary")));
    rate.decays = turn.decays = false;
  }
  void visit(const ParameterVisitor& p) override {
    GatedConvolutions::visit(p);
    p("rate", rate), p("turn", turn), p("real", real), p("imaginary", imaginary);
  }
  StateSpec state_spec() const override {
    StateSpec s = {conv_state()};
    for (int64_t n = 1; n < order; ++n) s.push_back({fmt::format("h{}", n), {width, 2, modes}});
    return s;
  }

  // Real and imaginary parts of poles and of weights, a row a channel, of every convolution.
  std::vector<std::array<Var, 4>> made_modes() const {
    const Var size = exp(scale(exp(rate), -1));
    const std::array<Var, 4> all = {size * sine(affine(turn, 1, M_PI / 2)), size * sine(turn), real, imaginary};
    std::vector<std::array<Var, 4>> made(static_cast<size_t>(order - 1));
    std::vector<int64_t> rows(static_cast<size_t>(width));
    for (int64_t n = 0; n < order - 1; ++n) {
      for (int64_t c = 0; c < width; ++c) rows[c] = n * filters + c / (width / filters);
      for (size_t i = 0; i < all.size(); ++i) made[n][i] = gather_rows(all[i], rows);
    }
    return made;
  }
  Var forward(const Var& u, const Batch& batch) override {
    check_batch<LaughingHyena>("laughing_hyena", batch);
    uint64_t version = 0;
    for (const Parameter* p : {&rate, &turn, &real, &imaginary}) version += p->version;
    const auto& all = kept.get(version, [&] { return made_modes(); });
    return gated(u, batch, [&](const Var& z, int64_t n) {
      const auto& m = all[n - 1];
      return modal_scan({z, m[0], m[1], m[2], m[3]}, batch, static_cast<size_t>(n));
    });
  }
  int64_t flops(int64_t n) const override {
    return gated_flops(n) + (order - 1) * modes * (11 * n * width + 9 * filters);
  }

  using Complex = std::complex<double>;
  // l and w of a mode; the parameters by at(name, filter, mode).
  template <class At>
  static std::pair<Complex, Complex> mode(const At& at, int64_t filter, int64_t m) {
    const Complex exponent{-std::exp(at("rate", filter, m)), at("turn", filter, m)};
    return {std::exp(exponent), {at("real", filter, m), at("imaginary", filter, m)}};
  }
  naive::Matrix naive(NaiveRun& run) const override {
    const auto at = [&](const char* name, int64_t i, int64_t j) { return run.w.at(name)(i, j); };
    return naive_gated(run, [&](const naive::Matrix& z, int64_t n) {
      naive::Matrix &h = run.state[fmt::format("h{}", n)], y(z.rows, width);
      if (!h.rows) h = naive::Matrix(width, 2 * modes);
      for (int64_t c = 0; c < width; ++c)
        for (int64_t m = 0; m < modes; ++m) {
          const auto [l, weight] = mode(at, (n - 1) * filters + c / (width / filters), m);
          Complex s{h(c, m), h(c, modes + m)};
          for (int64_t t = 0; t < z.rows; ++t) {
            s = l * s + z(t, c);
            y(t, c) += (weight * s).real();
          }
          h(c, m) = s.real(), h(c, modes + m) = s.imag();
        }
      return y;
    });
  }
  std::optional<ImplicitMatrix> implicit(const Var& u, const Context& c) override {
    const std::map<std::string, const Parameter*> all = {
        {"rate", &rate}, {"turn", &turn}, {"real", &real}, {"imaginary", &imaginary}};
    const auto at = [&](const char* name, int64_t i, int64_t j) {
      return double{all.at(name)->value().data()[i * modes + j]};
    };
    naive::Matrix taps((order - 1) * filters, u.rows());
    for (int64_t f = 0; f < taps.rows; ++f)
      for (int64_t m = 0; m < modes; ++m) {
        const auto [l, weight] = mode(at, f, m);
        for (int64_t t = 0; t < taps.cols; ++t) taps(f, t) += (weight * std::pow(l, static_cast<double>(t))).real();
      }
    return product(u, c, [&](int64_t n, int64_t filter, int64_t lag) { return taps((n - 1) * filters + filter, lag); });
  }

  int64_t modes;
  Parameter rate, turn, real, imaginary;
  Kept<std::vector<std::array<Var, 4>>> kept;
};

}  // namespace

void register_laughing_hyena(Registry<Mixer>& r) {
  r.add<LaughingHyena>("laughing_hyena");
}

}  // namespace sennit::mixers
