// LMUFormer: Low Complexity Yet Powerful Spiking Model With Legendre Memory Units (Liu et al., arXiv:2402.04882),
// equations 5 to 9, in the parallel form of Chilkuri & Eliasmith (arXiv:2102.11417):
//   u_t = W_u x_t,   m_t = A m_{t-1} + B u_t,   y_t = W_o gelu(W_m m_t + W_x x_t + b)
// A and B are fixed: what each of `memories` signals was over the last `theta` tokens, as `order` Legendre polynomials,
//   m' = (A' m + B' u) / theta,   A'_ij = (2i + 1) (-1 if i < j, else (-1)^(i-j+1)),   B'_i = (2i + 1) (-1)^i
// held over a token's time.
#include <cmath>

#include "mixers/legendre.h"
#include "mixers/mixer.h"
#include "nn/naive_sequence.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "sequence/recurrences.h"

namespace sennit::mixers {
namespace {

struct Lmu : Mixer {
  struct Options {
    int64_t memories = 0, order = 16;
    double theta = 128;
    Fields fields() {
      return {{"memories", &memories, "signals that are remembered; 0: d_model / 4", {.min = 0, .max = 65536}},
              {"order", &order, "polynomials of each", {.min = 1, .max = 64}},
              {"theta", &theta, "tokens that are remembered", {.min = 1, .max = 1e6}}};
    }
  };
  static Info info() {
    return {.title = "Legendre memory unit",
            .paper = "arXiv:2402.04882",
            .equation = "m_t = A m_{t-1} + B W_u x_t, y_t = gelu(W_m m_t + W_x x_t), A and B fixed",
            .cost = "O(n memories order (order + d))",
            .settings = {{"short", R"({"memories": 3, "order": 5, "theta": 9})"}}};
  }
  Lmu(const Dims& d, const Options& o, Rng rng)
      : options(o), system(legendre_system(o.order, o.theta)), width(d.d_model) {
    if (!options.memories) options.memories = std::max<int64_t>(1, width / 4);
    u = Linear(width, options.memories, rng.fork("u"));
    m = Linear(options.memories * o.order, width, rng.fork("m"), {.bias = true});
    x = Linear(width, width, rng.fork("x"));
    out = Linear(width, width, rng.fork("out"), {.scale = d.out_scale});
  }
  void visit(const ParameterVisitor& p) override {
    p("u", u);
    p("m", m);
    p("x", x);
    p("out", out);
  }
  StateSpec state_spec() const override { return {{"m", {options.order, options.memories}}}; }

  Var forward(const Var& in, const Batch& batch) override {
    check_batch<Lmu>("lmu", batch);
    return output(in, lti_scan(u(in, *batch.context), system.a, system.b, batch, 0), *batch.context);
  }
  Var output(const Var& in, const Var& memory, const Context& c) override {
    return out(gelu(m(memory, c) + x(in, c)), c);
  }
  // A polynomial of a signal is a head: its row is what the system answers to a pulse.
  std::optional<ImplicitMatrix> implicit(const Var& in, const Context& c) override {
    const int64_t n = in.rows(), q = options.order, k = options.memories;
    const std::vector<Var> each(static_cast<size_t>(q), u(in, c));
    ImplicitMatrix matrix{Tensor::zeros({q * k, n, n}), concat_columns(each).value()};
    std::vector<double> pulse(system.b.data(), system.b.data() + q);
    for (int64_t lag = 0; lag < n; ++lag) {
      for (int64_t head = 0; head < q * k; ++head)
        for (int64_t i = lag; i < n; ++i)
          matrix.weights.data()[(head * n + i) * n + i - lag] = static_cast<float>(pulse[head / k]);
      std::vector<double> next(static_cast<size_t>(q));
      for (int64_t i = 0; i < q; ++i)
        for (int64_t j = 0; j < q; ++j) next[i] += double{system.a.data()[i * q + j]} * pulse[j];
      pulse = next;
    }
    return matrix;
  }
  int64_t flops(int64_t n) const override {
    const int64_t k = options.memories * options.order;
    return n * (2 * width * (options.memories + k + 2 * width) + 2 * k * (options.order + 1) + 2 * width);
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix signals = naive::linear(run.x, run.w, "u"), direct = naive::linear(run.x, run.w, "x");
    const int64_t q = options.order, k = options.memories;
    naive::Matrix &s = run.state["m"], all(run.x.rows, q * k);
    if (!s.rows) s = naive::Matrix(q, k);
    for (int64_t t = 0; t < all.rows; ++t) {
      const naive::Matrix before = s;
      for (int64_t i = 0; i < q; ++i)
        for (int64_t c = 0; c < k; ++c) {
          double next = double{system.b.data()[i]} * signals(t, c);
          for (int64_t j = 0; j < q; ++j) next += double{system.a.data()[i * q + j]} * before(j, c);
          all(t, i * k + c) = s(i, c) = next;
        }
    }
    naive::Matrix y = naive::linear(all, run.w, "m");
    for (size_t i = 0; i < y.a.size(); ++i) y.a[i] = naive::activation("gelu", y.a[i] + direct.a[i]);
    return naive::linear(y, run.w, "out");
  }

  Options options;
  LegendreSystem system;
  int64_t width;
  Linear u, m, x, out;
};

}  // namespace

void register_lmu(Registry<Mixer>& r) {
  r.add<Lmu>("lmu");
}

}  // namespace sennit::mixers
