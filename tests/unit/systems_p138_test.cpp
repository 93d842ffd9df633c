// Vision Mamba (Zhu et al., arXiv:2401.09417): two directions, linear time, and images.
#include <gtest/gtest.h>

#include "ops/norms.h"
#include "support/images.h"
#include "support/mixer_timing.h"

namespace sennit::systems_p138_test {

Tensor turned(const Tensor& x) {
  Tensor y(x.shape());
  for (int64_t t = 0; t < x.rows(); ++t) y.slice(t, 1).copy_from(x.slice(x.rows() - 1 - t, 1));
  return y;
}

TEST(SystemsP138, TiedDirectionsTurnWithTheSequence) {
  auto mixer = make_mixer("vim", 32);
  std::map<std::string, Tensor> ahead;
  mixer->parameters([&](const std::string& name, Parameter& p) {
    if (name.starts_with("ahead.")) ahead[name.substr(6)] = p.value();
  });
  mixer->parameters([&](const std::string& name, Parameter& p) {
    if (name.starts_with("back.")) p.var.value().copy_from(ahead.at(name.substr(5))), ++p.version;
  });
  const Tensor x = normal_rows(150, 32, 9);
  const Tensor a = run_alone(*mixer, turned(x), nullptr, Pattern::bidirectional),
               b = run_alone(*mixer, x, nullptr, Pattern::bidirectional);
  EXPECT_LE(most_apart(turned(a), b), 1e-5);
}

// Against the recurrences in double, and a central difference of them in a random direction of all there is.
TEST(SystemsP138, ScansAreTheRecurrencesAndSoAreTheirGradients) {
  constexpr int64_t kDim = 16, kRows = 90;
  auto mixer = make_mixer("vim", kDim);
  const Tensor rows = normal_rows(kRows, kDim, 1), dy = normal_rows(kRows, kDim, 2);
  const Context context;
  const Segment whole[] = {{0, kRows, 0, nullptr}};
  const Var x = Var::leaf(rows.clone());
  const Var y = mixer->forward(x, {whole, &context, Pattern::bidirectional});
  backward(y, dy);

  const auto doubles = [](const Tensor& t) {
    naive::Matrix m(t.rank() == 1 ? 1 : t.rows(), t.rank() == 1 ? t.elements() : t.row_size());
    m.a.assign(t.span().begin(), t.span().end());
    return m;
  };
  naive::Weights w;
  mixer->parameters([&](const std::string& name, Parameter& p) { w[name] = doubles(p.value()); });
  naive::Matrix in = doubles(rows);
  const auto defined = [&] {
    NaiveRun run{.w = w, .x = in, .pattern = Pattern::bidirectional};
    return mixer->naive(run);
  };
  const naive::Matrix definition = defined();
  double apart = 0, size = 0;
  for (int64_t i = 0; i < y.value().elements(); ++i) {
    apart = std::fmax(apart, std::fabs(y.value().data()[i] - definition.a[static_cast<size_t>(i)]));
    size = std::fmax(size, std::fabs(definition.a[static_cast<size_t>(i)]));
  }
  EXPECT_LE(apart, 1e-4 * size);

  // The slope along the gradient itself is its length.
  const auto loss = [&] {
    const naive::Matrix at = defined();
    double sum = 0;
    for (int64_t i = 0; i < dy.elements(); ++i) sum += at.a[static_cast<size_t>(i)] * dy.data()[i];
    return sum;
  };
  const auto slope = [&](naive::Matrix& place, const Tensor& gradient, double* length) {
    double square = 0;
    for (const float g : gradient.span()) square += double{g} * g;
    *length = std::sqrt(square);
    const naive::Matrix kept = place;
    double ends[2];
    for (const int side : {0, 1}) {
      for (size_t i = 0; i < place.a.size(); ++i)
        place.a[i] = kept.a[i] + (side ? 1e-5 : -1e-5) * gradient.data()[i] / *length;
      ends[side] = loss();
    }
    place = kept;
    return (ends[1] - ends[0]) / 2e-5;
  };
  double length = 0;
  const double along = slope(in, x.grad(), &length);
  EXPECT_NEAR(along, length, 1e-4 * length) << "input";
  mixer->parameters([&](const std::string& name, Parameter& p) {
    const double of_parameter = slope(w[name], p.var.grad(), &length);
    EXPECT_NEAR(of_parameter, length, 1e-4 * length) << name;
  });
}

TEST(SpeedP138, TimeIsLinear) {
  const double exponent = std::log2(time_ratio("vim", 64, 8192, 1024, Pattern::bidirectional)) / 3;
  std::printf("time grows as n to the %.3f\n", exponent);
  EXPECT_LE(exponent, 1.15);
}

constexpr int64_t kWidth = 192, kHeads = 3;  // as in the smallest models of both papers

std::unique_ptr<Block> block_of(const Json& mixer, const Json& channel) {
  const Json norm = "layernorm";
  return blocks::registry().make(
      "prenorm", {.d_model = kWidth, .mixer = &mixer, .channel = &channel, .norm = &norm, .where = "test"}, Rng(1),
      "test");
}
const Json kVim = "vim", kAttention = {{"name", "softmax"}, {"heads", kHeads}, {"position", "none"}}, kNone = "none",
           kMlp = "mlp";

Var through(Block& block, const Var& x) {
  const Context context;
  const Segment whole[] = {{0, x.rows(), 0, nullptr}};
  return block.forward(x, {whole, &context, Pattern::bidirectional});
}

// Two blocks, as a Vim of as many parameters has twice as many as a DeiT.
TEST(SpeedP138, TwoBlocksAreFasterThanOneOfDeitAtEightThousandTokens) {
  NoGrad off;
  const auto vim = block_of(kVim, kNone), deit = block_of(kAttention, kMlp);
  const Var x(normal_rows(8192, kWidth, 1));
  const double ratio = processor_ratio(
      3, [&] { through(*vim, through(*vim, x)); }, [&] { through(*deit, x); });
  std::printf("two blocks of Vim against one of DeiT with flash attention, 8192 tokens: %.2f of the time\n", ratio);
  EXPECT_LT(ratio, 1);
}

// Attention by whole matrices of scores, as it was before flash attention; what backward needs is kept in both.
Var naive_attention(const Var& x, const Var& map) {
  std::vector<Var> heads;
  constexpr int64_t kHead = kWidth / kHeads;
  const Var qkv = matmul(x, map);
  for (int64_t h = 0; h < kHeads; ++h) {
    const auto part = [&](int64_t which) { return columns(qkv, which * kWidth + h * kHead, kHead); };
    const Var scores = scale(matmul(part(0), part(1), {.transpose_b = true}), 1 / std::sqrt(float{kHead}));
    heads.push_back(matmul(softmax(scores), part(2)));
  }
  return concat_columns(heads);
}
TEST(SpeedP138, AThirdOfTheMemoryOfNaiveAttentionAtSixThousandTokens) {
  const Tensor rows = normal_rows(6144, kWidth, 1);
  const auto peak = [&](auto&& forward) {
    const Var x = Var::leaf(rows);
    reset_memory_peak();
    const int64_t base = memory_counters().live;
    const Var y = forward(x);
    return static_cast<double>(memory_counters().peak - base) / 1e6;
  };
  const auto vim = block_of(kVim, kNone);
  const Var map = Var::leaf(normal_rows(kWidth, 3 * kWidth, 2));
  const double ours = peak([&](const Var&x) { return through(*vim, x); }),
               theirs = peak([&](const Var&x) { return naive_attention(x, map); });
  std::printf("activations of 6144 tokens: Vim %.0f MB, attention by whole matrices alone %.0f MB\n", ours, theirs);
  EXPECT_LE(ours, 0.3 * theirs);
}

TEST(SystemsP138, TrainedOnImagesWithAClassTokenInTheMiddle) {
  const images::Look look{.noise = 0.3};
  const images::Images from = images::drawn(4000, look, Rng(5)), kept = images::drawn(1000, look, Rng(6));
  const auto accuracy = [&](const char* name, const Json& mixer, int64_t class_at) {
    images::Classifier model({.blocks = images::blocks_of(mixer), .class_at = class_at, .steps = 400});
    model.train(from);
    const double right = 100 * model.accuracy(kept);
    std::printf("%s: %.1f %%, %lld parameters\n", name, right, static_cast<long long>(model.parameter_count()));
    return right;
  };
  const double vim = accuracy("Vim", {{"name", "vim"}, {"expand", 1}, {"state", 8}}, images::kTokens / 2),
               deit = accuracy("DeiT", {{"name", "softmax"}, {"position", "none"}}, 0);
  EXPECT_GE(vim, deit - 2);
  EXPECT_GE(deit, 85);
}

}  // namespace sennit::systems_p138_test
