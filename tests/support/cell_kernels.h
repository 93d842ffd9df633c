#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "support/buffers.h"
#include "support/gradients.h"
#include "support/levels.h"

// What every kernel that takes a recurrent cell through a sequence is held to. A Sample(rng, cell, length, dim) has the
// fenced numbers x, r and s (the first state), task(), inputs() in double, and the definition naive(inputs): outputs, then
// the last state.
namespace sennit {

struct CellInputs {
  std::vector<double> x, r, s;
};

inline double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }

// `allowed(want, of_state)` is how far a number may be off.
template <class Sample, class Cells, class Kernel, class Allowed>
void expect_cells_agree_with_double(const Cells& cells, const Kernel& (*kernel)(), Allowed&& allowed) {
  Rng rng(1);
  for (const auto cell : cells)
    for (const int64_t dim : {1, 3, 8, 16, 17, 40})
      for (const int64_t length : {0, 1, 2, 30}) {
        const Sample s(rng, cell, length, dim);
        Fenced y(length * dim, NAN), end = s.s, scratch(kernel().scratch_floats(s.task()), NAN);
        kernel().forward(s.task(), end.data(), end.data(), y.data(), dim, scratch.data());
        const std::vector<double> want = s.naive(s.inputs());
        ASSERT_TRUE(y.intact() && end.intact() && scratch.intact());
        ASSERT_EQ(std::ssize(want), y.size() + end.size());
        for (int64_t i = 0; i < std::ssize(want); ++i) {
          const double number = want[static_cast<size_t>(i)];
          ASSERT_NEAR(i < y.size() ? y[i] : end[i - y.size()], number, allowed(number, i >= y.size()))
              << static_cast<int>(cell) << " dim " << dim << " at " << i << " of " << length;
        }
      }
}

template <class Sample, class Cells, class Kernel>
void expect_fresh_states_go_on(const Cells& cells, const Kernel& (*kernel)()) {
  Rng rng(2);
  for (const auto cell : cells) {
    const Sample s(rng, cell, 9, 11);
    Fenced a(99), b(99), first(s.s.size(), NAN), last(s.s.size()), scratch(kernel().scratch_floats(s.task()));
    auto nothing = s.task();
    nothing.length = 0;
    kernel().forward(nothing, nullptr, first.data(), a.data(), 11, scratch.data());
    kernel().forward(s.task(), first.data(), last.data(), a.data(), 11, scratch.data());
    kernel().forward(s.task(), nullptr, last.data(), b.data(), 11, scratch.data());
    for (int64_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i], b[i]) << static_cast<int>(cell);
  }
}

template <class Sample, class Cells, class Kernel>
void expect_cell_gradients(const Cells& cells, const Kernel& (*kernel)()) {
  Rng rng(3);
  for (const auto cell : cells)
    for (const int64_t dim : {1, 16, 19})
      for (const int64_t length : {1, 2, 25}) {
        const Sample s(rng, cell, length, dim);
        const Fenced dy = Fenced::normal(rng, length * dim), d_end = Fenced::normal(rng, s.s.size());
        Fenced dx(s.x.size()), dr(s.r.size()), ds(s.s.size()), scratch(kernel().backward_scratch_floats(s.task()), NAN);
        kernel().backward(s.task(), s.s.data(), dy.data(), dim, d_end.data(), dx.data(), dr.data(), ds.data(),
                          scratch.data());
        ASSERT_TRUE(scratch.intact());
        SCOPED_TRACE(testing::Message() << static_cast<int>(cell) << " dim " << dim << " length " << length);
        const auto check = [&](const char* name, std::vector<double> CellInputs::*which, const Fenced& gradient) {
          const auto loss = [&](const std::vector<double>& values) {
            CellInputs in = s.inputs();
            in.*which = values;
            const std::vector<double> y = s.naive(in);
            double sum = 0;
            for (int64_t i = 0; i < dy.size(); ++i) sum += y[static_cast<size_t>(i)] * dy[i];
            for (int64_t i = 0; i < d_end.size(); ++i) sum += y[static_cast<size_t>(dy.size() + i)] * d_end[i];
            return sum;
          };
          expect_gradient(name, loss, s.inputs().*which, gradient, 1e-4, rng);
        };
        check("x", &CellInputs::x, dx), check("r", &CellInputs::r, dr), check("s", &CellInputs::s, ds);
      }
}

}  // namespace sennit
