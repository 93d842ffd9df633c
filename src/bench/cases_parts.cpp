#include <fmt/format.h>

#include <functional>
#include <memory>

#include "base/parallel.h"
#include "bench/cases.h"
#include "kernels/optimizer.h"
#include "ops/arithmetic.h"
#include "ops/maps.h"
#include "ops/norms.h"
#include "ops/products.h"

// The parts of training that are neither products nor mixers: bound by memory where their operands are large.
namespace sennit::bench {
namespace {

double of(const Var& x, int64_t i, int64_t j) { return x.value().data()[i * x.columns() + j]; }

struct Part {
  std::string name;
  std::function<Var(const Var&, const Var&)> run;
  std::function<double(const Var&, const Var&, int64_t, int64_t)> definition;  // of one element
  int operands;
};

constexpr int64_t kRows = 8192, kColumns = 1024;

double mean(const Var& x, int64_t i, const std::function<double(double)>& f) {
  double s = 0;
  for (int64_t j = 0; j < x.columns(); ++j) s += f(of(x, i, j));
  return s / static_cast<double>(x.columns());
}

std::vector<Part> parts() {
  return {{"rmsnorm", [](const Var& x, const Var&) { return rmsnorm(x, {}); },
           [](const Var& x, const Var&, int64_t i, int64_t j) { return of(x, i, j) / std::sqrt(mean(x, i, [](double a) { return a * a; }) + 1e-5); }, 1},
          {"layernorm", [](const Var& x, const Var&) { return layernorm(x, {}, {}); },
           [](const Var& x, const Var&, int64_t i, int64_t j) {
             const double m = mean(x, i, [](double a) { return a; });
             return (of(x, i, j) - m) / std::sqrt(mean(x, i, [m](double a) { return (a - m) * (a - m); }) + 1e-5);
           }, 1},
          {"softmax", [](const Var& x, const Var&) { return softmax(x); },
           [](const Var& x, const Var&, int64_t i, int64_t j) {
             return std::exp(of(x, i, j)) / (static_cast<double>(x.columns()) * mean(x, i, [](double a) { return std::exp(a); }));
           }, 1},
          {"swiglu", [](const Var& x, const Var& y) { return swiglu(x, y); },
           [](const Var& x, const Var& y, int64_t i, int64_t j) { return of(x, i, j) / (1 + std::exp(-of(x, i, j))) * of(y, i, j); }, 2},
          {"gelu", [](const Var& x, const Var&) { return gelu(x); },
           [](const Var& x, const Var&, int64_t i, int64_t j) {
             const double a = of(x, i, j);
             return 0.5 * a * (1 + std::tanh(std::sqrt(2 / M_PI) * (a + 0.044715 * a * a * a)));
           }, 1}};
}

Work work(const Part& part, bool with_backward) {
  const Var x = Var::leaf(random_rows(kRows, kColumns, "x", -2, 2)), y = Var::leaf(random_rows(kRows, kColumns, "y", -2, 2));
  const auto run = [=] {
    Recording on(with_backward);
    for (Var v : {x, y}) v.clear_grad();
    const Var z = part.run(x, y);
    if (with_backward) backward_of_squares(z);
  };
  return {run, [=] {
            const Var z = part.run(x, y);
            Deviation d;
            for (const int64_t i : {int64_t{0}, kRows - 1})
              for (int64_t j = 0; j < kColumns; ++j) d.add(of(z, i, j), part.definition(x, y, i, j));
            return d.relative();
          }};
}

Work adamw(int64_t n) {
  struct Buffers {
    Tensor gradient, p, m, v;
  };
  const auto b = std::make_shared<Buffers>(Buffers{random_rows(1, n, "g"), random_rows(1, n, "p"), Tensor::zeros({n}), Tensor::zeros({n})});
  const auto run = [b, n] {
    const kernels::AdamWStep step{.rate = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1, .correction1 = 0.1, .correction2 = 0.05, .gradient_scale = 1};
    parallel_for(n, 1 << 16, [&](int64_t from, int64_t to) {
      kernels::optimizer().adamw(step, b->gradient.data() + from, b->p.data() + from, b->m.data() + from, b->v.data() + from, to - from);
    });
  };
  return {run, [b, run] {
            const Tensor before = b->p.clone();
            run();
            Deviation d;
            for (int64_t i = 0; i < 1000; ++i) {
              const double g = b->gradient.data()[i], p = before.data()[i];
              d.add(b->p.data()[i], p - 1e-3 * (g / (std::fabs(g) + 1e-8) + 0.1 * p));
            }
            return d.relative();
          }};
}

// Its least work: the products over the vocabulary, forward and twice backward.
Work cross_entropy(int64_t rows, int64_t d, int64_t vocab) {
  const Var h = Var::leaf(random_rows(rows, d, "h", -1, 1)), w = Var::leaf(random_rows(vocab, d, "w", -0.1, 0.1));
  std::vector<int32_t> targets(static_cast<size_t>(rows));
  for (int64_t i = 0; i < rows; ++i) targets[i] = static_cast<int32_t>(i * 7 % vocab);
  const auto run = [=] {
    Recording on(true);
    for (Var v : {h, w}) v.clear_grad();
    backward(linear_cross_entropy(h, w, targets, Precision::f32, nullptr));
  };
  return {run, [=] {
            Tensor losses;
            linear_cross_entropy(h, w, targets, Precision::f32, &losses);
            Deviation off;
            for (const int64_t i : {int64_t{0}, rows - 1}) {
              double total = 0, target = 0;
              for (int64_t t = 0; t < vocab; ++t) {
                double z = 0;
                for (int64_t p = 0; p < d; ++p) z += of(h, i, p) * of(w, t, p);
                total += std::exp(z);
                if (t == targets[i]) target = z;
              }
              off.add(losses.data()[i], std::log(total) - target);
            }
            return off.relative();
          }};
}

}  // namespace

void add_parts(std::vector<Case>& cases) {
  const double bytes = 4.0 * kRows * kColumns;
  for (const Part& part : parts())
    for (const bool with_backward : {false, true})
      cases.push_back({.name = fmt::format("{} {}x{} {}", part.name, kRows, kColumns, with_backward ? "forward+backward" : "forward"),
                       .bytes = bytes * (part.operands + 1) * (with_backward ? 3 : 1),
                       .tokens = kRows,
                       .prepare = [part, with_backward] { return work(part, with_backward); }});
  constexpr int64_t kParameters = 30'000'000;
  cases.push_back({.name = "adamw 30M parameters", .bytes = 28.0 * kParameters, .prepare = [] { return adamw(kParameters); }});
  cases.push_back({.name = "cross-entropy 2048x512 over 8192, forward+backward", .flops = 6.0 * 2048 * 512 * 8192, .tokens = 2048,
                   .prepare = [] { return cross_entropy(2048, 512, 8192); }});
}

}  // namespace sennit::bench
