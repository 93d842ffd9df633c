// ComplexFormer: Disruptively Advancing Transformer Inference Ability via Head-Specific Complex Vector Attention (Shao
// et al., arXiv:2505.10222): softmax attention whose queries and keys are complex numbers in polar form, and whose
// heads learn for themselves what differences of phases and of positions mean,
//   s_mn = 1 / sqrt(K) sum_i A_q,mi A_k,ni cos(a_h (theta_q,mi - theta_k,ni) + (m - n) w_hi + b_hi)
//   w_hi = base^(-2i / K) exp(r_hi)
// A linear map of the difference is one of each phase, so that queries and keys turn by themselves. At the start a = 1,
// r = b = 0, and it is attention with rotary positions.
#include <cmath>

#include "mixers/heads.h"
#include "nn/naive_sequence.h"
#include "ops/arithmetic.h"
#include "ops/maps.h"
#include "sequence/polar.h"
#include "sequence/seen.h"

namespace sennit::mixers {
namespace {

struct ComplexFormer : Heads {
  struct Options {
    int64_t heads = 4;
    double base = 10000;
    Fields fields() {
      return {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
              {"base", &base, "the slowest pair turns once in about 2 pi base tokens at the start", {.min = 1}}};
    }
  };
  static Info info() {
    return {.title = "Complex attention (ComplexFormer)",
            .paper = "arXiv:2505.10222",
            .equation = "s_mn = sum_i A_q A_k cos(a (theta_q - theta_k) + (m - n) w_i + b_i)",
            .cost = "O(n^2 d)",
            .patterns = {Pattern::causal, Pattern::bidirectional},
            .settings = {{"two heads", R"({"heads": 2, "base": 100})"}}};
  }
  ComplexFormer(const Dims& d, const Options& o, Rng rng) : Heads("complexformer", d, o.heads, rng), half(dim / 2) {
    if (dim % 2) fail({"complexformer", "heads of an even width", fmt::format("{}", dim)});
    start = Tensor({heads, half});
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < half; ++i)
        start.data()[h * half + i] =
            static_cast<float>(std::pow(o.base, -2.0 * static_cast<double>(i) / static_cast<double>(dim)));
    stretch.init(Tensor::full({heads}, 1));
    rate.init(Tensor::zeros({heads, half}));
    shift.init(Tensor::zeros({heads, half}));
    stretch.decays = rate.decays = shift.decays = false;
  }
  void visit(const ParameterVisitor& p) override {
    Heads::visit(p);
    p("stretch", stretch), p("rate", rate), p("shift", shift);
  }
  StateSpec state_spec() const override {
    return {{.name = "k", .shape = {1, width()}, .growth = Growth::per_token, .heads = heads},
            {.name = "v", .shape = {1, width()}, .growth = Growth::per_token, .heads = heads}};
  }

  struct Turned {
    Var q, k;
  };
  Turned turned(const Var& x, std::span<const Segment> segments, const Context& c) {
    const Var rates = multiply(exp(rate), Var(start));
    return {polar_turn(q(x, c), {stretch, rates, shift}, segments),
            polar_turn(k(x, c), {stretch, rates, {}}, segments)};
  }
  float scale() const { return 1 / std::sqrt(static_cast<float>(dim)); }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<ComplexFormer>("complexformer", batch);
    const Context& c = *batch.context;
    const Turned in = turned(x, batch.segments, c);
    const SeenRows seen = seen_rows({in.k, v(x, c)}, batch, 0, 0, heads);
    const Var core = attention(in.q, seen.part(0), seen.part(1), seen.segments,
                               {.heads = heads,
                                .kv_heads = heads,
                                .scale = scale(),
                                .causal = batch.pattern == Pattern::causal,
                                .exact = c.exact,
                                .paired = wants_paired_attention(c)});
    return output(x, core, c);
  }
  int64_t flops(int64_t n) const override { return pattern_flops(Pattern::causal, n, 0); }
  int64_t pattern_flops(Pattern pattern, int64_t n, int64_t) const override {
    return map_flops(n) + 6 * n * width() + 4 * (pattern == Pattern::causal ? n * (n + 1) / 2 : n * n) * width();
  }

  // Length and phase of each pair.
  struct Polar {
    naive::Matrix length, phase;  // [n, heads half]
  };
  Polar polar(const naive::Matrix& x) const {
    Polar p{naive::Matrix(x.rows, heads * half), naive::Matrix(x.rows, heads * half)};
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t c = 0; c < heads * half; ++c) {
        const int64_t first = c / half * dim + c % half;
        p.length(t, c) = std::hypot(x(t, first), x(t, first + half));
        p.phase(t, c) = std::atan2(x(t, first + half), x(t, first));
      }
    return p;
  }
  // The formula of the scores as it stands. What is kept of keys are lengths and phases that have turned.
  naive::Matrix naive(NaiveRun& run) const override {
    const Polar qs = polar(naive::linear(run.x, run.w, "q"));
    Polar own = polar(naive::linear(run.x, run.w, "k"));
    const auto &stretches = run.w.at("stretch").a, &shifts = run.w.at("shift").a;
    std::vector<double> w(static_cast<size_t>(heads * half));
    for (size_t c = 0; c < w.size(); ++c) w[c] = double{start.data()[c]} * std::exp(run.w.at("rate").a[c]);
    naive::Matrix turned(run.x.rows, width());
    for (int64_t t = 0; t < run.x.rows; ++t)
      for (int64_t c = 0; c < heads * half; ++c) {
        const double psi = stretches[c / half] * own.phase(t, c) + static_cast<double>(run.position + t) * w[c];
        const int64_t first = c / half * dim + c % half;
        turned(t, first) = own.length(t, c) * std::cos(psi), turned(t, first + half) = own.length(t, c) * std::sin(psi);
      }
    const naive::Matrix kept = naive::with_kept(run.state["k"], turned);
    const naive::Matrix vs = naive::with_kept(run.state["v"], naive::linear(run.x, run.w, "v"));
    const Polar ks = polar(kept);
    const int64_t offset = kept.rows - run.x.rows;
    naive::Matrix core(run.x.rows, width());
    std::vector<double> weights(kept.rows);
    for (int64_t m = 0; m < core.rows; ++m)
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t n = 0; n < kept.rows; ++n) {
          double s = 0;
          for (int64_t c = h * half; c < (h + 1) * half; ++c)
            s += qs.length(m, c) * ks.length(n, c) *
                 std::cos(stretches[h] * qs.phase(m, c) + static_cast<double>(run.position + m) * w[c] + shifts[c] -
                          ks.phase(n, c));
          const bool hidden = run.pattern == Pattern::causal && n > m + offset;
          weights[n] = hidden ? -INFINITY : s / std::sqrt(static_cast<double>(dim));
        }
        naive::softmax(weights);
        for (int64_t n = 0; n < kept.rows; ++n)
          for (int64_t p = h * dim; p < (h + 1) * dim; ++p) core(m, p) += weights[n] * vs(n, p);
      }
    return naive::linear(core, run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const Segment whole[] = {{0, x.rows(), 0, nullptr}};
    const Turned in = turned(x, whole, c);
    return softmax_weights(in.q.value(), in.k.value(), v(x, c).value(), scale());
  }

  int64_t half;
  Tensor start;  // rates at the start [heads, half]
  Parameter stretch, rate, shift;
};

}  // namespace

void register_complexformer(Registry<Mixer>& r) {
  r.add<ComplexFormer>("complexformer");
}

}  // namespace sennit::mixers
