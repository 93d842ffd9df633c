#include "sequence/lag_products.h"

#include <algorithm>

#include "base/error.h"
#include "ops/count.h"
#include "ops/layout.h"
#include "products/product.h"
#include "tensor/pooled.h"

namespace sennit {
namespace {

// One sequence: where its rows of x stand, which of them are new, and where their outputs go.
struct LaggedPiece {
  size_t source;
  int64_t begin, rows, first, out;
};

struct LagProducts {
  Tensor w;
  int64_t channels;
  Pooled<Tensor> sources;
  Pooled<LaggedPiece> pieces;
  Precision precision;

  int64_t taps() const { return w.rows() / channels; }
  MatrixView matrix(int64_t lag, bool transposed) const {
    const int64_t out = w.row_size();
    return {w.data() + lag * channels * out, transposed ? out : channels, transposed ? channels : out, out, transposed};
  }
  // body(piece, lag, first row of x, first row of y, rows) for each lag of each sequence, nearest first: the order of a
  // row's sum does not depend on where the sequence was cut.
  template <class Body>
  void each(Body&& body) const {
    int64_t pairs = 0;
    for (const LaggedPiece& p : pieces)
      for (int64_t lag = 0; lag < std::min(taps(), p.rows); ++lag) {
        const int64_t from = std::max(p.first, lag);
        pairs += p.rows - from;
        if (from < p.rows) body(p, lag, p.begin + from - lag, p.out + from - p.first, p.rows - from);
      }
    count_flops(2 * pairs * channels * w.row_size());
  }
  void forward(Tensor& y) const {
    const int64_t width = y.row_size();
    each([&](const LaggedPiece& p, int64_t lag, int64_t x, int64_t out, int64_t rows) {
      multiply({sources[p.source].data() + x * channels, rows, channels, channels}, matrix(lag, false),
               y.data() + out * width, width, {.precision = precision, .accumulate = true});
    });
  }
  void backward(const Tensor& dy, Tensor& dw, std::span<Tensor*> dx) const {
    const int64_t width = dy.row_size();
    each([&](const LaggedPiece& p, int64_t lag, int64_t x, int64_t out, int64_t rows) {
      const float* d = dy.data() + out * width;
      multiply({d, rows, width, width}, matrix(lag, true), dx[p.source]->data() + x * channels, channels,
               {.precision = precision, .accumulate = true});
      multiply({sources[p.source].data() + x * channels, channels, rows, channels, true}, {d, rows, width, width},
               dw.data() + lag * channels * width, width, {.precision = precision, .accumulate = true});
      count_flops(2 * rows * channels * width);  // two products here, of which each() counts one
    });
  }
};

}  // namespace

Var lag_products(const Var& x, const Var& w, const Batch& batch, size_t field) {
  SENNIT_CHECK(x.columns() > 0 && w.rows() > 0 && w.rows() % x.columns() == 0, "lag_products: {} with {}",
               x.shape().str(), w.shape().str());
  Pooled<Var> sources = {x};
  LagProducts sums{w.value(), x.columns(), {}, {}, batch.context->precision};
  for (const Segment& s : batch.segments) {
    LaggedPiece p{0, s.begin, s.length, 0, s.begin};
    if (LayerState* state = batch.state(s)) {
      p.source = sources.size();
      sources.push_back(state->append(field, rows(x, s.begin, s.length), sums.taps()));
      p.begin = 0;
      p.rows = sources.back().rows();
      p.first = p.rows - s.length;
    }
    sums.pieces.push_back(p);
  }
  for (const Var& v : sources) sums.sources.push_back(v.value());
  Tensor y = Tensor::zeros({x.rows(), w.columns()});
  sums.forward(y);
  if (!recording()) return Var(std::move(y));
  std::vector<Var> inputs = {w};
  inputs.insert(inputs.end(), sources.begin(), sources.end());
  return record(std::move(y), inputs, [sums](std::span<const Tensor> dy, Gradients& into) {
    std::vector<Tensor*> dx;
    for (int i = 0; i < static_cast<int>(sums.sources.size()); ++i) dx.push_back(&into.sum(1 + i));
    sums.backward(dy[0], into.sum(0), dx);
  });
}

int64_t lag_products_flops(int64_t n, int64_t taps, int64_t channels, int64_t out) {
  const int64_t lags = std::min(n, taps);
  return 2 * channels * out * (lags * n - lags * (lags - 1) / 2);
}

}  // namespace sennit
