// Attentive convolution (Yu et al., arXiv:2510.20092) on images: kernels of each image's own.
#include <gtest/gtest.h>

#include "sequence/plane.h"
#include "support/images.h"
#include "support/mixer_timing.h"

namespace sennit::systems_p200_test {

constexpr int64_t kDim = 32;

Json on_grid(int64_t columns, const Json& options = Json::object()) {
  Json part = {{"name", "atconv"}, {"columns", columns}};
  part.update(options);
  return part;
}

// Every neighbour's rows beside each other, each times its weights: by gathering, where there is nothing a row of
// zeros.
Var unfolded(const Var& x, const Var& weights, const Neighbours& near, std::span<const Segment> segments) {
  const Var padded[] = {x, Var(Tensor::zeros({1, x.columns()}))};
  const Var all = concat_rows(padded);
  Var sum;
  for (int64_t tap = 0; tap < near.taps(); ++tap) {
    std::vector<int64_t> sources, kernels;
    for (const Segment& s : segments)
      for (int64_t t = 0; t < s.length; ++t) {
        const int64_t row = t / near.columns + tap / 3 - 1, column = t % near.columns + tap % 3 - 1;
        const bool inside = row >= 0 && row < s.length / near.columns && column >= 0 && column < near.columns;
        sources.push_back(inside ? s.begin + row * near.columns + column : x.rows());
        kernels.push_back((&s - segments.data()) * near.taps() + tap);
      }
    const Var part = gather_rows(all, sources) * gather_rows(weights, kernels);
    sum = sum ? sum + part : part;
  }
  return sum;
}

TEST(SystemsP200, KernelsOfEachImageAreThoseOfTheUnfoldedOne) {
  const Neighbours near = grid_neighbours(6, 1);
  const Context context;
  const Segment images[] = {{0, 24, 0, nullptr}, {24, 6, 0, nullptr}, {30, 60, 0, nullptr}};
  const Tensor rows = normal_rows(90, kDim, 1), taps = normal_rows(27, kDim, 2), dy = normal_rows(90, kDim, 3);
  const auto run = [&](bool fast) {
    const Var x = Var::leaf(rows.clone()), w = Var::leaf(taps.clone());
    const Var y =
        fast ? plane_conv(x, w, near, {images, &context, Pattern::bidirectional}, 0) : unfolded(x, w, near, images);
    backward(y, dy);
    return std::vector<Tensor>{y.value(), x.grad(), w.grad()};
  };
  const auto fast = run(true), plain = run(false);
  for (size_t i = 0; i < fast.size(); ++i) EXPECT_LE(most_apart(fast[i], plain[i]), 1e-5) << i;
}

// With all of their mean taken from its kernels, what is inside a constant stretch is nothing, but for the rounding of
// kernels; and of a constant image all is.
TEST(SystemsP200, FullInhibitionSeesNoConstant) {
  constexpr int64_t kRows = 9, kAcross = 7;
  auto mixer = make_mixer(on_grid(kAcross), kDim);
  parameter_of(*mixer, "inhibition").var.value().fill(60);
  const Tensor noise = normal_rows(kRows * kAcross, kDim, 13);
  for (const int64_t noisy : {0, 4}) {  // rows at the top
    Tensor x = noise.clone();
    for (int64_t t = noisy * kAcross; t < x.rows(); ++t) x.slice(t, 1).copy_from(noise.slice(0, 1));
    const Tensor y = run_alone(*mixer, x, nullptr, Pattern::bidirectional);
    double inside = 0, outside = 0;
    for (int64_t t = 0; t < x.rows(); ++t)
      for (int64_t c = 0; c < kDim; ++c) {
        const int64_t row = t / kAcross, column = t % kAcross;
        const bool within = noisy == 0 || (row > noisy && row < kRows - 1 && column > 0 && column < kAcross - 1);
        double& most = within ? inside : outside;
        most = std::fmax(most, std::fabs(double{y.data()[t * kDim + c]}));
      }
    EXPECT_LE(inside, 1e-6) << noisy;
    if (noisy) {
      EXPECT_GE(outside, 1e-2);
    }
  }
}

TEST(SystemsP200, AnImageThatEndsWithinARowIsAnError) {
  auto mixer = make_mixer(on_grid(7), kDim);
  try {
    run_alone(*mixer, normal_rows(15, kDim, 1), nullptr, Pattern::bidirectional);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("sequences of whole rows of columns = 7 tokens"), std::string::npos)
        << e.what();
  }
}

TEST(SpeedP200, TimeIsLinearAndAThirdOfAttention) {
  const double growth = processor_ratio(
      7,
      [mixer = make_mixer(on_grid(64), 64), x = normal_rows(4096, 64, 1)] {
        run_alone(*mixer, x, nullptr, Pattern::bidirectional);
      },
      [mixer = make_mixer(on_grid(32), 64), x = normal_rows(1024, 64, 2)] {
        run_alone(*mixer, x, nullptr, Pattern::bidirectional);
      });
  const double share = time_against(on_grid(64), "softmax", 64, 4096, Pattern::bidirectional);
  std::printf("64 by 64 against 32 by 32: %.2f, against attention: %.3f\n", growth, share);
  EXPECT_LE(growth, 4.6);
  EXPECT_LE(share, 1.0 / 3);
}

// Digits, as often dark on light as light on dark, in noise. Twins of as many parameters: the static one has a wider
// network.
TEST(SystemsP200, TrainedOnImagesOfBothPolarities) {
  constexpr double kRate = 5e-3;
  const images::Look look{.noise = 0.3, .negative = true};
  const images::Images from = images::drawn(4000, look, Rng(5)), kept = images::drawn(1000, look, Rng(6));
  const Json attentive = on_grid(images::kColumns), fixed = on_grid(images::kColumns, {{"kernels", "learned"}}),
             attention = {{"name", "softmax"}, {"position", "none"}};
  const auto mean = [&](const char* name, const std::vector<Json>& blocks) {
    double sum = 0;
    int64_t parameters = 0;
    for (const uint64_t seed : {1, 2, 3}) {
      images::Classifier model({.blocks = blocks, .steps = 400, .rate = kRate, .seed = seed});
      model.train(from);
      const double accuracy = model.accuracy(kept);
      parameters = model.parameter_count();
      std::printf("%s, seed %d: %.1f %%, %lld parameters\n", name, static_cast<int>(seed), 100 * accuracy,
                  static_cast<long long>(parameters));
      sum += accuracy;
    }
    return std::pair{100 * sum / 3, parameters};
  };
  const auto [content, content_size] = mean("ATConv", images::blocks_of(attentive));
  const auto [learned, learned_size] =
      mean("static kernels", images::blocks_of(fixed, 2, {{"name", "mlp"}, {"hidden", 160}}));
  const auto [softmax, softmax_size] = mean("attention", images::blocks_of(attention));
  EXPECT_GE(content, learned + 0.5);
  EXPECT_GE(content, softmax - 1);
  EXPECT_LE(content_size, learned_size);
  EXPECT_LE(content_size, 1.01 * static_cast<double>(softmax_size));
}

}  // namespace sennit::systems_p200_test
