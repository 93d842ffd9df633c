// Matrix products against the peak of the unit that does them and the bandwidth of memory.
#include <fmt/format.h>

#include <memory>

#include "base/parallel.h"
#include "base/rng.h"
#include "peaks.h"
#include "products/product.h"

namespace sennit::bench {
namespace {

Tensor random_matrix(int64_t rows, int64_t cols, uint64_t seed) {
  Tensor x({rows, cols});
  Rng rng(seed);
  parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * cols; i < end * cols; ++i)
      x.data()[i] = static_cast<float>(rng.uniform_at(static_cast<uint64_t>(i)) - 0.5);
  });
  return x;
}

MatrixView view(const Tensor& x) {
  return {x.data(), x.shape(0), x.shape(1), x.shape(1)};
}
MatrixView transposed(const Tensor& x) {
  return {x.data(), x.shape(1), x.shape(0), x.shape(1), true};
}

double peak(Precision precision) {
  return precision == Precision::f32 ? peak_f32_flops() : peak_bf16_flops();
}

// Compute-bound: square factors, b plain, transposed and packed.
void add_square(std::vector<Case>& cases, int64_t n, Precision precision) {
  const Tensor a = random_matrix(n, n, 1), b = random_matrix(n, n, 2);
  Tensor c({n, n});
  const auto packed = std::make_shared<PackedMatrix>(view(b), precision);
  const double flops = 2.0 * static_cast<double>(n * n * n);
  const auto add = [&](const std::string& form, std::function<void()> run) {
    cases.push_back({fmt::format("{} {}^3 {}", to_string(precision), n, form), flops,
                     [=] { return flops / peak(precision); }, std::move(run)});
  };
  add("a b", [=]() mutable { multiply(view(a), view(b), c.data(), n, {.precision = precision}); });
  add("a b'", [=]() mutable { multiply(view(a), transposed(b), c.data(), n, {.precision = precision}); });
  add("a' b", [=]() mutable { multiply(transposed(a), view(b), c.data(), n, {.precision = precision}); });
  add("a b packed", [=]() mutable { multiply(view(a), *packed, c.data(), n); });
}

// Bandwidth-bound: few rows by a large packed factor.
void add_few_rows(std::vector<Case>& cases, std::initializer_list<int64_t> rows, int64_t k, int64_t n,
                  Precision precision) {
  const Tensor b = random_matrix(k, n, 3);
  const auto packed = std::make_shared<PackedMatrix>(view(b), precision);
  for (const int64_t m : rows) {
    const Tensor a = random_matrix(m, k, 4);
    Tensor c({m, n});
    const double flops = 2.0 * static_cast<double>(m * k * n), bytes = static_cast<double>(packed->bytes());
    cases.push_back({fmt::format("{} {}x{}x{} packed, bytes", to_string(precision), m, k, n), bytes,
                     [=] {
                       const double reading = bytes / peak_read_bytes(packed->panels(), packed->bytes());
                       return std::max(reading, flops / peak(precision));
                     },
                     [=]() mutable { multiply(view(a), *packed, c.data(), n); }});
  }
}

}  // namespace
}  // namespace sennit::bench

int main(int argc, char** argv) {
  using namespace sennit;
  std::vector<bench::Case> cases;
  for (const Precision p : {Precision::f32, Precision::bf16}) {
    bench::add_square(cases, 2048, p);
    bench::add_square(cases, 512, p);
    bench::add_few_rows(cases, {1, 2, 4, 8, 16}, 4096, 16384, p);
  }
  bench::run_cases(std::move(cases), argc, argv);
}
