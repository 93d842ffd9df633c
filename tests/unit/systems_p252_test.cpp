// A temperature against the blurring of long texts (Zhou et al., arXiv:2410.24200), in a trained encoder.
#include <gtest/gtest.h>

#include "support/planted.h"

namespace sennit::systems_p252_test {

constexpr int32_t kMask = 256;

Json encoder(double temperature) {
  return {{"vocab", 257},
          {"d_model", 64},
          {"pattern", "bidirectional"},
          {"blocks", {{{"repeat", 3}, {"mixer", "softmax"}, {"temperature", temperature}, {"channel", "mlp"}}}}};
}

// A seventh of the bytes is hidden, and asked for.
trained::Rows with_gaps(trained::Rows rows, Rng rng) {
  for (size_t t = 0; t < rows.tokens.size(); ++t) {
    const bool hidden = rng.below(7) == 0;
    rows.targets[t] = hidden ? rows.tokens[t] : data::kIgnored;
    if (hidden) rows.tokens[t] = kMask;
  }
  return rows;
}

// The mean hidden row of each text, of length one.
std::vector<std::vector<double>> embeddings(Model& model, const trained::Rows& texts) {
  NoGrad off;
  const Context context;
  const Tensor hidden = model.hidden(texts.tokens, {texts.segments, &context, Pattern::bidirectional}).value();
  const int64_t d = hidden.row_size();
  std::vector<std::vector<double>> all;
  for (const Segment& s : texts.segments) {
    std::vector<double> mean(static_cast<size_t>(d));
    for (int64_t t = s.begin; t < s.begin + s.length; ++t)
      for (int64_t c = 0; c < d; ++c) mean[static_cast<size_t>(c)] += hidden.data()[t * d + c];
    double square = 0;
    for (const double m : mean) square += m * m;
    for (double& m : mean) m /= std::sqrt(square);
    all.push_back(mean);
  }
  return all;
}
double cosine(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t c = 0; c < a.size(); ++c) sum += a[c] * b[c];
  return sum;
}
double mean_cosine(Model& model, const trained::Rows& texts) {
  const auto all = embeddings(model, texts);
  double sum = 0, pairs = 0;
  for (size_t i = 0; i < all.size(); ++i)
    for (size_t j = 0; j < i; ++j) sum += cosine(all[i], all[j]), ++pairs;
  return sum / pairs;
}

// Each long text is looked for by a piece of it: the mean of 1 / log2(1 + rank), its nDCG.
double retrieval(Model& model, const trained::Rows& texts) {
  trained::Rows pieces;
  for (const Segment& s : texts.segments) {
    const auto from = texts.tokens.begin() + static_cast<std::ptrdiff_t>(s.begin + s.length / 3);
    pieces.add({from, from + 64}, std::vector<int32_t>(64, data::kIgnored));
  }
  const auto documents = embeddings(model, texts), questions = embeddings(model, pieces);
  double gain = 0;
  for (size_t i = 0; i < questions.size(); ++i) {
    int64_t rank = 1;
    for (const auto& other : documents) rank += cosine(questions[i], other) > cosine(questions[i], documents[i]);
    gain += 1 / std::log2(1 + static_cast<double>(rank)) / static_cast<double>(questions.size());
  }
  return gain;
}

void compare_encoders(const trained::Text& text, uint64_t seed) {
  const trained::Settings settings{.steps = 800, .rate = 5e-3, .seed = seed, .pattern = Pattern::bidirectional};
  trained::Trainee plain(encoder(1), settings), cold(encoder(0.9), settings);
  plain.train([&](int64_t step, Rng rng) {  // short and long texts in turn
    const int64_t length = step % 3 == 0 ? 256 : step % 3 == 1 ? 64 : 16;
    return with_gaps(text.drawn(1024 / length, length, rng), rng.fork("gaps"));
  });
  trained::copy_weights(plain.model(), cold.model());
  double shortest = 1, longest = 0;
  for (const int64_t length : {16, 64, 256, 1024}) {
    const trained::Rows texts = text.kept(length, 64);
    const double warm = mean_cosine(plain.model(), texts), cooled = mean_cosine(cold.model(), texts);
    std::printf("%4ld bytes: mean cosine %.4f, with a temperature of 0.9 %.4f\n", length, warm, cooled);
    if (length >= 256) {  // in short texts there is hardly a difference
      EXPECT_LT(cooled, warm) << length << ", seed " << seed;
    }
    shortest = std::min(shortest, warm), longest = warm;
  }
  EXPECT_GT(longest, shortest + 0.05) << "seed " << seed;  // nearly all of it between 16 and 64 bytes
  const trained::Rows documents = text.kept(1024);
  std::printf("nDCG among %zu long texts: %.4f, with a temperature of 0.9 %.4f\n", documents.segments.size(),
              retrieval(plain.model(), documents), retrieval(cold.model(), documents));
}

TEST(SystemsP252, TrainedEncodersBlurLongTextsLessWhenCold) {
  const trained::Text text;
  for (const uint64_t seed : {1, 2, 3}) compare_encoders(text, seed);
}

}  // namespace sennit::systems_p252_test
