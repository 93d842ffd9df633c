// RWKV-7 "Goose" with Expressive Dynamic State Evolution (Peng et al., arXiv:2503.14456), section 4, time mixing:
//   S_t = diag(w_t) S_{t-1} - (a_t * h_t) h_t^T S_{t-1} + k_t v_t^T,   o_t = S_t^T r_t
//   y_t = W_o ((layernorm(o_t) + (r_t . (u * k_t)) v_t) * g_t)
//   r, k', v = W_* lerp_*(x_t),   h = l2norm(c * k'),   k = k' * (1 + (a - 1) * b),   lerp_*(x_t) = x_t + (x_{t-1} -
//   x_t) * m_* w = exp(-e^(-1/2) sigmoid(d_0 + B_d tanh(A_d lerp_d(x)))),   a = sigmoid(a_0 + B_a A_a lerp_a(x)),   g =
//   B_g sigmoid(A_g lerp_g(x))
// A delta rule whose decay and rate are numbers of each key channel, and which takes out another key than it puts in.
// With value_rank, layers above the first lean on the first one's values: v_t += (v_t of the first - v_t) sigmoid(v_0 +
// B_v A_v lerp_v(x)).
#include <array>
#include <cmath>

#include "mixers/rwkv.h"
#include "nn/token_shift.h"
#include "ops/arithmetic.h"
#include "ops/maps.h"
#include "ops/norms.h"
#include "sequence/recurrences.h"

namespace sennit::mixers {
namespace {

struct Rwkv7 : Mixer {
  static constexpr double kUnitEpsilon = 1e-12, kFastest = 0.60653065971263342;  // e^(-1/2)
  static constexpr int kMixed = 6;
  static constexpr const char* kNames[kMixed] = {"r", "k", "v", "decay", "rate", "gate"};
  enum { kReceptance, kKey, kValue, kDecay, kRate, kGate };

  struct Options {
    int64_t heads = 4, decay_rank = 32, rate_rank = 32, gate_rank = 64, value_rank = 0;
    double norm_epsilon = 64e-5;
    Fields fields() {
      return {
          {"heads", &heads, "heads, each with a state of (d_model / heads)^2", {.min = 1, .max = 1024}},
          {"decay_rank", &decay_rank, "rank of the decay's map", {.min = 1, .max = 4096}},
          {"rate_rank", &rate_rank, "rank of the map of the rate at which a key is replaced", {.min = 1, .max = 4096}},
          {"gate_rank", &gate_rank, "rank of the output gate's map", {.min = 1, .max = 4096}},
          {"value_rank", &value_rank, "rank of the map that mixes in the first layer's values; 0: none", {.min = 0, .max = 4096}},
          {"norm_epsilon", &norm_epsilon, "added to the variance of a head's output", {.min = 0, .max = 1}}};
    }
  };
  static Info info() {
    return {.title = "RWKV-7 (Goose) time mixing",
            .paper = "arXiv:2503.14456",
            .equation = "S_t = (diag(w_t) - (a_t * h_t) h_t^T) S_{t-1} + k_t v_t^T, y_t = S_t^T r_t",
            .cost = "O(n d^2 / heads)"};
  }

  Rwkv7(const Dims& d, const Options& o, Rng rng)
      : options(o), width(d.d_model), dim(head_dim("rwkv7", d.d_model, o.heads)), shift(d.d_model) {
    const int64_t rows[kMixed] = {width, width, width, o.decay_rank, o.rate_rank, o.gate_rank};
    const Tensor own = initial_mix(width, 0.5, d.depth);
    for (int i = 0; i < kMixed; ++i) {
      maps[i] = Linear(width, rows[i], rng.fork(kNames[i]));
      mix[i].init(own.clone());
      mix[i].decays = false;
    }
    decay_up = Linear(o.decay_rank, width, rng.fork("decay_up"), {.bias = true, .deviation = 0.01});
    rate_up = Linear(o.rate_rank, width, rng.fork("rate_up"), {.bias = true, .deviation = 0.01});
    gate_up = Linear(o.gate_rank, width, rng.fork("gate_up"));
    if (o.value_rank && d.depth > 0) {
      value_down = Linear(width, o.value_rank, rng.fork("value_down"));
      value_up = Linear(o.value_rank, width, rng.fork("value_up"), {.bias = true, .deviation = 0.01});
      value_up.bias.init(Tensor::full({width}, 1));
      value_up.bias.decays = false;
    }
    out = Linear(width, width, rng.fork("out"), {.scale = d.out_scale});
    decay_up.bias.init(channel_ramp(width, -5.5, 6, 1.35));
    removed.init(Tensor::full({width}, 0.85f));
    replaced.init(Tensor::full({width}, 1));
    bonus.init(Tensor::full({width}, 0.05f));
    norm.init(Tensor::full({width}, 1));
    norm_bias.init(Tensor::zeros({width}));
    for (Parameter* p : {&decay_up.bias, &rate_up.bias, &removed, &replaced, &bonus, &norm, &norm_bias})
      p->decays = false;
  }

  void visit(const ParameterVisitor& p) override {
    for (int i = 0; i < kMixed; ++i) {
      p(kNames[i], maps[i]);
      p(std::string("mix_") + kNames[i], mix[i]);
    }
    p("decay_up", decay_up);
    p("rate_up", rate_up);
    p("gate_up", gate_up);
    if (value_up.out()) {
      p("value_down", value_down);
      p("value_up", value_up);
    }
    p("removed", removed);
    p("replaced", replaced);
    p("bonus", bonus);
    p("norm", norm);
    p("norm_bias", norm_bias);
    p("out", out);
  }
  StateSpec state_spec() const override { return {{"S", {options.heads, dim, dim}}, shift.state("x")}; }

  struct Core {
    Var r, k, v, a, b, log_decay, gate;  // of dplr, and the gate
  };
  Core core_inputs(const Var& x, const Batch& batch) {
    const Context& c = *batch.context;
    const Var step = shift(x, batch, 1) - x;
    const auto mixed = [&](int i) { return x + multiply_row(step, mix[i]); };
    const auto part = [&](int i) { return maps[i](mixed(i), c); };
    const Var k = part(kKey), rate = sigmoid(rate_up(part(kRate), c));
    const Var h =
        l2norm(multiply_row(k, removed), {.groups = options.heads, .epsilon = static_cast<float>(kUnitEpsilon)});
    return {.r = part(kReceptance),
            .k = k + k * multiply_row(affine(rate, 1, -1), replaced),
            .v = values(mixed(kValue), batch),
            .a = scale(h, -1),
            .b = h * rate,
            .log_decay = scale(sigmoid(decay_up(tanh(part(kDecay)), c)), static_cast<float>(-kFastest)),
            .gate = gate_up(sigmoid(part(kGate)), c)};
  }

  // Those of x, and in layers above the first some of the first layer's.
  Var values(const Var& x, const Batch& batch) {
    const Context& c = *batch.context;
    const Var v = maps[kValue](x, c);
    if (!options.value_rank || !batch.first_values) return v;
    Var& first = *batch.first_values;
    if (!first.defined() || !value_up.out()) return first = v;
    return v + (first - v) * sigmoid(value_up(value_down(x, c), c));
  }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Rwkv7>("rwkv7", batch);
    const Core in = core_inputs(x, batch);
    const Var core = dplr({in.r, in.k, in.v, in.a, in.b, in.log_decay}, batch, {.heads = options.heads});
    return finish(in, core, *batch.context);
  }
  Var finish(const Core& in, const Var& core, const Context& c) {
    const Var normed =
        layernorm(core, norm, norm_bias, {.groups = options.heads, .epsilon = static_cast<float>(options.norm_epsilon)});
    const Var own = sum_groups(multiply_row(in.r * in.k, bonus), options.heads);
    return out((normed + multiply_groups(in.v, own)) * in.gate, c);
  }
  Var output(const Var& x, const Var& core, const Context& c) override {
    const Segment whole[] = {{0, x.rows(), 0, nullptr}};
    return finish(core_inputs(x, {whole, &c}), core, c);
  }
  int64_t flops(int64_t n) const override {
    return n * (8 * width * width + 4 * width * (options.decay_rank + options.rate_rank + options.gate_rank + value_down.out()) +
                9 * width * dim + 50 * width);
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix& x = run.x;
    const naive::Matrix before = naive::token_shift(x, run.state["x"]);
    naive::Matrix in[kMixed];
    for (int i = 0; i < kMixed; ++i) {
      naive::Matrix mixed = x;
      for (int64_t t = 0; t < x.rows; ++t)
        for (int64_t c = 0; c < width; ++c)
          mixed(t, c) += (before(t, c) - x(t, c)) * run.w.at(std::string("mix_") + kNames[i]).a[c];
      in[i] = naive::linear(mixed, run.w, kNames[i]);
    }
    for (double& a : in[kDecay].a) a = std::tanh(a);
    for (double& a : in[kGate].a) a = naive::sigmoid(a);
    const naive::Matrix d = naive::linear(in[kDecay], run.w, "decay_up"),
                        rate = naive::linear(in[kRate], run.w, "rate_up");
    const naive::Matrix gate = naive::linear(in[kGate], run.w, "gate_up"), &r = in[kReceptance], &v = in[kValue];
    naive::Matrix h = in[kKey], k = in[kKey];
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t c = 0; c < width; ++c) {
        h(t, c) *= run.w.at("removed").a[c];
        k(t, c) *= 1 + (naive::sigmoid(rate(t, c)) - 1) * run.w.at("replaced").a[c];
      }
    h = naive::l2norm(h, options.heads, kUnitEpsilon);
    naive::Matrix& S = run.state["S"];
    if (!S.rows) S = naive::Matrix(options.heads, dim * dim);
    naive::Matrix core(x.rows, width);
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t c = 0; c < width; ++c) {  // value channel c
        const int64_t first = c / dim * dim;
        double held = 0;
        for (int64_t p = 0; p < dim; ++p) held += h(t, first + p) * S(c / dim, p * dim + c % dim);
        for (int64_t p = 0; p < dim; ++p) {
          double& s = S(c / dim, p * dim + c % dim);
          const double w = std::exp(-kFastest * naive::sigmoid(d(t, first + p)));
          s = w * s - naive::sigmoid(rate(t, first + p)) * h(t, first + p) * held + k(t, first + p) * v(t, c);
          core(t, c) += s * r(t, first + p);
        }
      }
    naive::Matrix y = naive::layernorm(core, options.heads, options.norm_epsilon, run.w.at("norm"), run.w.at("norm_bias"));
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t c = 0; c < width; ++c) {
        double own = 0;
        for (int64_t p = c / dim * dim; p < (c / dim + 1) * dim; ++p) own += r(t, p) * k(t, p) * run.w.at("bonus").a[p];
        y(t, c) = (y(t, c) + own * v(t, c)) * gate(t, c);
      }
    return naive::linear(y, run.w, "out");
  }

  // Column j: k_j carried through the transitions after it.
  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    if (value_up.out()) return std::nullopt;  // its values are not of x alone
    const Segment whole[] = {{0, x.rows(), 0, nullptr}};
    const Core in = core_inputs(x, {whole, &c});
    const int64_t n = x.rows();
    ImplicitMatrix m{Tensor::zeros({options.heads, n, n}), in.v.value()};
    const auto at = [&](const Var& v, int64_t t, int64_t p) { return double{v.value().data()[t * width + p]}; };
    std::vector<double> u(dim);
    for (int64_t first = 0; first < width; first += dim)
      for (int64_t j = 0; j < n; ++j)
        for (int64_t i = j; i < n; ++i) {
          double held = 0, read = 0;
          for (int64_t p = 0; p < dim && i > j; ++p) held += at(in.a, i, first + p) * u[p];
          for (int64_t p = 0; p < dim; ++p) {
            u[p] = i == j ? at(in.k, i, first + p)
                          : std::exp(at(in.log_decay, i, first + p)) * u[p] + at(in.b, i, first + p) * held;
            read += at(in.r, i, first + p) * u[p];
          }
          m.weights.data()[(first / dim * n + i) * n + j] = static_cast<float>(read);
        }
    return m;
  }

  Options options;
  int64_t width, dim;
  TokenShift shift;
  std::array<Linear, kMixed> maps;
  std::array<Parameter, kMixed> mix;
  Linear decay_up, rate_up, gate_up, value_down, value_up, out;
  Parameter removed, replaced, bonus, norm, norm_bias;
};

}  // namespace

void register_rwkv7(Registry<Mixer>& r) {
  r.add<Rwkv7>("rwkv7");
}

}  // namespace sennit::mixers
