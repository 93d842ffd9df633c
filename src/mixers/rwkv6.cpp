// Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence (Peng et al., arXiv:2404.05892), section 4.2,
// Finch:
//   S_t = diag(w_t) S_{t-1} + k_t v_t^T,   o_t = (S_{t-1} + diag(u) k_t v_t^T)^T r_t,   y_t = W_o (layernorm(o_t) *
//   silu(g_t)) r, k, v, g = W_* lerp_*(x_t),   w_t = exp(-exp(d_0 + B_d tanh(A_d lerp_d(x_t)))) lerp_*(x_t) = x_t +
//   (x_{t-1} - x_t) * (m_* + B_* tanh(A_* (x_t + (x_{t-1} - x_t) * m_x)))
// A token reads the state before it writes: what it says itself is weighted by u instead of the decay.
#include <array>
#include <cmath>

#include "mixers/rwkv.h"
#include "nn/init.h"
#include "nn/token_shift.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "ops/norms.h"
#include "sequence/recurrences.h"

namespace sennit::mixers {
namespace {

struct Rwkv6 : Mixer {
  static constexpr double kNormEpsilon = 64e-5;
  static constexpr int kMixed = 5;
  static constexpr const char* kNames[kMixed] = {"decay", "k", "v", "r", "gate"};
  enum { kDecay, kKey, kValue, kReceptance, kGate };

  struct Options {
    int64_t heads = 4, mix_rank = 16, decay_rank = 32;
    Fields fields() {
      return {{"heads", &heads, "heads, each with a state of (d_model / heads)^2", {.min = 1, .max = 1024}},
              {"mix_rank", &mix_rank, "rank of what the data adds to each mix of neighbours", {.min = 1, .max = 4096}},
              {"decay_rank", &decay_rank, "rank of the decay's map", {.min = 1, .max = 4096}}};
    }
  };
  static Info info() {
    return {.title = "RWKV-6 (Finch) time mixing",
            .paper = "arXiv:2404.05892",
            .equation = "S_t = diag(w_t) S_{t-1} + k_t v_t^T, y_t = (S_{t-1} + diag(u) k_t v_t^T)^T r_t",
            .cost = "O(n d^2 / heads)"};
  }

  Rwkv6(const Dims& d, const Options& o, Rng rng)
      : options(o), width(d.d_model), dim(head_dim("rwkv6", d.d_model, o.heads)), shift(d.d_model) {
    maps[kDecay] = Linear(width, o.decay_rank, rng.fork("decay"));
    for (const int i : {kKey, kValue, kReceptance, kGate}) maps[i] = Linear(width, width, rng.fork(kNames[i]));
    decay_up = Linear(o.decay_rank, width, rng.fork("decay_up"), {.bias = true, .deviation = 0.01});
    out = Linear(width, width, rng.fork("out"), {.scale = d.out_scale});
    mix_down = Linear(width, kMixed * o.mix_rank, rng.fork("mix_down"), {.deviation = 1e-2});
    const Tensor own = initial_mix(width, 1, d.depth);
    for (int i = 0; i < kMixed; ++i) {
      mix_up[i] = Linear(o.mix_rank, width, rng.fork("mix_up").fork(static_cast<uint64_t>(i)), {.deviation = 1e-2});
      mix[i].init(own.clone());
      mix[i].decays = false;
    }
    mix_first.init(own.clone());
    decay_up.bias.init(channel_ramp(width, -6, 5, 1.35));  // from slow to fast
    bonus.init(channel_ramp(width, 0.5, -0.5, 1));
    norm.init(Tensor::full({width}, 1));
    norm_bias.init(Tensor::zeros({width}));
    for (Parameter* p : {&mix_first, &decay_up.bias, &bonus, &norm, &norm_bias}) p->decays = false;
  }

  void visit(const ParameterVisitor& p) override {
    for (int i = 0; i < kMixed; ++i) {
      p(kNames[i], maps[i]);
      p(std::string("mix_up_") + kNames[i], mix_up[i]);
      p(std::string("mix_") + kNames[i], mix[i]);
    }
    p("mix", mix_first);
    p("mix_down", mix_down);
    p("decay_up", decay_up);
    p("bonus", bonus);
    p("norm", norm);
    p("norm_bias", norm_bias);
    p("out", out);
  }
  StateSpec state_spec() const override { return {{"S", {options.heads, dim, dim}}, shift.state("x")}; }

  struct Core {
    Var r, k, v, log_decay, gate;
  };
  Core core_inputs(const Var& x, const Batch& batch) {
    const Context& c = *batch.context;
    const Var step = shift(x, batch, 1) - x;
    const Var h = tanh(mix_down(x + multiply_row(step, mix_first), c));
    const auto part = [&](int i) {
      const Var weight = add_row(mix_up[i](columns(h, i * options.mix_rank, options.mix_rank), c), mix[i]);
      return maps[i](x + step * weight, c);
    };
    return {part(kReceptance), part(kKey), part(kValue), scale(exp(decay_up(tanh(part(kDecay)), c)), -1), part(kGate)};
  }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Rwkv6>("rwkv6", batch);
    const Core in = core_inputs(x, batch);
    const Var past = gla(in.r, in.k, in.v, in.log_decay, batch, {.heads = options.heads, .reads_before = true});
    return finish(past + multiply_groups(in.v, own_weight(in)), in.gate, *batch.context);
  }
  Var own_weight(const Core& in) { return sum_groups(multiply_row(in.r * in.k, bonus), options.heads); }
  Var finish(const Var& core, const Var& gate, const Context& c) {
    const Var normed =
        layernorm(core, norm, norm_bias, {.groups = options.heads, .epsilon = static_cast<float>(kNormEpsilon)});
    return out(swiglu(gate, normed), c);
  }
  Var output(const Var& x, const Var& core, const Context& c) override {
    const Segment whole[] = {{0, x.rows(), 0, nullptr}};
    return finish(core, core_inputs(x, {whole, &c}).gate, c);
  }
  int64_t flops(int64_t n) const override {
    return n * (10 * width * width + 4 * width * (kMixed * options.mix_rank + options.decay_rank) + 6 * width * dim +
                45 * width);
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix& x = run.x;
    const naive::Matrix before = naive::token_shift(x, run.state["x"]);
    const auto mixed = [&](auto&& weight) {
      naive::Matrix y = x;
      for (int64_t t = 0; t < x.rows; ++t)
        for (int64_t c = 0; c < width; ++c) y(t, c) += (before(t, c) - x(t, c)) * weight(t, c);
      return y;
    };
    naive::Matrix h = naive::linear(mixed([&](int64_t, int64_t c) { return run.w.at("mix").a[c]; }), run.w, "mix_down");
    for (double& a : h.a) a = std::tanh(a);
    naive::Matrix in[kMixed];
    for (int i = 0; i < kMixed; ++i) {
      naive::Matrix own(x.rows, options.mix_rank);
      for (int64_t t = 0; t < x.rows; ++t)
        for (int64_t r = 0; r < options.mix_rank; ++r) own(t, r) = h(t, i * options.mix_rank + r);
      const naive::Matrix added = naive::linear(own, run.w, std::string("mix_up_") + kNames[i]);
      const naive::Matrix& fixed = run.w.at(std::string("mix_") + kNames[i]);
      in[i] = naive::linear(mixed([&](int64_t t, int64_t c) { return fixed.a[c] + added(t, c); }), run.w, kNames[i]);
    }
    for (double& a : in[kDecay].a) a = std::tanh(a);
    const naive::Matrix w = naive::linear(in[kDecay], run.w, "decay_up"), &u = run.w.at("bonus");
    naive::Matrix& S = run.state["S"];
    if (!S.rows) S = naive::Matrix(options.heads, dim * dim);
    naive::Matrix core(x.rows, width);
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t p = 0; p < width; ++p)
        for (int64_t j = 0; j < dim; ++j) {
          const int64_t h_ = p / dim;
          double& s = S(h_, p % dim * dim + j);
          const double kv = in[kKey](t, p) * in[kValue](t, h_ * dim + j);
          core(t, h_ * dim + j) += in[kReceptance](t, p) * (s + u.a[p] * kv);
          s = std::exp(-std::exp(w(t, p))) * s + kv;
        }
    naive::Matrix y = naive::layernorm(core, options.heads, kNormEpsilon, run.w.at("norm"), run.w.at("norm_bias"));
    for (size_t i = 0; i < y.a.size(); ++i) y.a[i] *= naive::silu(in[kGate].a[i]);
    return naive::linear(y, run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const Segment whole[] = {{0, x.rows(), 0, nullptr}};
    const Core in = core_inputs(x, {whole, &c});
    const Tensor own = own_weight(in).value();
    const float *r = in.r.value().data(), *k = in.k.value().data(), *g = in.log_decay.value().data();
    const int64_t n = x.rows();
    ImplicitMatrix m{Tensor::zeros({options.heads, n, n}), in.v.value()};
    for (int64_t p = 0; p < width; ++p)
      for (int64_t j = 0; j < n; ++j) {
        float* head = m.weights.data() + p / dim * n * n;
        if (p % dim == 0) head[j * n + j] = own.data()[j * options.heads + p / dim];
        double fade = 0;  // over the tokens between
        for (int64_t i = j + 1; i < n; fade += g[i++ * width + p])
          head[i * n + j] += static_cast<float>(std::exp(fade) * r[i * width + p] * k[j * width + p]);
      }
    return m;
  }

  Options options;
  int64_t width, dim;
  TokenShift shift;
  std::array<Linear, kMixed> maps, mix_up;
  std::array<Parameter, kMixed> mix;
  Linear mix_down, decay_up, out;
  Parameter mix_first, bonus, norm, norm_bias;
};

}  // namespace

void register_rwkv6(Registry<Mixer>& r) {
  r.add<Rwkv6>("rwkv6");
}

}  // namespace sennit::mixers
