// MetaFormer and PoolFormer (Yu et al., arXiv:2111.11418): a block in which the mixer is one name, and pooling as one.
#include <gtest/gtest.h>

#include "support/images.h"
#include "support/mixer_timing.h"

namespace sennit::systems_p110_test {

// To the bit, at borders too, for any numbers.
TEST(SystemsP110, AConstantImageIsNothing) {
  for (const int64_t reach : {1, 3})
    for (const int64_t columns : {0, 6}) {
      auto mixer = make_mixer({{"name", "pool"}, {"reach", reach}, {"columns", columns}}, 32);
      EXPECT_EQ(mixer->parameter_count(), 0);
      const Tensor colour = normal_rows(1, 32, 3);
      Tensor x({42, 32});
      for (int64_t t = 0; t < 42; ++t) x.slice(t, 1).copy_from(colour);
      for (const Pattern p : {Pattern::causal, Pattern::bidirectional}) {
        const Tensor y = run_alone(*mixer, x, nullptr, p);
        for (const float v : y.span()) ASSERT_EQ(v, 0);
      }
    }
}

TEST(SystemsP110, BordersAverageWhatIsThere) {
  auto mixer = make_mixer({{"name", "pool"}, {"columns", 3}}, 1);
  Tensor x({9, 1});
  for (int64_t t = 0; t < 9; ++t) x.data()[t] = static_cast<float>(t * t);
  const Tensor y = run_alone(*mixer, x, nullptr, Pattern::bidirectional);
  EXPECT_NEAR(y.data()[0], (0 + 1 + 9 + 16) / 4.0, 1e-5);
  EXPECT_NEAR(y.data()[3], (0 + 1 + 9 + 16 + 36 + 49) / 6.0 - 9, 1e-5);
  EXPECT_NEAR(y.data()[4], (0 + 1 + 4 + 9 + 16 + 25 + 36 + 49 + 64) / 9.0 - 16, 1e-5);
}

// One name is all that changes. Along its own gradient a block's answer rises by the gradient's length.
TEST(SystemsP110, AnyMixerStandsInTheBlock) {
  constexpr int64_t kDim = 16, kRows = 30;
  for (const char* name : {"pool", "softmax", "spatial_mlp", "identity", "atconv", "conv_glu"}) {
    const Json mixer = name, channel = "mlp", norm = "layernorm";
    const auto block = blocks::registry().make(
        "prenorm", {.d_model = kDim, .mixer = &mixer, .channel = &channel, .norm = &norm, .where = "test"}, Rng(1),
        "test");
    const Tensor a = normal_rows(kRows, kDim, 2);
    const Context context;
    const Segment images[] = {{0, kRows / 2, 0, nullptr}, {kRows / 2, kRows / 2, 0, nullptr}};
    Var x = Var::leaf(normal_rows(kRows, kDim, 1));
    backward(block->forward(x, {images, &context, Pattern::bidirectional}), a);
    std::vector<std::pair<Var*, Tensor>> moved = {{&x, x.grad()}};
    block->parameters([&](const std::string& of, Parameter& p) {
      ASSERT_TRUE(p.var.grad()) << name << " " << of;
      moved.emplace_back(&p.var, p.var.grad());
      ++p.version;
    });
    double square = 0;
    for (const auto& [var, gradient] : moved)
      for (const float g : gradient.span()) square += double{g} * g;
    const double length = std::sqrt(square), step = 2e-2;
    const auto move = [&](double by) {
      for (auto& [var, gradient] : moved)
        for (int64_t i = 0; i < gradient.elements(); ++i)
          var->value().data()[i] += static_cast<float>(by * gradient.data()[i] / length);
    };
    const auto loss = [&] {
      NoGrad off;
      block->parameters([](const std::string&, Parameter& p) { ++p.version; });
      const Tensor y = block->forward(x, {images, &context, Pattern::bidirectional}).value();
      double sum = 0;
      for (int64_t i = 0; i < y.elements(); ++i) sum += double{y.data()[i]} * a.data()[i];
      return sum;
    };
    move(step);
    const double up = loss();
    move(-2 * step);
    const double slope = (up - loss()) / (2 * step);
    EXPECT_NEAR(slope, length, 1e-3 * length) << name;
  }
}

TEST(SpeedP110, PoolingIsFiveTimesAsFastAsAttention) {
  const double share = time_against({{"name", "pool"}, {"columns", 32}}, "softmax", 64, 1024, Pattern::bidirectional);
  std::printf("pooling of 32 by 32 tokens: %.3f of attention's time\n", share);
  EXPECT_LE(share, 1.0 / 5);
}

TEST(SystemsP110, TrainedOnImagesPoolingIsNearAttention) {
  const images::Look look{.noise = 0.3};
  const images::Images from = images::drawn(4000, look, Rng(5)), kept = images::drawn(1000, look, Rng(6));
  const auto result = [&](const char* name, const Json& mixer) {
    images::Classifier model(
        {.blocks = images::blocks_of(mixer, 4, {{"name", "mlp"}, {"hidden", 64}}), .steps = 400, .rate = 1e-2});
    model.train(from);
    const std::pair all{100 * model.accuracy(kept), static_cast<double>(model.parameter_count())};
    std::printf("%s: %.1f %%, %.0f parameters\n", name, all.first, all.second);
    return all;
  };
  const auto [pooled, pooled_size] = result("pooling", {{"name", "pool"}, {"columns", images::kColumns}});
  const auto [attended, attended_size] = result("attention", {{"name", "softmax"}, {"position", "none"}});
  EXPECT_GE(pooled, attended - 3);
  EXPECT_GE(attended, 90);
  EXPECT_LE(pooled_size, 0.8 * attended_size);
}

}  // namespace sennit::systems_p110_test
