#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "bench/cases.h"
#include "products/int8.h"
#include "products/quantized.h"

namespace sennit::bench {
namespace {

// Three rows of c = a b in double.
double product_error(const Tensor& a, const Tensor& b, const Tensor& c) {
  Deviation d;
  std::vector<double> row(static_cast<size_t>(b.row_size()));
  for (const int64_t i : {int64_t{0}, a.rows() / 2, a.rows() - 1}) {
    std::fill(row.begin(), row.end(), 0.0);
    for (int64_t p = 0; p < b.rows(); ++p)
      for (int64_t j = 0; j < b.row_size(); ++j)
        row[j] += double{a.data()[i * a.row_size() + p]} * b.data()[p * b.row_size() + j];
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

// A few elements of y = x W^T in double, W as it is kept.
double kept_product_error(Size s, const Tensor& x, const WeightForm& w, const Tensor& y) {
  Deviation d;
  std::vector<float> row(static_cast<size_t>(s.k));
  for (const int64_t j : {int64_t{0}, s.n / 2, s.n - 1}) {
    w.row(j, row.data());
    for (const int64_t i : {int64_t{0}, s.m - 1}) {
      double sum = 0;
      for (int64_t p = 0; p < s.k; ++p) sum += double{x.data()[i * s.k + p]} * row[static_cast<size_t>(p)];
      d.add(y.data()[i * s.n + j], sum);
    }
  }
  return d.relative();
}

// y = x W^T with W kept in fewer bits; rows of x are rounded to 8 bits, or both to bf16.
template <class Form>
Work kept_product(Size s, const io::StoredTensor& stored,
                  void (*product)(const float*, int64_t, const Form&, float*, const float*)) {
  const auto w = std::make_shared<Form>(stored);
  const auto y = std::make_shared<Tensor>(Shape{s.m, s.n});
  const Tensor x = random_rows(s.m, s.k, "x");
  const auto run = [=] { product(x.data(), s.m, *w, y->data(), nullptr); };
  return {run, [=] { return run(), kept_product_error(s, x, *w, *y); }};
}

Work quantized_product(Size s, io::BlockFormat format, bool paired) {
  const io::StoredTensor stored = io::encoded(io::stored(random_rows(s.n, s.k, "w")), format);
  void (*rounded)(const float*, int64_t, const QuantizedMatrix&, float*, const float*) = multiply;
  return kept_product<QuantizedMatrix>(s, stored, paired ? multiply_paired : rounded);
}

constexpr Size kSizes[] = {
    {2048, 2048, 2048}, {512, 4096, 4096}, {16, 4096, 16384}, {4, 4096, 16384}, {1, 4096, 16384}};

}  // namespace

void add_products(std::vector<Case>& cases) {
  for (const Precision p : {Precision::f32, Precision::bf16})
    for (const Size s : kSizes)
      cases.push_back({.name = fmt::format("product {} {}x{}x{} packed", to_string(p), s.m, s.k, s.n),
                       .flops = 2.0 * static_cast<double>(s.m * s.k * s.n),
                       .bytes = s.m <= 16 ? static_cast<double>(s.k * s.n * (p == Precision::f32 ? 4 : 2)) : 0,
                       .precision = p,
                       .peer = fmt::format("product {} {} {} {}", to_string(p), s.m, s.k, s.n),
                       .allowed = p == Precision::f32 ? 1e-5 : 1e-2,
                       .prepare = [s, p] { return product(s, p); }});
  for (const Size s : kSizes)
    cases.push_back(
        {.name = fmt::format("product int8 {}x{}x{} packed", s.m, s.k, s.n),
         .flops = 2.0 * static_cast<double>(s.m * s.k * s.n),
         .bytes = s.m <= 16 ? static_cast<double>(Int8Matrix::bytes_of(s.n, s.k)) : 0,
         .int8 = true,
         .peer = fmt::format("product int8 {} {} {}", s.m, s.k, s.n),
         .allowed = 3e-2,  // rows of x are rounded to 8 bits
         .prepare = [s] { return kept_product<Int8Matrix>(s, io::stored(random_rows(s.n, s.k, "w")), multiply); }});
  for (const io::BlockFormat f :
       {io::BlockFormat::q8_0, io::BlockFormat::q4_0, io::BlockFormat::q4_k, io::BlockFormat::q6_k})
    for (const Size s : kSizes)
      cases.push_back({.name = fmt::format("product {} {}x{}x{}", io::layout_of(f).name, s.m, s.k, s.n),
                       .flops = s.m > 16 ? 2.0 * static_cast<double>(s.m * s.k * s.n) : 0,
                       .bytes = s.m <= 16 ? static_cast<double>(s.n * io::row_bytes(f, s.k)) : 0,
                       .int8 = true,
                       .peer = fmt::format("product {} {} {} {}", io::layout_of(f).name, s.m, s.k, s.n),
                       .allowed = 3e-2,  // rows of x are rounded to 8 bits
                       .prepare = [s, f] { return quantized_product(s, f, false); }});
  for (const io::BlockFormat f : {io::BlockFormat::q8_0, io::BlockFormat::q4_0, io::BlockFormat::q4_k})
    for (const Size s : {Size{2048, 2048, 2048}, Size{512, 4096, 4096}})
      cases.push_back({.name = fmt::format("product {} as bf16 {}x{}x{}", io::layout_of(f).name, s.m, s.k, s.n),
                       .flops = 2.0 * static_cast<double>(s.m * s.k * s.n),
                       .precision = Precision::bf16,
                       .allowed = 1e-2,
                       .prepare = [s, f] { return quantized_product(s, f, true); }});
}

}  // namespace sennit::bench
