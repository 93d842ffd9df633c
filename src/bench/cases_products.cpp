#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "bench/cases.h"

namespace sennit::bench {
namespace {

// Three rows of c = a b in double.
double product_error(const Tensor& a, const Tensor& b, const Tensor& c) {
  Deviation d;
  std::vector<double> row(static_cast<size_t>(b.row_size()));
  for (const int64_t i : {int64_t{0}, a.rows() / 2, a.rows() - 1}) {
    std::fill(row.begin(), row.end(), 0.0);
    for (int64_t p = 0; p < b.rows(); ++p)
      for (int64_t j = 0; j < b.row_size(); ++j) row[j] += double{a.data()[i * a.row_size() + p]} * b.data()[p * b.row_size() + j];
    for (int64_t j = 0; j < b.row_size(); ++j) d.add(c.data()[i * c.row_size() + j], row[j]);
  }
  return d.relative();
}

struct Size {
  int64_t m, k, n;
};

Work product(Size s, Precision p) {
  const Tensor a = random_rows(s.m, s.k, "a"), b = random_rows(s.k, s.n, "b");
  const auto packed = std::make_shared<PackedMatrix>(view(b), p);
  const auto c = std::make_shared<Tensor>(Shape{s.m, s.n});
  const auto run = [=] { multiply(view(a), *packed, c->data(), c->row_size()); };
  return {run, [=] { return run(), product_error(a, b, *c); }};
}

}  // namespace

void add_products(std::vector<Case>& cases) {
  for (const Precision p : {Precision::f32, Precision::bf16})
    for (const Size s : {Size{2048, 2048, 2048}, Size{512, 4096, 4096}, Size{16, 4096, 16384}, Size{4, 4096, 16384}, Size{1, 4096, 16384}})
      cases.push_back({.name = fmt::format("product {} {}x{}x{} packed", to_string(p), s.m, s.k, s.n),
                       .flops = 2.0 * static_cast<double>(s.m * s.k * s.n),
                       .bytes = s.m <= 16 ? static_cast<double>(s.k * s.n * (p == Precision::f32 ? 4 : 2)) : 0,
                       .precision = p,
                       .peer = fmt::format("product {} {} {} {}", to_string(p), s.m, s.k, s.n),
                       .allowed = p == Precision::f32 ? 1e-5 : 1e-2,
                       .prepare = [s, p] { return product(s, p); }});
}

}  // namespace sennit::bench
