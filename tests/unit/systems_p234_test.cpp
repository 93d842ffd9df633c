// Fourier position embedding (Hua et al., arXiv:2412.17739): clipped rotary embedding without noise, and texts longer
// than those of training.
#include <gtest/gtest.h>

#include "positions/position.h"
#include "sequence/rotary.h"
#include "support/mixer_timing.h"
#include "support/planted.h"

namespace sennit::systems_p234_test {

constexpr int64_t kHeads = 4, kHeadDim = 32, kPairs = kHeadDim / 2, kWidth = kHeads * kHeadDim;

std::unique_ptr<Position> fope(Json options, int64_t head_dim = kHeadDim) {
  options["name"] = "fope";
  return positions::registry().make(options, {kHeads, head_dim}, Rng(), "test");
}
Tensor turned(const Position& position, const Tensor& x, int64_t first) {
  NoGrad off;
  const Segment whole[] = {{0, x.rows(), first, nullptr}};
  return position.turn(Var(x), whole, kHeads).value();
}
std::vector<double> clipped_frequencies(double length) {
  std::vector<double> all;
  for (int64_t i = 0; i < kPairs; ++i) {
    const double w = std::pow(10000, -static_cast<double>(i) / kPairs);
    all.push_back(w < 2 * M_PI / length ? 0 : w);
  }
  return all;
}

TEST(SystemsP234, WithoutNoiseItIsRotaryEmbeddingWithClippedFrequencies) {
  NoGrad off;
  const Tensor x = normal_rows(600, kWidth, 1);
  const Segment whole[] = {{0, 600, 0, nullptr}};
  const auto frequencies = clipped_frequencies(256);
  EXPECT_GT(std::count(frequencies.begin(), frequencies.end(), 0.0), 0);
  const Tensor want = rotary(Var(x), whole, {.heads = kHeads, .dims = kHeadDim, .frequencies = frequencies}).value();
  EXPECT_LE(most_apart(turned(*fope({{"length", 256}}), x, 0), want), 1e-6);
}

// How far the scores of a query and a key move when both stand `shift` later, as a part of the largest score.
double moved_scores(const Position& position, int64_t shift) {
  const Tensor q = normal_rows(64, kWidth, 2), k = normal_rows(64, kWidth, 3);
  const auto scores = [&](int64_t first) {
    const Tensor a = turned(position, q, first + 64), b = turned(position, k, first);
    Tensor s({64, kHeads});
    for (int64_t i = 0; i < 64; ++i)
      for (int64_t h = 0; h < kHeads; ++h) {
        double sum = 0;
        for (int64_t c = h * kHeadDim; c < (h + 1) * kHeadDim; ++c)
          sum += double{a.data()[i * kWidth + c]} * b.data()[i * kWidth + c];
        s.data()[i * kHeads + h] = static_cast<float>(sum);
      }
    return s;
  };
  return most_apart(scores(shift), scores(0));
}

TEST(SystemsP234, ScoresDependOnTheDistanceExactlyWithoutNoiseAlone) {
  for (const int64_t shift : {1, 100, 1000}) {
    EXPECT_LE(moved_scores(*fope({{"length", 256}}), shift), 1e-5);
    const double noisy = moved_scores(*fope({{"length", 256}, {"noise", 0.3}}), shift);
    std::printf("noise 0.3, %4ld later: scores move by %.3f of the largest\n", shift, noisy);
    EXPECT_GT(noisy, 1e-3);
  }
}

TEST(SystemsP234, ClippedPairsStayAsTheyAre) {
  const auto frequencies = clipped_frequencies(256);
  const auto noisy = fope({{"length", 256}, {"noise", 0.3}, {"series", 4}});
  const Tensor x = normal_rows(300, kWidth, 4), y = turned(*noisy, x, 0);
  for (int64_t t = 0; t < 300; ++t)
    for (int64_t c = 0; c < kWidth; ++c)
      if (frequencies[static_cast<size_t>(c % kPairs)] == 0) {
        ASSERT_EQ(y.data()[t * kWidth + c], x.data()[t * kWidth + c]) << t << ", " << c;
      }
}

// Runs of heads with series of their own, and positions further on than those that are kept.
TEST(SystemsP234, HeadsHaveCoefficientsOfTheirOwn) {
  for (const int64_t series : {1, 2, 4})
    for (const int64_t first : {0, 65500, 1000000}) {
      const auto position = fope({{"length", 256}, {"noise", 0.3}, {"series", series}});
      const Tensor x = normal_rows(100, kWidth, 5), y = turned(*position, x, first);
      Tensor want(x.shape());
      for (int64_t t = 0; t < 100; ++t)
        for (int64_t h = 0; h < kHeads; ++h) {
          const float* from = x.data() + t * kWidth + h * kHeadDim;
          std::vector<double> row(from, from + kHeadDim);
          position->naive_turn(row.data(), first + t, h, kHeads);
          for (int64_t c = 0; c < kHeadDim; ++c)
            want.data()[t * kWidth + h * kHeadDim + c] = static_cast<float>(row[static_cast<size_t>(c)]);
        }
      EXPECT_LE(most_apart(y, want), 1e-6) << series << " series at " << first;
    }
}

TEST(SystemsP234, RefusesSeriesThatDoNotDivideTheHeads) {
  EXPECT_THROW(fope({{"series", 3}}), Error);
  const auto mixer = make_mixer(
      {{"name", "softmax"}, {"heads", 4}, {"kv_heads", 1}, {"position", {{"name", "fope"}, {"series", 4}}}}, 32);
  EXPECT_THROW(run_alone(*mixer, normal_rows(3, 32, 1)), Error);
}

// The table is paid for once: L d^2 for the first L positions, nothing for later calls.
TEST(SpeedP234, ATableIsBuiltOnce) {
  const auto build = [](int64_t rows, int64_t head_dim) {
    const Tensor x = normal_rows(rows, kHeads * head_dim, 6);
    return [=] { turned(*fope({{"length", 1000000000}, {"noise", 0.3}}, head_dim), x, 0); };
  };
  const double longer = processor_ratio(5, build(8192, 256), build(4096, 256)),
               wider = processor_ratio(5, build(4096, 512), build(4096, 256));
  const auto position = fope({{"length", 1000000000}, {"noise", 0.3}}, 256);
  const Tensor x = normal_rows(4096, kHeads * 256, 6);
  turned(*position, x, 0);
  const double again = processor_ratio(5, build(4096, 256), [&] { turned(*position, x, 0); });
  std::printf("twice the positions: %.2f times, twice the numbers: %.2f times; a second call takes 1/%.1f\n", longer,
              wider, again);
  EXPECT_LE(longer, 2.5);
  EXPECT_LE(wider, 5);
  EXPECT_GE(again, 5);
}

// Trained on 256 tokens of text with notes in it, tried on 1024.
TEST(SystemsP234, TrainedTextLosesLessWhenItIsLonger) {
  const trained::Text text;
  double rise[2];
  for (const bool fourier : {false, true}) {
    const Json position = fourier ? Json{{"name", "fope"}, {"length", 256}, {"noise", 0.3}, {"series", 4}} : "rope";
    trained::Trainee trainee(
        {{"vocab", trained::kPlantedVocab},
         {"d_model", 128},
         {"blocks", {{{"repeat", 4}, {"mixer", "softmax"}, {"position", position}, {"channel", "mlp"}}}}},
        {.steps = 250, .rate = 5e-3});
    int64_t parameters = 0;
    trainee.model().parameters([&](const std::string&, Parameter& p) { parameters += p.value().elements(); });
    trainee.train([&](int64_t, Rng rng) { return trained::planted(text, 4, {.length = 256}, rng); });
    const double near = trainee.loss(text.kept(256, 32)), far = trainee.loss(text.kept(1024, 8));
    const auto recall = [&](int64_t length) {
      return trainee.accuracy(
          trained::planted(text, 32, {.length = length, .distance = length / 2, .all = false}, Rng(9), true));
    };
    rise[fourier] = far - near;
    std::printf("%s, %ld parameters: %.4f nats at 256, %.4f at 1024 (+%.4f); notes recalled %.3f at 256, %.3f at 512\n",
                fourier ? "fope" : "rope", parameters, near, far, far - near, recall(256), recall(512));
  }
  std::printf("the rise is %.2f of rotary embedding's\n", rise[1] / rise[0]);
  EXPECT_GT(rise[0], 0);
  EXPECT_LE(rise[1], rise[0]);
}

}  // namespace sennit::systems_p234_test
