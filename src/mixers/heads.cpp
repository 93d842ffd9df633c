#include "mixers/heads.h"

#include <cmath>

namespace sennit::mixers {

int64_t head_dim(const char* name, int64_t d_model, int64_t heads) {
  if (d_model % heads)
    fail({name, fmt::format("heads that divide d_model = {}", d_model), fmt::format("heads = {}", heads)});
  return d_model / heads;
}

Heads::Heads(const char* name, const Dims& d, int64_t h, Rng rng, int64_t of_keys)
    : heads(h), dim(head_dim(name, d.d_model, h)), key_dim(of_keys ? of_keys : dim) {
  q = Linear(d.d_model, heads * key_dim, rng.fork("q"));
  k = Linear(d.d_model, heads * key_dim, rng.fork("k"));
  v = Linear(d.d_model, width(), rng.fork("v"));
  out = Linear(width(), d.d_model, rng.fork("out"), {.scale = d.out_scale});
}

void Heads::visit(const ParameterVisitor& p) {
  p("q", q);
  p("k", k);
  p("v", v);
  p("out", out);
}

Var Heads::output(const Var&, const Var& core, const Context& c) {
  return out(core, c);
}

int64_t Heads::map_flops(int64_t n) const {
  return map_flops(n, n);
}
int64_t Heads::map_flops(int64_t n, int64_t looked_at) const {
  return 2 * out.out() * (n * (heads * key_dim + width()) + looked_at * (heads * key_dim + width()));
}

namespace {

template <class Row>  // row(head, i, weights of keys 0 to i)
ImplicitMatrix by_rows(int64_t heads, int64_t n, const Tensor& values, Row&& row) {
  ImplicitMatrix m{Tensor::zeros({heads, n, n}), values};
  std::vector<double> weights(static_cast<size_t>(n));
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t i = 0; i < n; ++i) {
      row(h, i, weights);
      for (int64_t j = 0; j <= i; ++j) m.weights.data()[(h * n + i) * n + j] = static_cast<float>(weights[j]);
    }
  return m;
}

double product(const Tensor& q, const Tensor& k, int64_t i, int64_t j, int64_t head, int64_t heads) {
  const int64_t f = q.row_size() / heads;
  double s = 0;
  for (int64_t p = head * f; p < (head + 1) * f; ++p)
    s += double{q.data()[i * heads * f + p]} * k.data()[j * heads * f + p];
  return s;
}

}  // namespace

ImplicitMatrix Heads::inner_products(const Tensor& qs, const Tensor& ks, const Tensor& values) const {
  return by_rows(heads, qs.rows(), values, [&](int64_t h, int64_t i, std::vector<double>& weights) {
    for (int64_t j = 0; j <= i; ++j) weights[j] = product(qs, ks, i, j, h, heads);
  });
}

ImplicitMatrix Heads::softmax_weights(const Tensor& qs, const Tensor& ks, const Tensor& values, double scale) const {
  return by_rows(heads, qs.rows(), values, [&](int64_t h, int64_t i, std::vector<double>& weights) {
    double top = -INFINITY, total = 0;
    for (int64_t j = 0; j <= i; ++j) top = std::fmax(top, weights[j] = scale * product(qs, ks, i, j, h, heads));
    for (int64_t j = 0; j <= i; ++j) total += weights[j] = std::exp(weights[j] - top);
    for (int64_t j = 0; j <= i; ++j) weights[j] /= total;
  });
}

}  // namespace sennit::mixers
