// Attention as an adaptive filter (Racioppo, arXiv:2509.04154): keys as noisy observations of linear dynamics.
#include <gtest/gtest.h>

#include <complex>

#include "support/mixer_timing.h"
#include "support/regression.h"

namespace sennit::systems_p223_test {

Json with(const Json& options) {
  Json part = {{"name", "adaptive_filter"}};
  part.update(options);
  return part;
}
double inverse_softplus(double x) {
  return std::log(std::expm1(x));
}
void set_noise(Mixer& mixer, double rate, double sigma, double eta, double gamma) {
  for (const auto& [name, value] : {std::pair{"rate", rate}, {"sigma", sigma}, {"eta", eta}, {"gamma", gamma}})
    parameter_of(mixer, name).var.value().fill(static_cast<float>(inverse_softplus(value)));
}
// Maps that leave rows as they are.
void make_plain(Mixer& mixer, const std::vector<std::string>& maps) {
  for (const std::string& name : maps) {
    Tensor& w = parameter_of(mixer, name + ".weight").var.value();
    w.fill(0);
    for (int64_t i = 0; i < w.rows(); ++i) w.data()[i * w.row_size() + i] = 1;
  }
}

// Every key carried to every query by the exponential of the dynamics, as complex numbers: pair c of a head is channels
// c and c + dim / 2, and turns backwards.
constexpr int64_t kPairs = 3;
struct Dynamics {
  double rate, turn, sigma, eta, gamma;
  std::complex<double> carried(std::complex<double> z, double lag) const {
    return z * std::exp(-std::complex(rate, turn) * lag);
  }
  double precision(double lag) const {
    const double left = std::exp(-2 * rate * lag);
    return 1 / (sigma * (1 - left) / (2 * rate) + eta * left + gamma);
  }
};
Tensor by_pairs(const Tensor& x, const std::array<Dynamics, kPairs>& dynamics, double nu, bool exponential) {
  Tensor y(x.shape());
  const auto at = [&](int64_t t, int64_t c) {
    const float* row = x.data() + t * 2 * kPairs;
    return std::complex<double>(row[c], row[c + kPairs]);
  };
  for (int64_t i = 0; i < x.rows(); ++i) {
    std::array<std::complex<double>, kPairs> sum = {};
    std::array<double, kPairs> total = {};
    for (int64_t j = 0; j <= i; ++j) {
      const auto lag = static_cast<double>(i - j);
      double residual = 0;
      for (int64_t c = 0; c < kPairs; ++c)
        residual += std::norm(at(i, c) - dynamics[c].carried(at(j, c), lag)) * dynamics[c].precision(lag);
      const double w = exponential ? std::exp(-residual / nu) : 1 / (1 + residual / nu);
      for (int64_t c = 0; c < kPairs; ++c) {
        const double weight = w * dynamics[c].precision(lag);
        total[c] += weight, sum[c] += weight * dynamics[c].carried(at(j, c), lag);
      }
    }
    for (int64_t c = 0; c < kPairs; ++c) {
      y.data()[i * 2 * kPairs + c] = static_cast<float>(sum[c].real() / total[c]);
      y.data()[i * 2 * kPairs + c + kPairs] = static_cast<float>(sum[c].imag() / total[c]);
    }
  }
  return y;
}

TEST(SystemsP223, IsTheSumOverPairsOfResiduals) {
  constexpr double kNu = 5, kBase = 30;
  const Tensor x = normal_rows(60, 2 * kPairs, 2);
  for (const char* form : {"isotropic", "diagonal"})
    for (const char* weights : {"robust", "exponential"}) {
      const auto mixer = make_mixer(
          with({{"heads", 1}, {"nu", kNu}, {"base", kBase}, {"weights", weights}, {"form", form}}), 2 * kPairs);
      make_plain(*mixer, {"q", "k", "v", "out"});
      set_noise(*mixer, 0.07, 0.5, 0.3, 0.4);
      std::array<Dynamics, kPairs> dynamics;
      for (int64_t c = 0; c < kPairs; ++c)
        dynamics[c] = {0.07, std::pow(kBase, -static_cast<double>(c) / kPairs), 0.5, 0.3, 0.4};
      const bool exponential = std::string(weights) == "exponential";
      EXPECT_LE(most_apart(run_alone(*mixer, x), by_pairs(x, dynamics, kNu, exponential)), 1e-5) << form << weights;
      if (std::string(form) == "isotropic") continue;
      for (int64_t c = 0; c < kPairs; ++c) {  // with dynamics and noise of each pair's own
        Dynamics& d = dynamics[c];
        d.rate *= static_cast<double>(c + 1), d.sigma /= static_cast<double>(c + 1), d.gamma += static_cast<double>(c);
        for (const auto& [name, value] : {std::pair{"rate", d.rate}, {"sigma", d.sigma}, {"gamma", d.gamma}})
          parameter_of(*mixer, name).var.value().data()[c] = static_cast<float>(inverse_softplus(value));
      }
      EXPECT_LE(most_apart(run_alone(*mixer, x), by_pairs(x, dynamics, kNu, exponential)), 1e-5) << weights;
    }
}

// A state that neither fades nor moves by itself, and rows of length 1: 2 q . k / (nu s) is the score. The filter also
// turns values to the query's time, which attention does not: one that all look alike tells the weights apart from
// that.
TEST(SystemsP223, WithoutFadingAndNoiseItIsSoftmaxAttentionWithRotaryPositions) {
  NoGrad off;
  constexpr int64_t kRows = 100, kDim = 16;
  const double nu = 1, spread = 2 * std::sqrt(static_cast<double>(kDim)) / nu;
  const auto filter = make_mixer(with({{"heads", 1}, {"nu", nu}, {"weights", "exponential"}}), kDim),
             attention = make_mixer({{"name", "softmax"}, {"heads", 1}}, kDim);
  set_noise(*filter, 1e-9, 1e-12, spread / 2, spread / 2);
  for (Mixer* m : {filter.get(), attention.get()}) make_plain(*m, {"q", "k", "v", "out"});
  Tensor x = normal_rows(kRows, kDim, 2);
  for (int64_t t = 0; t < kRows; ++t) {
    double square = 0;
    for (int64_t c = 0; c < kDim; ++c) square += std::pow(x.data()[t * kDim + c], 2);
    for (int64_t c = 0; c < kDim; ++c) x.data()[t * kDim + c] /= static_cast<float>(std::sqrt(square));
  }
  const Tensor a = filter->implicit(Var(x), {})->weights, b = attention->implicit(Var(x), {})->weights;
  EXPECT_LE(most_apart(a, b), 1e-4);
  // And what is computed: rows times the matrices, the filter's turned back.
  EXPECT_LE(most_apart(run_square(*filter, x), run_alone(*filter, x)), 1e-4);
  EXPECT_LE(most_apart(run_square(*attention, x), run_alone(*attention, x)), 1e-4);
}

// With q = 0 and k = 0 a token counts by its age alone: 1 / s_l, s from the differential equation s' = -2 a s +
// sigma^2.
TEST(SystemsP223, TheSpreadSolvesItsEquation) {
  auto mixer = make_mixer({{"name", "adaptive_filter"}, {"heads", 1}}, 2);
  for (const char* name : {"q.weight", "k.weight"}) parameter_of(*mixer, name).var.value().fill(0);
  for (const char* name : {"v.weight", "out.weight"}) {
    Tensor& w = parameter_of(*mixer, name).var.value();
    w.fill(0), w.data()[0] = w.data()[3] = 1;
  }
  const double a = 0.15, sigma = 0.8, eta = 0.3, gamma = 0.2;
  for (const auto& [name, value] : {std::pair{"rate", a}, {"sigma", sigma}, {"eta", eta}, {"gamma", gamma}})
    parameter_of(*mixer, name).var.value().fill(static_cast<float>(std::log(std::expm1(value))));
  constexpr int64_t kRows = 30;
  std::vector<double> spread(kRows);
  double s = eta;
  constexpr int kSteps = 20000;
  for (int64_t l = 0; l < kRows; ++l) {
    spread[l] = s + gamma;
    for (int i = 0; i < kSteps; ++i) {  // Heun
      const double k1 = -2 * a * s + sigma, k2 = -2 * a * (s + k1 / kSteps) + sigma;
      s += (k1 + k2) / (2 * kSteps);
    }
  }
  Tensor x = Tensor::zeros({kRows, 2});
  x.data()[0] = 1;  // one observation, at time 0
  const Tensor y = run_alone(*mixer, x);
  double total = 0;
  for (int64_t t = 0; t < kRows; ++t) {
    total += 1 / spread[t];
    const double size = std::exp(-a * static_cast<double>(t)) / spread[t] / total;  // carried, turned by t
    EXPECT_NEAR(std::hypot(double{y.data()[2 * t]}, double{y.data()[2 * t + 1]}), size, 1e-6) << t;
    EXPECT_NEAR(y.data()[2 * t], size * std::cos(static_cast<double>(t)), 2e-5) << t;
  }
}

// What is seen is a turning, fading state with noise of its own, through noise; what is asked is the next state.
struct Sde {
  static constexpr double kRate = 0.05, kTurn = 0.35, kDiffusion = 0.3, kNoise = 0.7;  // of a step of time 1
  static double fade() { return std::exp(-kRate); }
  static double gained() { return kDiffusion * kDiffusion * (1 - std::exp(-2 * kRate)) / (2 * kRate); }
  static double settled() { return kDiffusion * kDiffusion / (2 * kRate); }  // the variance of a state left alone

  regression::Series asked;    // next observations, which is all that there is to learn from
  std::vector<double> states;  // [rows, 2] next states
  Sde(int64_t count, int64_t length, Rng rng) : asked(regression::series(count, length, 2, 2, true)) {
    using Complex = std::complex<double>;
    const auto noise = [&](double variance) {
      const double a = rng.normal(), b = rng.normal();
      return std::sqrt(variance) * Complex(a, b);
    };
    for (int64_t s = 0; s < count; ++s) {
      Complex z = noise(settled()), seen = z + noise(kNoise * kNoise);
      for (int64_t t = s * length; t < (s + 1) * length; ++t) {
        asked.inputs.data()[2 * t] = static_cast<float>(seen.real());
        asked.inputs.data()[2 * t + 1] = static_cast<float>(seen.imag());
        z = z * std::polar(fade(), kTurn) + noise(gained());
        seen = z + noise(kNoise * kNoise);
        states.push_back(z.real()), states.push_back(z.imag());
        asked.answers.data()[2 * t] = static_cast<float>(seen.real());
        asked.answers.data()[2 * t + 1] = static_cast<float>(seen.imag());
      }
    }
  }
  // The mean square of what predictions of the next state miss.
  double missed(const Tensor& said) const {
    double sum = 0;
    for (int64_t i = 0; i < said.elements(); ++i) sum += std::pow(said.data()[i] - states[static_cast<size_t>(i)], 2);
    return sum / static_cast<double>(said.elements());
  }
  // What the Kalman filter says that knows all of the above. The variance is the same in both directions.
  Tensor kalman() const {
    Tensor said(asked.answers.shape());
    for (const Segment& s : asked.segments) {
      std::complex<double> z = 0;
      double variance = settled();
      for (int64_t t = s.begin; t < s.begin + s.length; ++t) {
        const std::complex<double> seen(asked.inputs.data()[2 * t], asked.inputs.data()[2 * t + 1]);
        const double gain = variance / (variance + kNoise * kNoise);
        z = (z + gain * (seen - z)) * std::polar(fade(), kTurn);
        variance = fade() * fade() * (1 - gain) * variance + gained();
        said.data()[2 * t] = static_cast<float>(z.real()), said.data()[2 * t + 1] = static_cast<float>(z.imag());
      }
    }
    return said;
  }
};

TEST(SystemsP223, TrainedToFollowAnSdeNearlyAsTheKalmanFilterDoes) {
  constexpr int64_t kLength = 64, kSteps = 800;
  const Sde kept(200, kLength, Rng(77));
  const double best = kept.missed(kept.kalman());
  const auto error_of = [&](const Json& mixer) {
    regression::Follower follower({.mixer = mixer, .inputs = 2, .outputs = 2, .width = 16, .steps = kSteps});
    follower.train([&](Rng rng) { return Sde(16, kLength, rng).asked; });
    NoGrad off;
    const double error = kept.missed(follower.answers(kept.asked, {}).value());
    std::printf("%s: %.4f, %.3f of the Kalman filter's %.4f\n", json_text(mixer).c_str(), error, error / best, best);
    return error;
  };
  const double filter = error_of(with({{"heads", 4}, {"angles", "learned"}, {"base", 10}})),
               attention = error_of({{"name", "softmax"}, {"heads", 4}});
  EXPECT_LE(filter, 1.15 * best);
  EXPECT_LT(filter, attention);
}

TEST(SpeedP223, AtMostAHalfMoreThanAttention) {
  for (const int64_t n : {1024, 4096}) {
    const double ratio = time_against(with({{"heads", 4}}), {{"name", "softmax"}, {"heads", 4}}, 256, n);
    std::printf("%lld tokens: %.2f of the time of softmax attention\n", static_cast<long long>(n), ratio);
    EXPECT_LE(ratio, 1.5);
  }
}

}  // namespace sennit::systems_p223_test
