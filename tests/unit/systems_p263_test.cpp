// Low-rank sparse recurrences (Tumma et al., arXiv:2310.03915): what they are, and how they steer.
#include <gtest/gtest.h>

#include <array>

#include "mixers/masked_feedback.h"
#include "support/mixers.h"
#include "support/regression.h"

namespace sennit::systems_p263_test {

using mixers::MaskedFeedback;

// With one factor the identity, the other is the matrix.
TEST(SystemsP263, FullRankWithoutAMaskIsTheStandardCell) {
  constexpr int64_t kWidth = 16, kHeads = 2, kDim = kWidth / kHeads;
  for (const Json& cell : {Json{{"name", "cfc"}}, Json{{"name", "rnn"}, {"cell", "elman"}},
                           Json{{"name", "rnn"}, {"cell", "lstm"}}, Json{{"name", "rnn"}, {"cell", "gru"}}}) {
    Json part = cell;
    part["heads"] = kHeads;
    auto full = make_mixer(part, kWidth);
    part["rank"] = kDim;
    auto factors = make_mixer(part, kWidth, 2);
    full->parameters([&](const std::string& name, Parameter& p) {
      if (name != "feedback") parameter_of(*factors, name).var.value().copy_from(p.value());
    });
    const Tensor& f = parameter_of(*full, "feedback").value();
    Tensor &left = parameter_of(*factors, "left").var.value(), &right = parameter_of(*factors, "right").var.value();
    const int64_t gates = f.row_size() / kDim;
    for (int64_t row = 0; row < left.rows(); ++row)
      for (int64_t p = 0; p < kDim; ++p) {
        const int64_t head = row / (gates * kDim), gate = row / kDim % gates, i = row % kDim;
        left.data()[row * kDim + p] = f.data()[(head * kDim + i) * gates * kDim + gate * kDim + p];
        right.data()[row * kDim + p] = i == p ? 1 : 0;
      }
    const Tensor x = normal_rows(60, kWidth, 3);
    EXPECT_LE(most_apart(run_alone(*factors, x), run_alone(*full, x)), 1e-6) << json_text(cell);
  }
}

TEST(SystemsP263, AMatrixOfRankRHasTwoHROfParameters) {
  constexpr int64_t kWidth = 32, kRank = 4;
  for (const auto& [part, gates] : {std::pair{Json{{"name", "cfc"}}, 1},
                                    {Json{{"name", "rnn"}, {"cell", "elman"}}, 1},
                                    {Json{{"name", "rnn"}, {"cell", "gru"}}, 3},
                                    {Json{{"name", "rnn"}}, 4}}) {
    Json one = part;
    one["heads"] = 1;
    const int64_t full = make_mixer(one, kWidth)->parameter_count();
    one["rank"] = kRank;
    EXPECT_EQ(full - make_mixer(one, kWidth)->parameter_count(), gates * (kWidth * kWidth - 2 * kWidth * kRank))
        << json_text(part);
  }
}

double spectral_norm(const Tensor& r) {
  const int64_t n = r.rows();
  std::vector<double> x(static_cast<size_t>(n), 1), y(x.size());
  double size = 0;
  for (int round = 0; round < 60; ++round) {
    std::fill(y.begin(), y.end(), 0);
    for (int64_t a = 0; a < n; ++a)
      for (int64_t b = 0; b < n; ++b) y[a] += r.data()[a * n + b] * x[b];
    std::fill(x.begin(), x.end(), 0);
    for (int64_t a = 0; a < n; ++a)
      for (int64_t b = 0; b < n; ++b) x[b] += r.data()[a * n + b] * y[a];
    size = 0;
    for (const double v : x) size += v * v;
    size = std::sqrt(size);
    for (double& v : x) v /= size;
  }
  return std::sqrt(size);
}
MaskedFeedback feedback_of(int64_t dim, int64_t rank, double sparsity, uint64_t seed) {
  MaskedFeedback::Options options;
  options.rank = rank, options.sparsity = sparsity;
  return MaskedFeedback("test", options, {.d_model = dim}, 1, 1, 1 / std::sqrt(static_cast<double>(dim)), Rng(seed));
}

TEST(SystemsP263, NormsFallWithLowerRankAndHigherSparsity) {
  constexpr int64_t kDim = 32;
  constexpr int kRanks[] = {32, 16, 8, 4, 2, 1}, kSeeds = 10;
  constexpr double kSparsities[] = {0, 0.25, 0.5, 0.75};
  double norms[std::size(kRanks)][std::size(kSparsities)] = {};
  for (size_t r = 0; r < std::size(kRanks); ++r)
    for (size_t s = 0; s < std::size(kSparsities); ++s) {
      for (uint64_t seed = 1; seed <= kSeeds; ++seed)
        norms[r][s] += spectral_norm(feedback_of(kDim, kRanks[r], kSparsities[s], seed).matrix().value()) / kSeeds;
      if (r > 0) {
        EXPECT_LT(norms[r][s], norms[r - 1][s]) << kRanks[r] << " " << kSparsities[s];
      }
      if (s > 0) {
        EXPECT_LT(norms[r][s], norms[r][s - 1]) << kRanks[r] << " " << kSparsities[s];
      }
      std::printf("%s%.3f", s ? " " : "", norms[r][s]);
      if (s + 1 == std::size(kSparsities)) std::printf("  rank %d\n", kRanks[r]);
    }
}

TEST(SystemsP263, MaskedEntriesStayZero) {
  constexpr int64_t kDim = 16;
  for (const char* name : {"cfc", "rnn"}) {
    const Json part{{"name", name}, {"heads", 1}, {"rank", 3}, {"sparsity", 0.6}};
    auto mixer = make_mixer(part, kDim), other = make_mixer(part, kDim, 2);  // one draw of zeros whatever the weights
    const int64_t gates = parameter_of(*mixer, "left").value().rows() / kDim;
    MaskedFeedback::Options options;
    options.rank = 3, options.sparsity = 0.6;
    const auto matrix_of = [&](Mixer& m) {  // from the mixer's own factors
      MaskedFeedback f("test", options, {.d_model = kDim}, 1, gates, 1, Rng(3));
      f.parameters([&](const std::string& p, Parameter& q) { q.var.value().copy_from(parameter_of(m, p).value()); });
      return f.matrix().value();
    };
    const Tensor fresh = matrix_of(*other);
    const Context context;
    const Segment whole[] = {{0, 30, 0, nullptr}};
    for (int step = 0; step < 3; ++step) {
      mixer->parameters([](const std::string&, Parameter& p) { p.var.clear_grad(); });
      const Var y = mixer->forward(Var(normal_rows(30, kDim, 8)), {whole, &context});
      backward(sum(y * y));
      mixer->parameters([](const std::string&, Parameter& p) {
        for (int64_t i = 0; i < p.value().elements(); ++i) p.var.value().data()[i] -= 0.05f * p.var.grad().data()[i];
        ++p.version;
      });
    }
    const Tensor trained = matrix_of(*mixer);
    double zeros = 0;
    for (int64_t i = 0; i < fresh.elements(); ++i) {
      zeros += fresh.data()[i] == 0;
      EXPECT_EQ(trained.data()[i] == 0, fresh.data()[i] == 0) << name << " " << i;
    }
    EXPECT_NEAR(zeros / static_cast<double>(fresh.elements()), 0.6, 0.1) << name;
  }
}

// What is masked is not felt: moving the state along an entry of R that is 0 moves nothing.
TEST(SystemsP263, ACellReadsNothingThroughAMaskedEntry) {
  constexpr int64_t kDim = 12;
  MaskedFeedback::Options options;
  options.sparsity = 0.5;
  MaskedFeedback f("test", options, {.d_model = kDim}, 1, 1, 1, Rng(1));
  const Tensor r = f.matrix().value();
  auto mixer = make_mixer({{"name", "rnn"}, {"cell", "elman"}, {"heads", 1}, {"sparsity", 0.5}}, kDim);
  Tensor& out = parameter_of(*mixer, "out.weight").var.value();
  out.fill(0);
  for (int64_t i = 0; i < kDim; ++i) out.data()[i * kDim + i] = 1;
  const auto step = [&](int64_t from) {
    SequenceState state;
    Tensor h = Tensor::zeros({1, 1, kDim});
    if (from >= 0) h.data()[from] = 0.5f;
    state.layer(0).set(0, Var(h));
    return run_alone(*mixer, Tensor::zeros({1, kDim}), &state);
  };
  const Tensor still = step(-1);
  for (int64_t j = 0; j < kDim; ++j) {
    const Tensor moved = step(j);
    for (int64_t c = 0; c < kDim; ++c)
      EXPECT_EQ(moved.data()[c] == still.data()[c], r.data()[j * kDim + c] == 0) << j << " " << c;
  }
}

// A pole on a cart: position, speed, angle, turning (Barto, Sutton & Anderson, 1983).
using State = std::array<double, 4>;
State after(const State& s, double force) {
  constexpr double kCart = 1, kPole = 0.1, kHalf = 0.5, kGravity = 9.8, kStep = 0.04;
  const double sine = std::sin(s[2]), cosine = std::cos(s[2]), mass = kCart + kPole;
  const double pushed = (force + kPole * kHalf * s[3] * s[3] * sine) / mass;
  const double turned = (kGravity * sine - cosine * pushed) / (kHalf * (4.0 / 3 - kPole * cosine * cosine / mass));
  const double speed = s[1] + kStep * (pushed - kPole * kHalf * turned * cosine / mass),
               turning = s[3] + kStep * turned;
  return {s[0] + kStep * speed, speed, s[2] + kStep * turning, turning};
}
// The gains of the linear quadratic regulator around rest, by Riccati's iteration.
State regulator() {
  constexpr double kCosts[] = {1, 0.1, 5, 0.1}, kForce = 0.05, kSmall = 1e-5;
  double a[4][4], b[4], p[4][4] = {};
  for (int j = 0; j < 4; ++j) {
    State s{};
    s[static_cast<size_t>(j)] = kSmall;
    const State moved = after(s, 0);
    for (int i = 0; i < 4; ++i) a[i][j] = moved[static_cast<size_t>(i)] / kSmall;
  }
  const State pushed = after({}, kSmall);
  for (int i = 0; i < 4; ++i) b[i] = pushed[static_cast<size_t>(i)] / kSmall;
  State gains{};
  for (int round = 0; round < 600; ++round) {
    double pa[4][4] = {}, pb[4] = {}, weight = kForce;
    for (int i = 0; i < 4; ++i)
      for (int k = 0; k < 4; ++k) {
        pb[i] += p[i][k] * b[k];
        for (int j = 0; j < 4; ++j) pa[i][j] += p[i][k] * a[k][j];
      }
    for (int i = 0; i < 4; ++i) weight += b[i] * pb[i];
    for (int j = 0; j < 4; ++j) {
      gains[static_cast<size_t>(j)] = 0;
      for (int i = 0; i < 4; ++i) gains[static_cast<size_t>(j)] += b[i] * pa[i][j] / weight;
    }
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) {
        p[i][j] = i == j ? kCosts[i] : 0;
        for (int k = 0; k < 4; ++k) p[i][j] += a[k][i] * (pa[k][j] - pb[k] * gains[static_cast<size_t>(j)]);
      }
  }
  return gains;
}
double push_of(const State& gains, const State& s) {
  double force = 0;
  for (size_t i = 0; i < 4; ++i) force -= gains[i] * s[i];
  return std::clamp(force, -20.0, 20.0);
}
State drawn_start(Rng& rng) {
  State s{};
  constexpr double kSpreads[] = {1, 0.5, 0.15, 0.4};
  for (size_t i = 0; i < 4; ++i) s[i] = kSpreads[i] * (2 * rng.uniform() - 1);
  return s;
}
void observe(const State& s, double noise, Rng& rng, float* row) {
  for (size_t i = 0; i < 4; ++i) row[i] = static_cast<float>(s[i] + noise * rng.normal());
}

constexpr double kForceUnit = 10;
// What the regulator did from some starts, pushed about by chance, and what good sensors said.
regression::Series demonstrations(const State& gains, int64_t count, int64_t length, Rng rng) {
  regression::Series all = regression::series(count, length, 4, 1, true);
  for (int64_t e = 0; e < count; ++e) {
    State s = drawn_start(rng);
    for (int64_t t = 0; t < length; ++t) {
      observe(s, 0, rng, all.inputs.data() + (e * length + t) * 4);
      const double force = push_of(gains, s);
      all.answers.data()[e * length + t] = static_cast<float>(force / kForceUnit);
      s = after(s, force + 2 * rng.normal());
    }
  }
  return all;
}
// The mean of a step's reward, in [0, 1]: near the middle and upright; a pole that fell earns nothing more.
double closed_loop(regression::Follower& policy, double noise) {
  constexpr int64_t kEpisodes = 20, kSteps = 150;
  NoGrad off;
  const Context context;
  Rng rng(77);
  std::vector<State> at;
  std::vector<SequenceState> states(kEpisodes);
  regression::Series s = regression::series(kEpisodes, 1, 4, 1, true);
  for (int64_t e = 0; e < kEpisodes; ++e) at.push_back(drawn_start(rng)), s.segments[e].state = &states[e];
  double total = 0;
  std::vector<bool> fallen(kEpisodes);
  for (int64_t t = 0; t < kSteps; ++t) {
    for (int64_t e = 0; e < kEpisodes; ++e)
      observe(at[e], noise, rng, s.inputs.data() + e * 4), s.segments[e].position = t;
    const Tensor said = policy.answers(s, context).value();
    for (int64_t e = 0; e < kEpisodes; ++e) {
      at[e] = after(at[e], std::clamp(kForceUnit * said.data()[e], -20.0, 20.0));
      fallen[e] = fallen[e] || std::fabs(at[e][2]) > 0.8 || std::fabs(at[e][0]) > 4;
      if (!fallen[e]) total += std::exp(-at[e][0] * at[e][0] - 5 * at[e][2] * at[e][2]);
    }
  }
  return total / (kEpisodes * kSteps);
}

// Taught with good sensors, then steering with noisy ones too.
TEST(SystemsP263, TrainedToBalanceAPole) {
  constexpr int64_t kWidth = 32;
  const State gains = regulator();
  constexpr double kNoises[] = {0, 0.1, 0.2, 0.4};
  double returns[2][std::size(kNoises)] = {};
  for (const bool low : {false, true}) {
    Json mixer{{"name", "cfc"}, {"heads", 1}};
    if (low) mixer["rank"] = kWidth / 8, mixer["sparsity"] = 0.5;
    for (uint64_t seed = 1; seed <= 5; ++seed) {
      regression::Follower policy(
          {.mixer = mixer, .inputs = 4, .outputs = 1, .width = kWidth, .steps = 300, .rate = 1e-2, .seed = seed});
      policy.train([&](Rng rng) { return demonstrations(gains, 8, 50, rng); });
      std::printf("%s, seed %d:", low ? "rank 4, half masked" : "full", static_cast<int>(seed));
      for (size_t i = 0; i < std::size(kNoises); ++i) {
        const double earned = closed_loop(policy, kNoises[i]);
        returns[low][i] += earned / 5;
        std::printf("  %.4f", earned);
      }
      std::printf("\n");
    }
  }
  for (size_t i = 0; i < std::size(kNoises); ++i)
    std::printf("noise %.1f: full %.4f, rank 4 and half masked %.4f\n", kNoises[i], returns[0][i], returns[1][i]);
  EXPECT_GE(returns[0][0], 0.5);
  EXPECT_GE(returns[1][0], 0.95 * returns[0][0]);
  double noisy[2] = {};
  for (size_t i = 1; i < std::size(kNoises); ++i)
    for (const bool low : {false, true}) noisy[low] += returns[low][i];
  EXPECT_GE(noisy[1], noisy[0]);
}

}  // namespace sennit::systems_p263_test
