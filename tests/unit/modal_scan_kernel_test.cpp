#include <gtest/gtest.h>

#include <complex>

#include "kernels/modal_scan.h"
#include "support/buffers.h"
#include "support/gradients.h"
#include "support/levels.h"

namespace sennit::modal_scan_kernel_test {

using Doubles = std::vector<double>;
using Complex = std::complex<double>;

struct Inputs {
  Doubles u, lr, li, wr, wi, h;
};

// Outputs, then the last state.
Doubles naive(const Inputs& in) {
  const size_t modes = in.lr.size();
  Doubles y(in.u.size() + 2 * modes);
  for (size_t n = 0; n < modes; ++n) {
    Complex s{in.h[n], in.h[modes + n]};
    for (size_t t = 0; t < in.u.size(); ++t) {
      s = Complex{in.lr[n], in.li[n]} * s + in.u[t];
      y[t] += (Complex{in.wr[n], in.wi[n]} * s).real();
    }
    y[in.u.size() + n] = s.real(), y[in.u.size() + modes + n] = s.imag();
  }
  return y;
}

struct Sample {
  Fenced u, lr, li, wr, wi, h;
  Sample(Rng& rng, int64_t length, int64_t modes)
      : u(Fenced::normal(rng, length)),
        lr(modes),
        li(modes),
        wr(Fenced::normal(rng, modes)),
        wi(Fenced::normal(rng, modes)),
        h(Fenced::normal(rng, 2 * modes)) {
    for (int64_t n = 0; n < modes; ++n) {
      const Complex l = std::polar(rng.uniform(), 7 * rng.uniform());
      lr[n] = static_cast<float>(l.real()), li[n] = static_cast<float>(l.imag());
    }
  }
  kernels::ModalScanTask task() const {
    return {u.data(), lr.data(), li.data(), wr.data(), wi.data(), 1, u.size(), lr.size()};
  }
  Inputs doubles() const { return {u.doubles(), lr.doubles(), li.doubles(), wr.doubles(), wi.doubles(), h.doubles()}; }
};

TEST(ModalScanKernel, AgreesWithDouble) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (const int64_t modes : {1, 5, 8, 16, 17, 40})
      for (const int64_t length : {0, 1, 2, 100}) {
        const Sample s(rng, length, modes);
        Fenced y(length, NAN), end = s.h;
        kernels::modal_scan().forward(s.task(), end.data(), end.data(), y.data(), 1);
        const Doubles want = naive(s.doubles());
        ASSERT_TRUE(y.intact() && end.intact());
        for (int64_t t = 0; t < length; ++t)
          ASSERT_NEAR(y[t], want[static_cast<size_t>(t)], 3e-5 * std::sqrt(static_cast<double>(modes)));
        for (int64_t n = 0; n < 2 * modes; ++n) ASSERT_NEAR(end[n], want[static_cast<size_t>(length + n)], 1e-5);
      }
  });
}

TEST(ModalScanKernel, GradientsAreThoseOfCentralDifferences) {
  for_each_level([](IsaLevel) {
    Rng rng(2);
    for (const int64_t modes : {1, 16, 19})
      for (const int64_t length : {1, 2, 30}) {
        const Sample s(rng, length, modes);
        const Fenced dy = Fenced::normal(rng, length), d_end = Fenced::normal(rng, 2 * modes);
        Fenced du(length), dlr(modes), dli(modes), dwr(modes), dwi(modes), dh(2 * modes);
        Fenced scratch(kernels::modal_scan().backward_scratch_floats(s.task()), NAN);
        kernels::modal_scan().backward(s.task(), s.h.data(), dy.data(), 1, d_end.data(),
                                       {du.data(), dlr.data(), dli.data(), dwr.data(), dwi.data()}, dh.data(),
                                       scratch.data());
        ASSERT_TRUE(scratch.intact());
        const auto check = [&](const char* name, Doubles Inputs::*which, const Fenced& gradient) {
          const auto loss = [&](const Doubles& x) {
            Inputs in = s.doubles();
            in.*which = x;
            const Doubles y = naive(in);
            double sum = 0;
            for (int64_t i = 0; i < length; ++i) sum += y[static_cast<size_t>(i)] * dy[i];
            for (int64_t i = 0; i < 2 * modes; ++i) sum += y[static_cast<size_t>(length + i)] * d_end[i];
            return sum;
          };
          expect_gradient(name, loss, s.doubles().*which, gradient, 1e-5, rng);
        };
        check("u", &Inputs::u, du), check("lr", &Inputs::lr, dlr), check("li", &Inputs::li, dli);
        check("wr", &Inputs::wr, dwr), check("wi", &Inputs::wi, dwi), check("h", &Inputs::h, dh);
      }
  });
}

}  // namespace sennit::modal_scan_kernel_test
