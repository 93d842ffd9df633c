#pragma once
#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/rng.h"
#include "mixers/mixer.h"

// What the tests of single mixers share: making them, running them whole, and comparing.
namespace sennit {

inline std::unique_ptr<Mixer> make_mixer(Json part, int64_t d_model, uint64_t seed = 1) {
  return mixers::registry().make(part, {.d_model = d_model}, Rng(seed), "test");
}

inline Tensor normal_rows(int64_t n, int64_t d, uint64_t seed) {
  Tensor t({n, d});
  Rng rng(seed);
  for (float& x : t.span()) x = static_cast<float>(rng.normal());
  return t;
}

inline Tensor run_alone(Mixer& mixer, const Tensor& x, SequenceState* state = nullptr,
                        Pattern pattern = Pattern::causal) {
  NoGrad off;
  const Context context;
  const Segment whole[] = {{0, x.rows(), state ? state->position : 0, state}};
  const Tensor y = mixer.forward(Var(x), {whole, &context, pattern}).value();
  if (state) state->position += x.rows();
  return y;
}

// Token by token, with a state.
inline Tensor run_stepwise(Mixer& mixer, const Tensor& x, SequenceState& state) {
  Tensor y(x.shape());
  for (int64_t t = 0; t < x.rows(); ++t) y.slice(t, 1).copy_from(run_alone(mixer, x.slice(t, 1).clone(), &state));
  return y;
}

// By the explicit matrix: every pair of tokens by itself.
inline Tensor run_square(Mixer& mixer, const Tensor& x) {
  NoGrad off;
  const auto m = mixer.implicit(Var(x), {});
  const int64_t n = x.rows(), heads = m->weights.shape(0), width = m->values.row_size(), dim = width / heads;
  std::vector<double> sums(static_cast<size_t>(width));
  Tensor core({n, width});
  for (int64_t i = 0; i < n; ++i) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for (int64_t c = 0; c < width; ++c)
      for (int64_t j = 0; j <= i; ++j)
        sums[static_cast<size_t>(c)] +=
            double{m->weights.data()[(c / dim * n + i) * n + j]} * m->values.data()[j * width + c];
    std::copy(sums.begin(), sums.end(), core.data() + i * width);
  }
  return mixer.output(Var(x), Var(core), {}).value();
}

inline double most_apart(const Tensor& a, const Tensor& b) {  // relative to the largest number
  double most = 0, size = 1e-30;
  for (int64_t i = 0; i < a.elements(); ++i) {
    most = std::fmax(most, std::fabs(double{a.data()[i]} - b.data()[i]));
    size = std::fmax(size, std::fabs(double{b.data()[i]}));
  }
  return most / size;
}

inline Parameter& parameter_of(Module& module, const std::string& name) {
  Parameter* found = nullptr;
  module.parameters([&](const std::string& n, Parameter& p) {
    if (n == name) found = &p;
  });
  SENNIT_CHECK(found, "no parameter {}", name);
  ++found->version;
  return *found;
}

inline void copy_parameters(Mixer& from, Mixer& to, const std::vector<std::string>& names) {
  for (const std::string& name : names) parameter_of(to, name).var.value().copy_from(parameter_of(from, name).value());
}

inline bool same_numbers(const Tensor& a, const Tensor& b) {
  return std::equal(a.span().begin(), a.span().end(), b.span().begin(), b.span().end());
}

// Bytes that a sequence of n tokens leaves behind.
inline int64_t state_bytes(const Json& part, int64_t n) {
  auto mixer = make_mixer(part, 32);
  SequenceState state;
  run_alone(*mixer, normal_rows(n, 32, 1), &state);
  return state.bytes();
}

// That the rows of a mixer's implicit matrices are weights: none below 0, and 1 together.
inline void expect_rows_of_weights(const Json& part) {
  NoGrad off;
  const int64_t n = 60;
  auto mixer = make_mixer(part, 32);
  const Tensor w = mixer->implicit(Var(normal_rows(n, 32, 4)), {})->weights;
  for (int64_t i = 0; i < w.shape(0) * n; ++i) {
    double sum = 0;
    for (int64_t j = 0; j < n; ++j) {
      ASSERT_GE(w.data()[i * n + j], 0);
      sum += w.data()[i * n + j];
    }
    ASSERT_NEAR(sum, 1, 2e-6);
  }
}

}  // namespace sennit
