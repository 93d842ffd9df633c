#pragma once
#include <cmath>

#include "mixers/mixer.h"

namespace sennit::mixers {

// The matrix of h_t = exp(g_t) h_{t-1} + x_t for every channel: the product of the decays between; x, log_decay [T, C].
inline ImplicitMatrix diagonal_matrix(const Tensor& x, const Tensor& log_decay) {
  const int64_t n = x.rows(), channels = x.row_size();
  ImplicitMatrix m{Tensor::zeros({channels, n, n}), x};
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t j = 0; j < n; ++j) {
      double fade = 0;
      for (int64_t i = j; i < n; ++i) {
        if (i > j) fade += log_decay.data()[i * channels + c];
        m.weights.data()[(c * n + i) * n + j] = static_cast<float>(std::exp(fade));
      }
    }
  return m;
}

}  // namespace sennit::mixers
