#include "mixers/selective.h"

#include <cmath>

#include "nn/init.h"
#include "ops/arithmetic.h"
#include "ops/maps.h"
#include "sequence/recurrences.h"

namespace sennit::mixers {

int64_t inner_width(const char* name, int64_t d_model, double expand) {
  const auto inner = static_cast<int64_t>(std::llround(expand * static_cast<double>(d_model)));
  if (inner < 1)
    fail({name, "at least one inner channel", fmt::format("expand = {} of d_model = {}", expand, d_model)});
  return inner;
}

Selective::Selective(const Sizes& s, Rng rng) : sizes(s) {
  conv = ShortConv(s.inner, s.conv, true, rng.fork("conv"));
  // Steps from 1e-3 to 1e-1 evenly in their logarithm; A_n = -n (S4D-real).
  Tensor step = uniform_init({s.inner}, std::log(1e-3), std::log(1e-1), rng.fork("step")), a({s.inner, s.state});
  for (float& x : step.span()) x = static_cast<float>(std::log(std::expm1(std::exp(double{x}))));
  for (int64_t i = 0; i < a.elements(); ++i) a.data()[i] = std::log(static_cast<float>(i % s.state + 1));
  log_a.init(a);
  skip.init(Tensor::full({s.inner}, 1));
  log_a.decays = skip.decays = false;
  if (s.selects) {
    x_dt = Linear(s.inner, s.dt_rank, rng.fork("x_dt"));
    x_b = Linear(s.inner, s.state, rng.fork("x_b"));
    x_c = Linear(s.inner, s.state, rng.fork("x_c"));
    dt = Linear(s.dt_rank, s.inner, rng.fork("dt"),
                {.bias = true, .deviation = 1 / std::sqrt(static_cast<double>(s.dt_rank))});
    dt.bias.init(step);
    dt.bias.decays = false;
  } else {
    fixed_dt.init(step);
    fixed_b.init(normal_init({s.state}, 1, rng.fork("fixed_b")));
    fixed_c.init(normal_init({s.state}, 1, rng.fork("fixed_c")));
    fixed_dt.decays = fixed_b.decays = fixed_c.decays = false;
  }
}

void Selective::visit(const ParameterVisitor& p) {
  p("conv", conv);
  if (sizes.selects) {
    for (auto [name, m] : {std::pair<const char*, Module*>{"x_dt", &x_dt}, {"x_b", &x_b}, {"x_c", &x_c}, {"dt", &dt}})
      p(name, *m);
  } else {
    p("fixed_dt", fixed_dt);
    p("fixed_b", fixed_b);
    p("fixed_c", fixed_c);
  }
  p("log_a", log_a);
  p("skip", skip);
}

StateSpec Selective::state() const {
  return {{"h", {sizes.inner, sizes.state}}, conv.state("conv")};
}

Selective::Choices Selective::choices(const Var& x, const Context& c) {
  if (sizes.selects) return {softplus(dt(x_dt(x, c), c)), x_b(x, c), x_c(x, c)};
  const auto every_token = [&](const Var& row) {
    return add_row(Var(Tensor::zeros({x.rows(), row.value().elements()})), row);
  };
  return {every_token(softplus(fixed_dt.var)), every_token(fixed_b), every_token(fixed_c)};
}

Var Selective::operator()(const Var& projected, const Batch& batch, size_t field) {
  const Var x = conv(projected, batch, field + 1), a = scale(exp(log_a), -1);
  const Choices chosen = choices(x, *batch.context);
  return selective_scan({.x = x, .dt = chosen.dt, .a = a, .b = chosen.b, .c = chosen.c, .d = skip.var}, batch, field);
}

int64_t Selective::flops(int64_t n) const {
  const int64_t maps = sizes.selects ? 2 * sizes.dt_rank + 2 * sizes.state : 0;
  return n * sizes.inner * (2 * (maps + sizes.conv) + 7 * sizes.state);
}

naive::Matrix Selective::naive(const naive::Matrix& projected, const naive::Weights& w, const std::string& prefix,
                               naive::Matrix& h, naive::Matrix& past) const {
  const naive::Matrix x = naive::short_conv(projected, w, prefix + "conv", past);
  const auto fixed = [&](const char* name) {
    const naive::Matrix& row = w.at(prefix + name);
    naive::Matrix all(x.rows, row.cols);
    for (size_t i = 0; i < all.a.size(); ++i) all.a[i] = row.a[i % row.a.size()];
    return all;
  };
  const naive::Matrix step = sizes.selects ? naive::linear(naive::linear(x, w, prefix + "x_dt"), w, prefix + "dt")
                                           : fixed("fixed_dt"),
                      b = sizes.selects ? naive::linear(x, w, prefix + "x_b") : fixed("fixed_b"),
                      c = sizes.selects ? naive::linear(x, w, prefix + "x_c") : fixed("fixed_c");
  if (!h.rows) h = naive::Matrix(sizes.inner, sizes.state);
  const naive::Matrix &d_skip = w.at(prefix + "skip"), &a_log = w.at(prefix + "log_a");
  naive::Matrix y(x.rows, sizes.inner);
  for (int64_t t = 0; t < x.rows; ++t)
    for (int64_t i = 0; i < sizes.inner; ++i) {
      const double d = naive::softplus(step(t, i));
      y(t, i) = d_skip.a[i] * x(t, i);
      for (int64_t n = 0; n < sizes.state; ++n) {
        h(i, n) = std::exp(-d * std::exp(a_log(i, n))) * h(i, n) + d * b(t, n) * x(t, i);
        y(t, i) += c(t, n) * h(i, n);
      }
    }
  return y;
}

ImplicitMatrix Selective::implicit(const Var& projected, const Context& c) {
  const int64_t n = projected.rows(), inner = sizes.inner, states = sizes.state;
  const Segment whole[] = {{0, n, 0, nullptr}};
  const Tensor x = conv(projected, {whole, &c}, 1).value();
  const Choices chosen = choices(Var(x), c);
  const Tensor &step = chosen.dt.value(), &b = chosen.b.value(), &cs = chosen.c.value();
  ImplicitMatrix m{Tensor::zeros({inner, n, n}), x};
  for (int64_t i = 0; i < inner; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double time = 0;  // the steps' sum from j to t
      for (int64_t t = j; t < n; ++t) {
        if (t > j) time += step.data()[t * inner + i];
        double s = t == j ? skip.value().data()[i] : 0;
        for (int64_t p = 0; p < states; ++p)
          s += cs.data()[t * states + p] * std::exp(-time * std::exp(log_a.value().data()[i * states + p])) *
               step.data()[j * inner + i] * b.data()[j * states + p];
        m.weights.data()[(i * n + t) * n + j] = static_cast<float>(s);
      }
    }
  return m;
}

}  // namespace sennit::mixers
