// ComplexFormer (Shao et al., arXiv:2505.10222): rotary attention at its start, scores that know distances alone, and
// heads that come to differ.
#include <gtest/gtest.h>

#include <cmath>

#include "support/mixers.h"
#include "support/trained.h"

namespace sennit::systems_p185_test {

constexpr int64_t kWidth = 32, kHeads = 4;

// Away from the start: phases stretched, rates and shifts that differ.
std::unique_ptr<Mixer> learned() {
  auto mixer = make_mixer("complexformer", kWidth, 3);
  Rng rng(5);
  for (const auto& [name, start] : {std::pair{"stretch", 1.0}, {"rate", 0.0}, {"shift", 0.0}}) {
    Parameter& p = parameter_of(*mixer, name);
    for (float& v : p.var.value().span()) v = static_cast<float>(start + 0.5 * rng.normal());
    ++p.version;
  }
  return mixer;
}

TEST(SystemsP185, AtTheStartItIsAttentionWithRotaryPositions) {
  auto complex = make_mixer("complexformer", kWidth, 3),
       softmax = make_mixer({{"name", "softmax"}, {"heads", kHeads}}, kWidth, 4);
  copy_parameters(*complex, *softmax, {"q.weight", "k.weight", "v.weight", "out.weight"});
  const Tensor x = normal_rows(300, kWidth, 1);
  for (const Pattern p : {Pattern::causal, Pattern::bidirectional})
    EXPECT_LE(most_apart(run_alone(*complex, x, nullptr, p), run_alone(*softmax, x, nullptr, p)), 1e-5);
}

TEST(SystemsP185, OnlyDistancesCount) {
  NoGrad off;
  auto mixer = learned();
  const Var x(normal_rows(100, kWidth, 2));
  const Context context;
  const auto from = [&](int64_t position) {
    const Segment whole[] = {{0, 100, position, nullptr}};
    return mixer->forward(x, {whole, &context}).value();
  };
  const Tensor at_the_start = from(0);
  for (const int64_t position : {1, 100, 5000}) EXPECT_LE(most_apart(from(position), at_the_start), 1e-5) << position;
}

// A stretch is not a rotation: the same differences of phases mean something else.
TEST(SystemsP185, EveryLearnedPartIsHeard) {
  const Tensor x = normal_rows(60, kWidth, 2);
  const Tensor before = run_alone(*make_mixer("complexformer", kWidth, 3), x);
  for (const char* name : {"stretch", "rate", "shift"}) {
    auto mixer = make_mixer("complexformer", kWidth, 3);
    Parameter& p = parameter_of(*mixer, name);
    for (float& v : p.var.value().span()) v += 0.3f;
    ++p.version;
    EXPECT_GT(most_apart(run_alone(*mixer, x), before), 1e-3) << name;
  }
}

TEST(SystemsP185, TrainedBytesAreNoWorseThanRotaryAndHeadsDiffer) {
  const trained::Text text;
  double sum[2] = {};
  for (const uint64_t seed : {1, 2, 3}) {
    double loss[2];
    for (const bool complex : {false, true}) {
      const Json block = {{"mixer", complex ? "complexformer" : "softmax"}, {"channel", "mlp"}};
      trained::Trainee trainee({{"vocab", 256}, {"d_model", 48}, {"blocks", {block, block}}},
                               {.steps = 400, .rate = 5e-3, .seed = seed});
      trainee.train([&](int64_t, Rng rng) { return text.drawn(8, 128, rng); });
      loss[complex] = trainee.loss(text.kept(128, 32));
      sum[complex] += loss[complex];
      if (!complex) continue;
      for (const char* name : {"rate", "shift"}) {
        const Tensor learned = parameter_of(trainee.model(), std::string("blocks.0.mixer.") + name).value();
        double apart = 0;  // the spread over heads, a pair's at a time
        for (int64_t i = 0; i < learned.row_size(); ++i) {
          double mean = 0, squares = 0;
          for (int64_t h = 0; h < learned.rows(); ++h) {
            const double v = learned.data()[h * learned.row_size() + i];
            mean += v, squares += v * v;
          }
          mean /= static_cast<double>(learned.rows());
          apart += std::sqrt(std::fmax(0, squares / static_cast<double>(learned.rows()) - mean * mean));
        }
        apart /= static_cast<double>(learned.row_size());
        std::printf("seed %lu: %s differs by %.4f over heads\n", seed, name, apart);
        EXPECT_GT(apart, 1e-3);
      }
    }
    std::printf("seed %lu: rotary %.4f nats, complex %.4f (%+.2f %%)\n", seed, loss[0], loss[1],
                100 * (loss[1] / loss[0] - 1));
  }
  EXPECT_LE(sum[1], 1.01 * sum[0]);
}

}  // namespace sennit::systems_p185_test
