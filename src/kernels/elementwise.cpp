#include "kernels/elementwise.h"

#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

template <vf (*F)(vf)>
void map(const float* x, float* y, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t k) { store_n(y + i, F(load_n(x + i, k)), k); });
}

// dx: dy D(x), where D is the derivative at x.
template <vf (*D)(vf)>
void gradient(const float* x, const float* dy, Sum dx, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t k) { add_lanes(dx, i, load_n(dy + i, k) * D(load_n(x + i, k)), k); });
}

vf f_exp(vf x) { return exp(x); }
vf f_log(vf x) { return log(x); }
vf f_sigmoid(vf x) { return sigmoid(x); }
vf d_sigmoid(vf x) {
  const vf s = sigmoid(x);
  return s * (set(1) - s);
}
vf f_silu(vf x) { return x * sigmoid(x); }
vf d_silu(vf x) {
  const vf s = sigmoid(x);
  return s * fma(x, set(1) - s, set(1));
}
// GELU in its tanh form (Hendrycks & Gimpel, arXiv:1606.08415), written with tanh(u) = 2 sigmoid(2u) - 1.
SENNIT_INLINE vf gelu_argument(vf x) { return set(1.5957691216f) * x * fma(set(0.044715f), x * x, set(1)); }
vf f_gelu(vf x) { return x * sigmoid(gelu_argument(x)); }
vf d_gelu(vf x) {
  const vf s = sigmoid(gelu_argument(x));
  const vf slope = set(1.5957691216f) * fma(set(3 * 0.044715f), x * x, set(1));
  return fma(x * s * (set(1) - s), slope, s);
}
// Phi(x), of the normal distribution: half of 1 + erf by a series in the middle, and of erfc as e^q(t) outside, with
// t = |x| / sqrt(2). Both polynomials are least-squares fits, to 1e-9 and 2e-8.
SENNIT_INLINE vf normal_share(vf x) {
  const vf u = abs(x) * set(0.70710678119f), t = min(u, set(5.2f)), s = u * u;
  vf p = set(8.21569338e-5f), q = set(-1.52080229e-5f);
  for (const float c : {-8.10604368e-4f, 5.19780582e-3f, -2.68581081e-2f, 1.12836726e-1f, -3.76126319e-1f, 1.12837923f})
    p = fma(p, s, set(c));
  for (const float c : {3.56738630e-4f, -3.75142158e-3f, 2.39133891e-2f, -1.06280275e-1f, -6.35266244e-1f, -1.12852490f,
                        -3.76062708e-5f})
    q = fma(q, t, set(c));
  const vf half = set(0.5f) * p * u, tail = set(0.5f) * exp(q);
  const vf above = select(less(u, set(0.92f)), set(0.5f) + half, set(1) - tail);
  const vf below = select(less(u, set(0.92f)), set(0.5f) - half, tail);
  return select(less(x, zero()), below, above);
}
vf f_gelu_erf(vf x) { return x * normal_share(x); }
vf d_gelu_erf(vf x) { return fma(x * set(0.39894228040f), exp(set(-0.5f) * x * x), normal_share(x)); }
vf f_relu(vf x) { return max(x, zero()); }
vf d_relu(vf x) { return select(less(zero(), x), set(1), zero()); }
vf f_relu2(vf x) {
  const vf r = max(x, zero());
  return r * r;
}
vf d_relu2(vf x) { return set(2) * max(x, zero()); }
vf f_tanh(vf x) { return tanh(x); }
vf d_tanh(vf x) {
  const vf t = tanh(x);
  return fnma(t, t, set(1));
}
vf f_softplus(vf x) { return softplus(x); }
// 1 - e^u for u <= 0, by its series where the difference would lose digits.
SENNIT_INLINE vf one_minus_exp(vf u) {
  vf p = set(1.0f / 5040);
  for (const float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f}) p = fma(p, u, set(c));
  return select(less(set(-0.3f), u), -(p * u), set(1) - exp(u));
}
vf f_complement(vf x) { return sqrt(max(one_minus_exp(x + x), zero())); }
vf d_complement(vf x) { return -(exp(x + x) / max(f_complement(x), set(1e-4f))); }

// The sine of x less n pi, with n pi in three pieces and the sign of n's parity; the polynomial is Taylor's on [-pi/2, pi/2].
SENNIT_INLINE vf sine_from(vf x, vf n) {
  vf r = fnma(n, set(3.140625f), x);
  r = fnma(n, set(9.67502593994140625e-4f), r);
  r = fnma(n, set(1.509957990978376432e-7f), r);
  const vf r2 = r * r, odd = abs(n - set(2) * round(n * set(0.5f)));
  vf p = set(-1.0f / 39916800);
  for (const float c : {1.0f / 362880, -1.0f / 5040, 1.0f / 120, -1.0f / 6}) p = fma(p, r2, set(c));
  return fma(p * r2, r, r) * fnma(set(2), odd, set(1));
}
vf f_sine(vf x) { return sine_from(x, round(x * set(0.31830988618379067f))); }
vf d_sine(vf x) { return f_sine(x + set(1.5707963267948966f)); }

void swiglu(const float* gate, const float* up, float* y, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t k) { store_n(y + i, f_silu(load_n(gate + i, k)) * load_n(up + i, k), k); });
}
void swiglu_gradient(const float* gate, const float* up, const float* dy, Sum dgate, Sum dup, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t k) {
    const vf g = load_n(gate + i, k), d = load_n(dy + i, k), s = sigmoid(g);
    add_lanes(dgate, i, d * load_n(up + i, k) * s * fma(g, set(1) - s, set(1)), k);
    add_lanes(dup, i, d * g * s, k);
  });
}

void add(const float* a, const float* b, float* y, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t k) { store_n(y + i, load_n(a + i, k) + load_n(b + i, k), k); });
}
void multiply(const float* a, const float* b, float* y, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t k) { store_n(y + i, load_n(a + i, k) * load_n(b + i, k), k); });
}
void multiply_add(const float* a, const float* b, float* y, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t k) { store_n(y + i, fma(load_n(a + i, k), load_n(b + i, k), load_n(y + i, k)), k); });
}
void axpy(float scale, const float* x, float* y, int64_t n) {
  const vf s = set(scale);
  for_lanes(n, [&](int64_t i, int64_t k) { store_n(y + i, fma(s, load_n(x + i, k), load_n(y + i, k)), k); });
}
void affine(const float* x, float scale, float shift, float* y, int64_t n) {
  const vf s = set(scale), t = set(shift);
  for_lanes(n, [&](int64_t i, int64_t k) { store_n(y + i, fma(s, load_n(x + i, k), t), k); });
}

// Four vector sums a run of 4096, the runs in double.
template <class Term>
SENNIT_INLINE double long_sum(int64_t n, Term&& term) {
  double total = 0;
  for (int64_t run = 0; run < n; run += 4096) {
    const int64_t end = run + 4096 < n ? run + 4096 : n;
    vf s[4] = {zero(), zero(), zero(), zero()};
    int64_t i = run, j = 0;
    for (; i + kLanes <= end; i += kLanes, ++j) s[j & 3] = s[j & 3] + term(i, int64_t{kLanes});
    if (i < end) s[j & 3] = s[j & 3] + term(i, end - i);
    total += static_cast<double>(kernels::SENNIT_LEVEL::sum((s[0] + s[1]) + (s[2] + s[3])));
  }
  return total;
}
double sum_of(const float* x, int64_t n) {
  return long_sum(n, [&](int64_t i, int64_t k) { return load_n(x + i, k); });
}
double sum_squares(const float* x, int64_t n) {
  return long_sum(n, [&](int64_t i, int64_t k) {
    const vf v = load_n(x + i, k);
    return v * v;
  });
}
float dot(const float* a, const float* b, int64_t n) {
  vf s = zero();
  for_lanes(n, [&](int64_t i, int64_t k) { s = fma(load_n(a + i, k), load_n(b + i, k), s); });
  return kernels::SENNIT_LEVEL::sum(s);
}

void to_bf16(const float* x, uint16_t* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store_bf16(y + i, load(x + i));
  if (i < n) {
    uint16_t last[kLanes];
    store_bf16(last, load_part(x + i, n - i));
    for (int64_t j = 0; i + j < n; ++j) y[i + j] = last[j];
  }
}
void from_bf16(const uint16_t* x, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, load_bf16(x + i));
  for (; i < n; ++i) y[i] = __builtin_bit_cast(float, uint32_t{x[i]} << 16);
}

}  // namespace

const Elementwise elementwise_table = {
    .complement = map<f_complement>,
    .complement_gradient = gradient<d_complement>,
    .exp = map<f_exp>,
    .log = map<f_log>,
    .sigmoid = map<f_sigmoid>,
    .silu = map<f_silu>,
    .gelu = map<f_gelu>,
    .gelu_erf = map<f_gelu_erf>,
    .relu = map<f_relu>,
    .relu2 = map<f_relu2>,
    .tanh = map<f_tanh>,
    .softplus = map<f_softplus>,
    .sine = map<f_sine>,
    .sigmoid_gradient = gradient<d_sigmoid>,
    .silu_gradient = gradient<d_silu>,
    .gelu_gradient = gradient<d_gelu>,
    .gelu_erf_gradient = gradient<d_gelu_erf>,
    .relu_gradient = gradient<d_relu>,
    .relu2_gradient = gradient<d_relu2>,
    .tanh_gradient = gradient<d_tanh>,
    .softplus_gradient = gradient<f_sigmoid>,
    .sine_gradient = gradient<d_sine>,
    .swiglu = swiglu,
    .swiglu_gradient = swiglu_gradient,
    .add = add,
    .multiply = multiply,
    .multiply_add = multiply_add,
    .axpy = axpy,
    .affine = affine,
    .sum = sum_of,
    .sum_squares = sum_squares,
    .dot = dot,
    .to_bf16 = to_bf16,
    .from_bf16 = from_bf16,
};

}  // namespace sennit::kernels::SENNIT_LEVEL
