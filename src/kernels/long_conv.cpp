#include "kernels/long_conv.h"

#include "kernels/fft.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr int64_t kLeaf = 64;  // rows that are summed one by one

int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}
int64_t most(int64_t a, int64_t b) {
  return a > b ? a : b;
}
int64_t power_of_two_from(int64_t n) {
  int64_t p = 2;
  while (p < n) p *= 2;
  return p;
}
int64_t stages(int64_t n) {
  return __builtin_ctzll(static_cast<unsigned long long>(n));
}

// What rows [a0, a1) say to outputs [b0, b1), which all come later; `width` is the most outputs of its kind, by which
// the transform's length is chosen.
struct Block {
  int64_t a0, a1, b0, b1, width;
  int64_t rows() const { return a1 - a0; }
  int64_t first_lag() const { return b0 - (a1 - 1); }
  int64_t transform() const { return power_of_two_from(rows() + width - 1); }
};

// Without what the filter does not reach.
Block reached(const LongConvTask& t, Block b) {
  b.a0 = most(b.a0, b.b0 - t.taps + 1);
  b.b1 = least(b.b1, b.a1 - 1 + t.taps);
  b.width = most(least(b.width, b.a1 - 1 + t.taps - b.b0), 0);
  return b;
}
// In vector operations: a transform of n elements takes about 4 n log n, a product two of them.
bool by_transform(const Block& b) {
  const int64_t n = b.transform();
  return 3 * b.rows() * (b.b1 - b.b0) > 8 * n * stages(n) + 12 * n;
}

// Calls direct(b) for what is summed one by one and product(b) for what goes by transforms.
template <class Direct, class Product>
SENNIT_INLINE void walk(const LongConvTask& t, const Direct& direct, const Product& product) {
  if (t.exact) return direct(Block{0, t.rows, t.first, t.end, 0});
  const auto later = [&](Block b) {
    b = reached(t, b);
    if (b.a0 >= b.a1 || b.b0 >= b.b1) return;
    if (by_transform(b))
      product(b);
    else
      direct(b);
  };
  const int64_t inside = least(t.rows, t.end);
  if (t.first > 0) later({0, least(t.first, t.rows), t.first, t.end, t.end - t.first});
  for (int64_t at = t.first; at < inside; at += kLeaf) {
    const int64_t stop = least(at + kLeaf, inside);
    direct(Block{at, stop, at, stop, 0});
  }
  for (int64_t size = kLeaf; size < inside - t.first; size *= 2)
    for (int64_t at = t.first; at + size < inside; at += 2 * size)
      later({at, at + size, at + size, least(at + 2 * size, inside), size});
  if (t.end > t.rows && t.rows > t.first) later({t.first, t.rows, t.rows, t.end, t.end - t.rows});
}

int64_t largest_transform(const LongConvTask& t) {
  int64_t n = 0;
  walk(
      t, [](const Block&) {}, [&](const Block& b) { n = most(n, b.transform()); });
  return n;
}

// Sums over lags [low, high) of a channel: pairs of a row and an output that meet.
int64_t pairs(const LongConvTask& t, const Block& b) {
  int64_t count = 0;
  for (int64_t i = b.b0; i < b.b1; ++i) count += most(0, least(b.a1, i + 1) - most(b.a0, i - t.taps + 1));
  return count;
}
// The real operations of one transform of n complex numbers, which serves two channels.
int64_t transform_flops(int64_t n) {
  return 5 * n * stages(n) / 2;
}

int64_t flops(const LongConvTask& t) {
  int64_t total = 0, kept = 0;
  walk(
      t, [&](const Block& b) { total += 2 * pairs(t, b); },
      [&](const Block& b) {
        const int64_t n = b.transform();
        total += 2 * transform_flops(n) + 6 * n;
        if (kept != n) total += transform_flops(n), kept = n;
      });
  return total * t.channels;
}

// Two vectors of channels from `channel` on, `first` and `second` of their lanes in use.
struct Columns {
  int64_t channel, first, second;
};
template <class Body>
SENNIT_INLINE void each_columns(int64_t channels, const Body& body) {
  for (int64_t c = 0; c < channels; c += 2 * kLanes)
    body(Columns{c, least(kLanes, channels - c), most(0, least(kLanes, channels - c - kLanes))});
}

// The sums of the rows of `b`, in order, into outputs of one vector of channels.
void add_direct(const LongConvTask& t, const Block& b, int64_t channel, int64_t lanes, float* y, int64_t y_stride) {
  constexpr int64_t kOutputs = 4;
  for (int64_t at = b.b0; at < b.b1; at += kOutputs) {
    const int64_t count = least(kOutputs, b.b1 - at), low = most(b.a0, at - t.taps + 1), high = least(b.a1, at + count);
    vf sums[kOutputs];
    for (int64_t k = 0; k < count; ++k) sums[k] = load_n(y + (at + k - t.first) * y_stride + channel, lanes);
    for (int64_t s = low; s < high; ++s) {
      const vf x = load_n(t.x + s * t.x_stride + channel, lanes);
      const float* h = t.h + (at - s) * t.h_stride + channel;
      if (count == kOutputs && s <= at && at + kOutputs - 1 - s < t.taps) {
        for (int64_t k = 0; k < kOutputs; ++k) sums[k] = fma(load_n(h + k * t.h_stride, lanes), x, sums[k]);
      } else {
        for (int64_t k = 0; k < count; ++k)
          if (at + k >= s && at + k - s < t.taps) sums[k] = fma(load_n(h + k * t.h_stride, lanes), x, sums[k]);
      }
    }
    for (int64_t k = 0; k < count; ++k) store_n(y + (at + k - t.first) * y_stride + channel, sums[k], lanes);
  }
}

// z [n] = `count` rows of channels, then zeros.
void spread(const float* rows, int64_t stride, int64_t count, const Columns& c, int64_t n, float* z) {
  for (int64_t i = 0; i < n; ++i) {
    const float* row = rows + i * stride + c.channel;
    const bool there = i < count;
    set_element(z, i,
                {there && c.first ? load_n(row, c.first) : zero(),
                 there && c.second ? load_n(row + kLanes, c.second) : zero()});
  }
}
// Adds `count` elements of z to rows of channels.
void gather(const float* z, int64_t count, const Columns& c, float* rows, int64_t stride) {
  for (int64_t i = 0; i < count; ++i) {
    const Complex a = element(z, i);
    add_n(rows + i * stride + c.channel, a.re, c.first);
    if (c.second) add_n(rows + i * stride + c.channel + kLanes, a.im, c.second);
  }
}

int64_t scratch_of(int64_t transform) {
  return 4 * kLanes * transform;
}

// Products of blocks for two vectors of channels; the filter's spectrum is kept from one to the next of its kind.
struct Products {
  const LongConvTask& t;
  Columns c;
  float *z, *f;
  int64_t kept_lag = -1, kept_transform = 0, kept_rows = 0;

  void add(const Block& b, float* y, int64_t y_stride) {
    const int64_t n = b.transform(), lag = b.first_lag();
    if (kept_lag != lag || kept_transform != n || kept_rows != b.rows()) {
      const int64_t count = most(0, least(b.rows() + b.width - 1, t.taps - lag));
      spread(t.h + lag * t.h_stride, t.h_stride, count, c, n, f);
      fft(f, n, t.turns);
      kept_lag = lag, kept_transform = n, kept_rows = b.rows();
    }
    spread(t.x + b.a0 * t.x_stride, t.x_stride, b.rows(), c, n, z);
    fft(z, n, t.turns);
    multiply_spectra(z, f, n);
    inverse_fft(z, n, t.turns);
    gather(z + 2 * kLanes * (b.rows() - 1), b.b1 - b.b0, c, y + (b.b0 - t.first) * y_stride, y_stride);
  }
};

void forward(const LongConvTask& t, float* y, int64_t y_stride, float* scratch) {
  const int64_t transform = largest_transform(t);
  each_columns(t.channels, [&](const Columns& c) {
    Products products{t, c, scratch, scratch + 2 * kLanes * transform};
    walk(
        t,
        [&](const Block& b) {
          add_direct(t, b, c.channel, c.first, y, y_stride);
          if (c.second) add_direct(t, b, c.channel + kLanes, c.second, y, y_stride);
        },
        [&](const Block& b) { products.add(b, y, y_stride); });
  });
}

// The gradient of the filter is the product of dy, backwards, with x: lag k at place rows - 1 - k.
struct Correlation {
  int64_t outputs, lags, transform;
  bool by_transform;
  explicit Correlation(const LongConvTask& t) : outputs(t.rows - t.first), lags(least(t.taps, t.rows)) {
    transform = power_of_two_from(most(outputs + lags - 1, t.rows));
    by_transform = !t.exact && 3 * outputs * lags > 12 * transform * stages(transform) + 12 * transform;
  }
};

int64_t filter_gradient_flops(const LongConvTask& t) {
  const Correlation c(t);
  const int64_t n = c.transform;
  return t.channels * (c.by_transform ? 3 * transform_flops(n) + 6 * n : 2 * c.outputs * c.lags);
}

void correlate_direct(const LongConvTask& t, const float* dy, int64_t dy_stride, int64_t channel, int64_t lanes,
                      int64_t lags, float* dh) {
  for (int64_t k = 0; k < lags; ++k) {
    vf sum = load_n(dh + k * t.h_stride + channel, lanes);
    for (int64_t i = most(t.first, k); i < t.rows; ++i)
      sum = fma(load_n(dy + (i - t.first) * dy_stride + channel, lanes),
                load_n(t.x + (i - k) * t.x_stride + channel, lanes), sum);
    store_n(dh + k * t.h_stride + channel, sum, lanes);
  }
}

void filter_gradient(const LongConvTask& t, const float* dy, int64_t dy_stride, float* dh, float* scratch) {
  const Correlation all(t);
  each_columns(t.channels, [&](const Columns& c) {
    if (!all.by_transform) {
      correlate_direct(t, dy, dy_stride, c.channel, c.first, all.lags, dh);
      if (c.second) correlate_direct(t, dy, dy_stride, c.channel + kLanes, c.second, all.lags, dh);
      return;
    }
    const int64_t n = all.transform;
    float *z = scratch, *f = scratch + 2 * kLanes * n;
    spread(dy + (all.outputs - 1) * dy_stride, -dy_stride, all.outputs, c, n, z);
    spread(t.x, t.x_stride, t.rows, c, n, f);
    fft(z, n, t.turns);
    fft(f, n, t.turns);
    multiply_spectra(z, f, n);
    inverse_fft(z, n, t.turns);
    gather(z + 2 * kLanes * (t.rows - all.lags), all.lags, c, dh + (all.lags - 1) * t.h_stride, -t.h_stride);
  });
}

int64_t largest_with_gradient(const LongConvTask& t) {
  const Correlation c(t);
  return most(largest_transform(t), t.end == t.rows && c.by_transform ? c.transform : 0);
}
int64_t scratch_with_gradient(const LongConvTask& t) {
  return scratch_of(largest_with_gradient(t));
}

}  // namespace

const LongConv long_conv_table = {.largest_transform = largest_with_gradient,
                                  .scratch_floats = scratch_with_gradient,
                                  .flops = flops,
                                  .forward = forward,
                                  .filter_gradient = filter_gradient,
                                  .filter_gradient_flops = filter_gradient_flops};

}  // namespace sennit::kernels::SENNIT_LEVEL
