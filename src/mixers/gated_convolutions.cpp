#include "mixers/gated_convolutions.h"

#include <cmath>

#include "mixers/heads.h"
#include "nn/init.h"
#include "nn/naive_sequence.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "sequence/recurrences.h"

namespace sennit::mixers {
namespace {

// weight(t, j) of j <= t times a lower triangular matrix [n, n].
template <class Weight>
std::vector<double> triangular_product(const std::vector<double>& of, int64_t n, Weight&& weight) {
  std::vector<double> y(of.size());
  for (int64_t t = 0; t < n; ++t)
    for (int64_t j = 0; j <= t; ++j) {
      const double w = weight(t, j);
      for (int64_t i = 0; i <= j; ++i) y[t * n + i] += w * of[j * n + i];
    }
  return y;
}

}  // namespace

GatedConvolutions::GatedConvolutions(const char* name, const Dims& d, int64_t order_, int64_t filters_, Rng rng)
    : order(order_), filters(filters_ ? filters_ : d.d_model), width(d.d_model) {
  head_dim(name, width, filters);
  in = Linear(width, (order + 1) * width, rng.fork("in"));
  out = Linear(width, width, rng.fork("out"), {.scale = d.out_scale});
  const double bound = 1 / std::sqrt(static_cast<double>(kConv));
  conv.init(uniform_init({in.out(), kConv}, -bound, bound, rng.fork("conv")));
  skip.init(normal_init({(order - 1) * width}, 1, rng.fork("skip")));
  conv.decays = skip.decays = false;
}

void GatedConvolutions::visit(const ParameterVisitor& p) {
  p("in", in), p("out", out), p("conv", conv), p("skip", skip);
}

Var GatedConvolutions::gated(const Var& u, const Batch& batch, const Filtered& filtered) {
  const Var x = short_conv(in(u, *batch.context), conv, {}, batch, 0);
  Var z = columns(x, 0, width);
  for (int64_t n = 1; n < order; ++n) {
    z = columns(x, n * width, width) * z;
    const Var d = reshape(columns(reshape(skip, {1, skip.value().elements()}), (n - 1) * width, width), {width});
    z = filtered(z, n) + multiply_row(z, d);
  }
  return out(columns(x, order * width, width) * z, *batch.context);
}

naive::Matrix GatedConvolutions::naive_gated(NaiveRun& run, const NaiveFiltered& filtered) const {
  const naive::Matrix x = naive::plain_conv(naive::linear(run.x, run.w, "in"), run.w.at("conv"), run.state["conv"]);
  naive::Matrix z = naive::columns(x, 0, width);
  const auto gate = [&](int64_t n) {
    for (int64_t t = 0; t < z.rows; ++t)
      for (int64_t c = 0; c < width; ++c) z(t, c) *= x(t, n * width + c);
  };
  for (int64_t n = 1; n < order; ++n) {
    gate(n);
    naive::Matrix y = filtered(z, n);
    for (int64_t t = 0; t < z.rows; ++t)
      for (int64_t c = 0; c < width; ++c) y(t, c) += run.w.at("skip").a[(n - 1) * width + c] * z(t, c);
    z = y;
  }
  gate(order);
  return naive::linear(z, run.w, "out");
}

ImplicitMatrix GatedConvolutions::product(const Var& u, const Context& c, const Tap& tap) {
  const int64_t n = u.rows();
  const Segment whole[] = {{0, n, 0, nullptr}};
  const Var x = short_conv(in(u, c), conv, {}, {whole, &c}, 0);
  ImplicitMatrix m{Tensor::zeros({width, n, n}), columns(x, 0, width).value()};
  for (int64_t channel = 0; channel < width; ++channel) {
    const auto gate = [&](int64_t level, int64_t t) {
      return double{x.value().data()[t * x.columns() + level * width + channel]};
    };
    std::vector<double> made(n * n);
    for (int64_t t = 0; t < n; ++t) made[t * n + t] = 1;
    for (int64_t level = 1; level < order; ++level)
      made = triangular_product(made, n, [&](int64_t t, int64_t j) {
        const double direct = t == j ? skip.value().data()[(level - 1) * width + channel] : 0;
        return (tap(level, channel / (width / filters), t - j) + direct) * gate(level, j);
      });
    for (int64_t t = 0; t < n; ++t)
      for (int64_t j = 0; j <= t; ++j)
        m.weights.data()[(channel * n + t) * n + j] = static_cast<float>(gate(order, t) * made[t * n + j]);
  }
  return m;
}

int64_t GatedConvolutions::gated_flops(int64_t n) const {
  return n * width * (2 * (in.out() + width) + 2 * kConv * (order + 1) + 4 * order);
}

}  // namespace sennit::mixers
