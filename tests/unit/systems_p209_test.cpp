// HLA (Zhang et al., arXiv:2510.27258): the stream of running sums is the masked product of attention matrices, pieces
// of a sequence join by an operator that is associative, and a token costs the same however late it comes.
#include <gtest/gtest.h>

#include "support/mixer_timing.h"

namespace sennit::systems_p209_test {

constexpr int64_t kDim = 16, kHeads = 2, kHead = kDim / kHeads;

Json with(const Json& options) {
  Json part = {{"name", "hla"}, {"heads", kHeads}};
  part.update(options);
  return part;
}
const std::vector<Json> kFading = {{{"decay", false}}, {{"keep", 0.9}}};

naive::Weights weights_of(Mixer& mixer) {
  naive::Weights w;
  mixer.parameters([&](const std::string& name, Parameter& p) {
    const Tensor& t = p.value();
    naive::Matrix m = t.rank() == 1 ? naive::Matrix(1, t.elements()) : naive::Matrix(t.rows(), t.row_size());
    for (int64_t i = 0; i < t.elements(); ++i) m.a[static_cast<size_t>(i)] = t.data()[i];
    w[name] = m;
  });
  return w;
}

// The product as the paper writes it, of n x n matrices in double: [i][j] of each head.
std::vector<double> product(const naive::Matrix& q, const naive::Matrix& k, int64_t head, double g,
                            const std::string& form) {
  const int64_t n = q.rows;
  const auto at = [n](int64_t i, int64_t j) { return static_cast<size_t>(i * n + j); };
  std::vector<double> w(static_cast<size_t>(n * n)), symmetric(w.size()), y(w.size());
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j <= i; ++j)
      for (int64_t c = head * kHead; c < (head + 1) * kHead; ++c)
        w[at(i, j)] += q(i, c) * k(j, c) / std::sqrt(double{kHead});
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j <= i; ++j)
      for (int64_t s = 0; s <= j; ++s)  // S and C fade from s and j to i
        symmetric[at(i, j)] += w[at(i, s)] * w[at(j, s)] * std::pow(g, static_cast<double>(2 * i - s - j));
  if (form == "symmetric") return symmetric;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j <= i; ++j) w[at(i, j)] *= std::pow(g, static_cast<double>(i - j));
  const auto& left = form == "third" ? symmetric : w;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t s = 0; s <= i; ++s)
      for (int64_t j = 0; j <= s; ++j) y[at(i, j)] += left[at(i, s)] * w[at(s, j)];
  return y;
}

TEST(SystemsP209, TheStreamIsTheMaskedProductOfMatrices) {
  const int64_t n = 100;
  const Tensor rows = normal_rows(n, kDim, 8);
  naive::Matrix x(n, kDim);
  std::copy(rows.span().begin(), rows.span().end(), x.a.begin());
  for (const char* form : {"symmetric", "asymmetric", "third"})
    for (Json part : kFading) {
      part["form"] = form;
      auto mixer = make_mixer(with(part), kDim, 7);
      const naive::Weights w = weights_of(*mixer);
      NaiveRun run{w, x};
      const naive::Matrix stream = mixer->naive(run), v = naive::linear(x, w, "v");
      naive::Matrix core(n, kDim);
      for (int64_t h = 0; h < kHeads; ++h) {
        const auto weights =
            product(naive::linear(x, w, "q"), naive::linear(x, w, "k"), h, part.value("keep", 1.0), form);
        for (int64_t i = 0; i < n; ++i)
          for (int64_t j = 0; j <= i; ++j)
            for (int64_t c = h * kHead; c < (h + 1) * kHead; ++c)
              core(i, c) += weights[static_cast<size_t>(i * n + j)] * v(j, c);
      }
      const naive::Matrix square = naive::linear(naive::rmsnorm(core, 1, 1e-5, &w.at("norm")), w, "out");
      double size = 0, apart = 0;
      for (size_t i = 0; i < square.a.size(); ++i)
        size = std::max(size, std::fabs(square.a[i])), apart = std::max(apart, std::fabs(square.a[i] - stream.a[i]));
      EXPECT_LE(apart / size, 1e-9) << form << " " << json_text(part);
      Tensor want({n, kDim});
      std::copy(square.a.begin(), square.a.end(), want.data());
      EXPECT_LE(most_apart(run_alone(*mixer, rows), want), 1e-4) << form << " " << json_text(part);
    }
}

TEST(SystemsP209, DividedWeightsSumToOne) {
  NoGrad off;
  for (const char* form : {"symmetric", "asymmetric"}) {
    auto mixer = make_mixer(with({{"form", form}, {"divide", true}, {"keep", 0.9}}), kDim);
    const Tensor x = normal_rows(90, kDim, 3);
    EXPECT_LE(most_apart(run_alone(*mixer, x), run_square(*mixer, x)), 1e-4);
    const Tensor w = mixer->implicit(Var(x), {})->weights;
    for (int64_t i = 0; i < kHeads * 90; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < 90; ++j) {
        ASSERT_GE(w.data()[i * 90 + j], 0);
        sum += w.data()[i * 90 + j];
      }
      ASSERT_NEAR(sum, 1, 1e-5);
    }
  }
}

TEST(SystemsP209, ChunksAreTheSerialStream) {
  const int64_t n = 320;
  const Tensor x = normal_rows(n, kDim, 8);
  for (const char* form : {"symmetric", "asymmetric", "third"})
    for (Json part : kFading) {
      part["form"] = form;
      auto mixer = make_mixer(with(part), kDim, 7);
      SequenceState serial;
      const Tensor want = run_stepwise(*mixer, x, serial);
      for (const int64_t chunk : {16, 64}) {
        SequenceState state;
        for (int64_t t = 0; t < n; t += chunk)
          EXPECT_LE(most_apart(run_alone(*mixer, x.slice(t, chunk).clone(), &state), want.slice(t, chunk)), 1e-5)
              << form << " " << json_text(part) << " " << t;
      }
    }
}

// What a piece of a sequence, run from nothing, adds to whatever came before: S, C and G of one head in double.
struct Piece {
  std::vector<double> S, C, G;
  double fade;  // of all its tokens
};
Piece operator*(const Piece& a, const Piece& b) {
  Piece y{a.S, a.C, a.G, a.fade * b.fade};
  for (size_t i = 0; i < y.S.size(); ++i) {
    y.S[i] = b.fade * a.S[i] + b.S[i];
    y.C[i] = b.fade * a.C[i] + b.C[i];
    y.G[i] = b.fade * b.fade * a.G[i] + b.G[i];
    for (size_t r = 0; r < kHead; ++r)
      y.G[i] += b.fade * b.S[i / kHead * kHead + r] * a.C[r * kHead + i % kHead] / std::sqrt(double{kHead});
  }
  return y;
}
double apart(const Piece& a, const Piece& b) {
  double most = 0;
  for (const auto member : {&Piece::S, &Piece::C, &Piece::G}) {
    double size = 0, far = 0;
    for (size_t i = 0; i < (a.*member).size(); ++i)
      size = std::max(size, std::fabs((b.*member)[i])), far = std::max(far, std::fabs((a.*member)[i] - (b.*member)[i]));
    most = std::max(most, far / size);
  }
  return most;
}

TEST(SystemsP209, PiecesJoinByAnAssociativeOperator) {
  for (const Json& part : kFading) {
    auto mixer = make_mixer(with(part), kDim, 7);
    const Tensor x = normal_rows(120, kDim, 9);
    const auto piece = [&](int64_t begin, int64_t count) {
      SequenceState state;
      run_alone(*mixer, x.slice(begin, count).clone(), &state);
      Piece p;
      for (auto [member, field] : {std::pair{&Piece::S, 0}, {&Piece::C, 1}, {&Piece::G, 3}}) {
        const float* of = state.layer(0).get(static_cast<size_t>(field)).value().data();
        (p.*member).assign(of, of + kHead * kHead);
      }
      p.fade = std::pow(part.value("keep", 1.0), static_cast<double>(count));
      return p;
    };
    const Piece a = piece(0, 37), b = piece(37, 16), c = piece(53, 67);
    EXPECT_LE(apart((a * b) * c, a * (b * c)), 1e-6);
    EXPECT_LE(apart(a * b, piece(0, 53)), 1e-5);
    EXPECT_LE(apart(a * b * c, piece(0, 120)), 1e-5);
  }
}

TEST(SystemsP209, AStateOfConstantSize) {
  for (const char* form : {"symmetric", "asymmetric", "third"}) {
    auto mixer = make_mixer(with({{"form", form}}), kDim);
    int64_t bytes[2];
    for (const bool longer : {false, true}) {
      SequenceState state;
      run_alone(*mixer, normal_rows(longer ? 500 : 20, kDim, 1), &state);
      bytes[longer] = state.bytes();
    }
    EXPECT_EQ(bytes[0], bytes[1]);
  }
}

TEST(SpeedP209, TokensCostTheSameAndSequencesGrowLinearly) {
  const Json part = {{"name", "hla"}, {"heads", 4}};
  const double step = step_ratio(part, 128, 16384, 1024), growth = time_ratio(part, 128, 16384, 4096);
  std::printf("a token after 16384: %.3f times one after 1024; 16384 tokens: %.2f times 4096\n", step, growth);
  EXPECT_NEAR(step, 1, 0.1);
  EXPECT_GE(growth, 3.5);
  EXPECT_LE(growth, 4.8);
}

}  // namespace sennit::systems_p209_test
