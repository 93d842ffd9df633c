// HiLo attention of LITv2 (Pan et al., arXiv:2205.13213): fine heads in windows, coarse heads over pooled keys.
#include <gtest/gtest.h>

#include "ops/count.h"
#include "support/mixer_timing.h"

namespace sennit::systems_p137_test {

Json with(const Json& options) {
  Json part = {{"name", "hilo"}};
  part.update(options);
  return part;
}
const Json kAttention = {{"name", "softmax"}, {"position", "none"}};

Tensor both_ways(Mixer& mixer, const Tensor& x) {
  return run_alone(mixer, x, nullptr, Pattern::bidirectional);
}
// The weights of full attention for one kind of heads.
void copy_maps(Mixer& from, Mixer& to, const std::string& kind) {
  for (const char* map : {"q", "k", "v", "out"})
    parameter_of(to, kind + "." + map + ".weight")
        .var.value()
        .copy_from(parameter_of(from, std::string(map) + ".weight").value());
}

TEST(SystemsP137, WindowsOfOneTokenOrOfAllAreFullAttention) {
  const auto full = make_mixer(kAttention, 32);
  for (const int64_t columns : {0, 7}) {
    const Tensor x = normal_rows(49, 32, 2), want = both_ways(*full, x);
    const auto single = make_mixer(with({{"alpha", 1}, {"side", 1}, {"columns", columns}}), 32);
    copy_maps(*full, *single, "lo");
    EXPECT_LE(most_apart(both_ways(*single, x), want), 1e-5);
    const auto whole = make_mixer(with({{"alpha", 0}, {"side", columns ? 7 : 49}, {"columns", columns}}), 32);
    copy_maps(*full, *whole, "hi");
    EXPECT_LE(most_apart(both_ways(*whole, x), want), 1e-5);
  }
}

TEST(SystemsP137, AnImageOfEvenBlocksIsAttendedAsThePooledOne) {
  constexpr int64_t kSide = 4, kBlock = 3, kColumns = kSide * kBlock, kDim = 32;
  const auto full = make_mixer(kAttention, kDim);
  const auto low = make_mixer(with({{"alpha", 1}, {"side", kBlock}, {"columns", kColumns}}), kDim);
  copy_maps(*full, *low, "lo");
  const Tensor pooled = normal_rows(kSide * kSide, kDim, 2), want = both_ways(*full, pooled);
  Tensor image({kColumns * kColumns, kDim}), wanted(image.shape());
  for (int64_t t = 0; t < image.rows(); ++t) {
    const int64_t block = t / kColumns / kBlock * kSide + t % kColumns / kBlock;
    image.slice(t, 1).copy_from(pooled.slice(block, 1)), wanted.slice(t, 1).copy_from(want.slice(block, 1));
  }
  EXPECT_LE(most_apart(both_ways(*low, image), wanted), 1e-5);
}

// A grid of 5 rows and 7 columns in windows of 3: those at the far borders are cut to 2 rows and to 1 column.
TEST(SystemsP137, WindowsAtBordersHoldWhatIsThere) {
  constexpr int64_t kRows = 5, kColumns = 7, kSide = 3;
  const auto mixer = make_mixer(with({{"alpha", 0}, {"side", kSide}, {"columns", kColumns}}), 16);
  const Tensor x = normal_rows(kRows * kColumns, 16, 2), before = both_ways(*mixer, x);
  for (int64_t token = 0; token < x.rows(); ++token) {
    Tensor other = x.clone();
    for (float& v : other.slice(token, 1).span()) v += 1;
    const Tensor after = both_ways(*mixer, other);
    for (int64_t t = 0; t < x.rows(); ++t) {
      const bool together =
          t / kColumns / kSide == token / kColumns / kSide && t % kColumns / kSide == token % kColumns / kSide;
      EXPECT_EQ(same_numbers(before.slice(t, 1), after.slice(t, 1)), !together) << token << " seen by " << t;
    }
  }
}

// Section 3.2: (7/4 N D^2 + s^2 N D) and (3/4 + 1/s^2) N D^2 + N^2 D / s^2 multiply-adds, where alpha is a half.
TEST(SystemsP137, CostIsThatOfThePaper) {
  constexpr double kDim = 192, kTokens = 28 * 28;
  for (const int64_t side : {2, 4, 7}) {
    const auto mixer = make_mixer(with({{"side", side}, {"columns", 28}, {"heads", 6}}), 192);
    operation_count() = {};
    both_ways(*mixer, normal_rows(28 * 28, 192, 2));
    const double counted = static_cast<double>(operation_count().flops), s2 = static_cast<double>(side * side),
                 formula = 2 * (2.5 + 1 / s2) * kTokens * kDim * kDim + 2 * s2 * kTokens * kDim +
                           2 * kTokens * kTokens * kDim / s2,
                 pooling = kTokens * kDim;
    EXPECT_DOUBLE_EQ(counted, formula + pooling) << side;
    EXPECT_DOUBLE_EQ(static_cast<double>(mixer->flops(28 * 28)), counted) << side;
  }
}

// With nothing but attention rows of an even image are all alike; the network with a convolution tells borders apart.
TEST(SystemsP137, TheNetworkWithAConvolutionTellsWhereATokenIs) {
  constexpr int64_t kColumns = 6, kDim = 16;
  Tensor image({kColumns * kColumns, kDim});
  const Tensor row = normal_rows(1, kDim, 2);
  for (int64_t t = 0; t < image.rows(); ++t) image.slice(t, 1).copy_from(row);
  const auto attention = make_mixer(with({{"columns", kColumns}}), kDim);
  const auto network =
      make_mixer({{"name", "conv_glu"}, {"gated", false}, {"hidden", 4 * kDim}, {"columns", kColumns}}, kDim);
  const Tensor attended = both_ways(*attention, image), told = both_ways(*network, attended);
  const int64_t corner = 0, edge = 2, inside = 2 * kColumns + 2;
  const auto apart = [](const Tensor& y, int64_t a, int64_t b) { return most_apart(y.slice(a, 1), y.slice(b, 1)); };
  EXPECT_LE(apart(attended, corner, inside), 1e-6);
  EXPECT_LE(apart(told, inside, inside + kColumns + 1), 1e-6);
  EXPECT_GE(apart(told, corner, edge), 0.01);
  EXPECT_GE(apart(told, corner, inside), 0.01);
  EXPECT_GE(apart(told, edge, inside), 0.01);
}

// One layer of the paper's own comparison, 768 channels and 12 heads with alpha 0.9, here on 56 by 56 tokens, in
// windows of 4 by 4 as LITv2 has on images to detect in. What it is compared with is of the same width: windows of 7 by
// 7, and keys reduced as much by learned maps. With 2 by 2 windows a quarter of the keys is left, too many for so large
// an image: that is faster than keys reduced so, but not than local windows.
TEST(SpeedP137, FasterThanSpatialReductionAndThanLocalWindowsAt56By56) {
  constexpr int64_t kColumns = 56, kDim = 768;
  const auto times = [&](const Json& other, int64_t side) {
    const auto on_grid = [&](Json options) {
      options["columns"] = kColumns, options["heads"] = 12;
      return with(options);
    };
    return time_against(on_grid(other), on_grid({{"alpha", 0.9}, {"side", side}}), kDim, kColumns * kColumns,
                        Pattern::bidirectional);
  };
  const auto reduced = [](int64_t side) { return Json{{"alpha", 1}, {"side", side}, {"reduce", "learned"}}; };
  const Json windows = {{"alpha", 0}, {"side", 7}};
  const double local = times(windows, 4), reduction = times(reduced(4), 4);
  std::printf("of HiLo's time: local windows of 7 by 7 %.2f, keys reduced by 4 by 4 %.2f\n", local, reduction);
  std::printf("with windows of 8 by 8, %.2f and by 8 by 8 %.2f\n", times(windows, 8), times(reduced(8), 8));
  std::printf("with windows of 2 by 2, %.2f and by 2 by 2 %.2f\n", times(windows, 2), times(reduced(2), 2));
  EXPECT_GE(local, 1.2);
  EXPECT_GE(reduction, 1.2);
}

}  // namespace sennit::systems_p137_test
