// Times of the recurrences on all threads (SENNIT_THREADS), heads or channels split over them: for each case the least
// and the median of some runs, and the least work of its form in multiply-adds per second.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <vector>

#include "base/parallel.h"
#include "base/rng.h"
#include "kernels/delta.h"
#include "kernels/gla.h"
#include "kernels/selective_scan.h"
#include "tensor/tensor.h"

namespace sennit {
namespace {

using kernels::Decay;

Tensor normal(int64_t n, double scale = 1) {
  static Rng rng(1);
  Tensor x({n});
  for (float& v : x.span()) v = static_cast<float>(scale * rng.normal());
  return x;
}
Tensor negative(int64_t n, double scale) {
  Tensor x = normal(n, scale);
  for (float& v : x.span()) v = -std::abs(v);
  return x;
}
Tensor zeros(int64_t n) {
  return Tensor::zeros({n});
}
Tensor zeros_like(const Tensor& x) {
  return Tensor::zeros(x.shape());
}

void report(const std::string& name, double multiply_adds, const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> ms;
  run();
  for (const auto end = Clock::now() + std::chrono::milliseconds(400); Clock::now() < end;) {
    const auto before = Clock::now();
    run();
    ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - before).count());
  }
  std::sort(ms.begin(), ms.end());
  fmt::print("{:46} {:9.4f} ms least {:9.4f} ms median {:8.1f} Gmac/s\n", name, ms[0], ms[ms.size() / 2],
             multiply_adds / ms[0] * 1e-6);
}

void gla(int64_t heads, int64_t K, int64_t V, int64_t T, Decay decay) {
  const char* names[] = {"none", "scalar", "vector"};
  const int64_t gates = decay == Decay::vector ? K : 1, stride = heads * K, v_stride = heads * V;
  const auto q = normal(T * stride), k = normal(T * stride), v = normal(T * v_stride), dy = normal(T * v_stride);
  const auto g = negative(T * heads * gates, 0.1);
  Tensor y = zeros_like(v), dq = zeros_like(q), dk = zeros_like(k), dv = zeros_like(v), dg = zeros_like(g);
  Tensor s = normal(heads * K * V);
  auto task = [&](int64_t h) {
    return kernels::GlaTask{.q = q.data() + h * K,
                            .k = k.data() + h * K,
                            .v = v.data() + h * V,
                            .g = g.data() + h * gates,
                            .q_stride = stride,
                            .k_stride = stride,
                            .v_stride = v_stride,
                            .g_stride = heads * gates,
                            .length = T,
                            .key_dim = K,
                            .value_dim = V,
                            .scale = 0.1f,
                            .decay = decay};
  };
  const int64_t forward_floats = kernels::gla().scratch_floats(task(0));
  const int64_t backward_floats = kernels::gla().backward_scratch_floats(task(0));
  Tensor scratch = zeros(heads * std::max(forward_floats, backward_floats));
  const double work = 2.0 * static_cast<double>(heads * T * K * V);
  const std::string name = fmt::format("gla {} {}x{}x{} T {}", names[static_cast<int>(decay)], heads, K, V, T);
  auto forward = [&](kernels::Gla::Forward form) {
    parallel_for(heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t h = begin; h < end; ++h)
        form(task(h), s.data() + h * K * V, s.data() + h * K * V, y.data() + h * V, v_stride,
             scratch.data() + begin * forward_floats);
    });
  };
  report(name + " recurrent", work, [&] { forward(kernels::gla().recurrent); });
  if (T == 1) return;
  report(name + " chunked", work, [&] { forward(kernels::gla().chunked); });
  report(name + " backward", 3 * work, [&] {
    parallel_for(heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t h = begin; h < end; ++h)
        kernels::gla().backward(task(h), nullptr, dy.data() + h * V, v_stride, nullptr, dq.data() + h * K,
                                dk.data() + h * K, dv.data() + h * V, dg.data() + h * gates, nullptr,
                                scratch.data() + begin * backward_floats);
    });
  });
}

void delta(int64_t heads, int64_t K, int64_t V, int64_t T) {
  const int64_t stride = heads * K, v_stride = heads * V;
  const auto q = normal(T * stride), k = normal(T * stride, 1 / std::sqrt(static_cast<double>(K)));
  const auto v = normal(T * v_stride), dy = normal(T * v_stride), g = negative(T * heads, 0.1);
  const Tensor beta = Tensor::full(g.shape(), 0.5f);
  Tensor y = zeros_like(v), dq = zeros_like(q), dk = zeros_like(k), dv = zeros_like(v), dg = zeros_like(g),
         dbeta = zeros_like(g);
  Tensor s = normal(heads * K * V);
  auto task = [&](int64_t h) {
    return kernels::DeltaTask{.q = q.data() + h * K,
                              .k = k.data() + h * K,
                              .v = v.data() + h * V,
                              .g = g.data() + h,
                              .beta = beta.data() + h,
                              .q_stride = stride,
                              .k_stride = stride,
                              .v_stride = v_stride,
                              .g_stride = heads,
                              .beta_stride = heads,
                              .length = T,
                              .key_dim = K,
                              .value_dim = V,
                              .scale = 0.1f};
  };
  const int64_t forward_floats = kernels::delta().scratch_floats(task(0));
  const int64_t backward_floats = kernels::delta().backward_scratch_floats(task(0));
  Tensor scratch = zeros(heads * std::max(forward_floats, backward_floats));
  const double work = 3.0 * static_cast<double>(heads * T * K * V);
  const std::string name = fmt::format("delta {}x{}x{} T {}", heads, K, V, T);
  auto forward = [&](kernels::Delta::Forward form) {
    parallel_for(heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t h = begin; h < end; ++h)
        form(task(h), s.data() + h * K * V, s.data() + h * K * V, y.data() + h * V, v_stride,
             scratch.data() + begin * forward_floats);
    });
  };
  report(name + " recurrent", work, [&] { forward(kernels::delta().recurrent); });
  if (T == 1) return;
  report(name + " chunked", work, [&] { forward(kernels::delta().chunked); });
  report(name + " backward", 8.0 / 3 * work, [&] {
    parallel_for(heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t h = begin; h < end; ++h)
        kernels::delta().backward(task(h), nullptr, dy.data() + h * V, v_stride, nullptr, dq.data() + h * K,
                                  dk.data() + h * K, dv.data() + h * V, dg.data() + h, dbeta.data() + h, nullptr,
                                  scratch.data() + begin * backward_floats);
    });
  });
}

void selective_scan(int64_t channels, int64_t N, int64_t T) {
  const auto x = normal(T * channels), a = negative(channels * N, 1), b = normal(T * N), c = normal(T * N);
  const auto d = normal(channels), dy = normal(T * channels);
  auto dt = negative(T * channels, 0.1);
  for (float& v : dt.span()) v = -v;
  Tensor y = zeros_like(x), dx = zeros_like(x), ddt = zeros_like(x), da = zeros_like(a), dd = zeros_like(d),
         h = zeros_like(a);
  kernels::SelectiveScanTask task{.x = x.data(),
                                  .dt = dt.data(),
                                  .a = a.data(),
                                  .b = b.data(),
                                  .c = c.data(),
                                  .d = d.data(),
                                  .x_stride = channels,
                                  .dt_stride = channels,
                                  .b_stride = N,
                                  .c_stride = N,
                                  .length = T,
                                  .states = N,
                                  .begin = 0,
                                  .end = channels};
  const int64_t pieces = std::min<int64_t>(channels / 128, thread_count()), width = channels / pieces;
  const int64_t floats =
      std::max(kernels::selective_scan().scratch_floats(task), kernels::selective_scan().backward_scratch_floats(task));
  Tensor scratch = zeros(pieces * floats), sums = zeros(2 * pieces * T * N);
  auto over_ranges = [&](auto&& body) {
    parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        kernels::SelectiveScanTask part = task;
        part.begin = p * width, part.end = part.begin + width;
        body(part, p, scratch.data() + p * floats);
      }
    });
  };
  const double work = 3.0 * static_cast<double>(channels * N * T);
  const std::string name = fmt::format("selective_scan {} channels N {} T {}", channels, N, T);
  report(name + " forward", work, [&] {
    over_ranges([&](const auto& part, int64_t, float* own) {
      kernels::selective_scan().forward(part, h.data(), h.data(), y.data(), channels, own);
    });
  });
  if (T == 1) return;
  report(name + " backward", 2 * work, [&] {
    over_ranges([&](const auto& part, int64_t p, float* own) {
      float* db = sums.data() + 2 * p * T * N;
      kernels::selective_scan().backward(part, nullptr, dy.data(), channels, nullptr,
                                         {.dx = dx.data(),
                                          .ddt = ddt.data(),
                                          .da = da.data(),
                                          .db = db,
                                          .dc = db + T * N,
                                          .dd = dd.data(),
                                          .dh0 = nullptr},
                                         own);
    });
  });
}

}  // namespace
}  // namespace sennit

int main() {
  using namespace sennit;
  for (Decay decay : {Decay::none, Decay::scalar, Decay::vector}) {
    gla(32, 64, 64, 512, decay);
    gla(32, 64, 64, 1, decay);
  }
  gla(32, 64, 64, 4096, Decay::scalar);
  delta(16, 64, 64, 512);
  delta(16, 64, 64, 1);
  delta(32, 128, 128, 512);
  selective_scan(4096, 16, 512);
  selective_scan(4096, 16, 1);
}
