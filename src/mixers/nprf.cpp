// Stable, Fast and Accurate: Kernelized Attention with Relative Positional Encoding (Luo et al., arXiv:2106.12566),
// equations 11 and 12:
//   y_i = W_o sum_j e^(b_{j-i}) (phi(q_i) . phi(k_j)) v_j / sum_j e^(b_{j-i}) (phi(q_i) . phi(k_j)),   |j - i| < length
//   phi(x) = exp(w_r . x / |x| r - r^2 / 2), r^2 = sqrt(K), for `features` fixed normal w_r (Performer's positive
//   features, Choromanski et al., arXiv:2009.14794): queries and keys of one length, so that the estimate of the
//   softmax is steady.
// The sums over j are convolutions of phi(k_j) [v_j, 1] with e^b: by Fourier transforms where sequences are long.
#include <cmath>

#include "mixers/heads.h"
#include "nn/init.h"
#include "nn/naive_sequence.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "ops/norms.h"
#include "ops/products.h"
#include "sequence/long_conv.h"
#include "sequence/reverse.h"
#include "tensor/pooled.h"

namespace sennit::mixers {
namespace {

struct Nprf : Heads {
  static constexpr double kUnitEpsilon = 1e-6;

  struct Options {
    int64_t heads = 4, features = 16, length = 512;
    Fields fields() {
      return {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
              {"features",
               &features,
               "random features of queries and keys; the state grows with them",
               {.min = 1, .max = 4096}},
              {"length", &length, "learned distances: what is further away is not seen", {.min = 1, .max = 1 << 24}}};
    }
  };
  static Info info() {
    return {.title = "Kernelized attention with relative positions",
            .paper = "arXiv:2106.12566",
            .equation = "y_i = sum_j e^(b_{j-i}) (phi(q_i) phi(k_j)) v_j / sum_j e^(b_{j-i}) (phi(q_i) phi(k_j))",
            .cost = "O(n log^2 n d features)",
            .patterns = {Pattern::causal, Pattern::bidirectional},
            .settings = {{"near", R"({"length": 70, "features": 5, "heads": 2})"}}};
  }
  Nprf(const Dims& d, const Options& o, Rng rng) : Heads("nprf", d, o.heads, rng), options(o) {
    bias.init(normal_init({2 * o.length - 1, o.heads}, 0.02, rng.fork("bias")));
    bias.decays = false;
    directions = Var(normal_init({o.features, dim}, 1, rng.fork("directions")));
  }
  void visit(const ParameterVisitor& p) override {
    Heads::visit(p);
    p("bias", bias);  // of distances j - i from 1 - length to length - 1
  }
  int64_t columns_a_head() const { return options.features * (dim + 1); }
  int64_t channels() const { return heads * columns_a_head(); }
  StateSpec state_spec() const override { return {long_conv_state("kv", options.length, channels())}; }

  double reach() const { return std::pow(static_cast<double>(dim), 0.25); }
  // [N, heads features]
  Var phi(const Var& x, const Context& c) const {
    const Var unit = l2norm(x, {.groups = heads, .epsilon = static_cast<float>(kUnitEpsilon)});
    const Var scores =
        matmul(reshape(unit, {x.rows() * heads, dim}), directions, {.transpose_b = true, .precision = c.precision});
    const auto r = static_cast<float>(reach());
    return reshape(exp(affine(scores, r, -r * r / 2)), {x.rows(), heads * options.features});
  }
  // Head by head, [v, 1] with each number `features` times, and phi as often as [v, 1] is long.
  Var spread_features(const Var& f) const { return repeat_groups(f, heads, dim + 1); }
  Var spread_values(const Var& values) const {
    Pooled<Var> parts;
    const Var ones(Tensor::full({values.rows(), 1}, 1));
    for (int64_t h = 0; h < heads; ++h) {
      parts.push_back(columns(values, h * dim, dim));
      parts.push_back(ones);
    }
    return repeat_groups(concat_columns(parts), heads * (dim + 1), options.features);
  }
  // e^b of distances first, first - 1, ... or first, first + 1, ... for every channel.
  Var filter(int64_t first, int64_t step, int64_t taps) const {
    Pooled<int64_t> at(static_cast<size_t>(taps));
    for (int64_t t = 0; t < taps; ++t) at[t] = options.length - 1 + first + step * t;
    return repeat_groups(exp(gather_rows(bias, at)), heads, columns_a_head());
  }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Nprf>("nprf", batch);
    const Context& c = *batch.context;
    const Var qs = spread_features(phi(q(x, c), c)), kv = spread_features(phi(k(x, c), c)) * spread_values(v(x, c));
    int64_t longest = 1;
    for (const Segment& s : batch.segments) longest = std::max(longest, s.position + s.length);
    const int64_t taps = std::min(options.length, longest);
    Var sums = long_conv(kv, filter(0, -1, taps), batch, 0, options.length);
    if (batch.pattern == Pattern::bidirectional && taps > 1) {
      // What stands ahead: distances from 1 on, of the sequence backwards and one token late.
      const Var none(Tensor::zeros({1, channels()})), parts[] = {none, filter(1, 1, taps - 1)};
      sums = sums + reversed(long_conv(reversed(kv, batch.segments), concat_rows(parts), batch, 0), batch.segments);
    }
    const Var said = sum_groups(qs * sums, heads * (dim + 1));
    Pooled<Var> tops, weights;
    for (int64_t h = 0; h < heads; ++h) {
      tops.push_back(columns(said, h * (dim + 1), dim));
      weights.push_back(columns(said, h * (dim + 1) + dim, 1));
    }
    return output(x, multiply_groups(concat_columns(tops), exp(scale(log(concat_columns(weights)), -1))), c);
  }
  int64_t flops(int64_t n) const override { return pattern_flops(Pattern::causal, n, 0); }
  int64_t pattern_flops(Pattern pattern, int64_t n, int64_t) const override {
    const int64_t taps = std::min(options.length, n), f = heads * options.features,
                  both = pattern == Pattern::bidirectional ? 2 : 1;
    return map_flops(n) + n * (4 * f * (dim + 2) + 3 * channels() + 2 * width()) +
           both * (long_conv_flops(n, taps, channels()) + taps * heads) + (both - 1) * n * channels();
  }

  naive::Matrix naive_phi(const naive::Matrix& x) const {
    const naive::Matrix unit = naive::l2norm(x, heads, kUnitEpsilon);
    const double r = reach();
    naive::Matrix f(x.rows, heads * options.features);
    for (int64_t i = 0; i < f.rows; ++i)
      for (int64_t j = 0; j < f.cols; ++j) {
        double s = 0;
        for (int64_t p = 0; p < dim; ++p)
          s += unit(i, j / options.features * dim + p) * directions.value().data()[j % options.features * dim + p];
        f(i, j) = std::exp(r * s - r * r / 2);
      }
    return f;
  }
  // The state holds phi(k) [v, 1], number by number of [v, 1].
  naive::Matrix naive(NaiveRun& run) const override {
    const int64_t f = options.features, per = columns_a_head();
    const naive::Matrix fq = naive_phi(naive::linear(run.x, run.w, "q")),
                        fk = naive_phi(naive::linear(run.x, run.w, "k"));
    const naive::Matrix vs = naive::linear(run.x, run.w, "v"), &b = run.w.at("bias");
    naive::Matrix kv(run.x.rows, channels());
    for (int64_t t = 0; t < kv.rows; ++t)
      for (int64_t i = 0; i < kv.cols; ++i) {
        const int64_t h = i / per, number = i % per / f;
        kv(t, i) = fk(t, h * f + i % f) * (number < dim ? vs(t, h * dim + number) : 1);
      }
    const naive::Matrix all = naive::with_kept(run.state["kv"], kv, options.length);
    const int64_t past = all.rows - kv.rows;
    naive::Matrix core(kv.rows, width());
    for (int64_t t = 0; t < kv.rows; ++t)
      for (int64_t h = 0; h < heads; ++h) {
        std::vector<double> sums(dim + 1);
        for (int64_t s = 0; s < all.rows; ++s) {
          const int64_t distance = s - (past + t);
          if (std::abs(distance) >= options.length || (distance > 0 && run.pattern == Pattern::causal)) continue;
          const double weight = std::exp(b(options.length - 1 + distance, h));
          for (int64_t i = 0; i < per; ++i) sums[i / f] += weight * fq(t, h * f + i % f) * all(s, h * per + i);
        }
        for (int64_t p = 0; p < dim; ++p) core(t, h * dim + p) = sums[p] / sums[dim];
      }
    return naive::linear(core, run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    ImplicitMatrix m = inner_products(phi(q(x, c), c).value(), phi(k(x, c), c).value(), v(x, c).value());
    const int64_t n = x.rows();
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < n; ++i) {
        float* row = m.weights.data() + (h * n + i) * n;
        double total = 0;
        for (int64_t j = 0; j <= i; ++j)
          total += row[j] *=
              i - j < options.length ? std::exp(bias.value().data()[(options.length - 1 + j - i) * heads + h]) : 0;
        for (int64_t j = 0; j <= i; ++j) row[j] /= static_cast<float>(total);
      }
    return m;
  }

  Options options;
  Parameter bias;
  Var directions;
};

}  // namespace

void register_nprf(Registry<Mixer>& r) {
  r.add<Nprf>("nprf");
}

}  // namespace sennit::mixers
