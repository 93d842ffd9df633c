// Key-driven grouped queries (Khan et al., arXiv:2408.08454): query heads are dealt to key heads by the lengths of
// keys.
#include <gtest/gtest.h>

#include "model/grouping.h"
#include "ops/products.h"
#include "support/mixer_timing.h"
#include "support/planted.h"

namespace sennit::systems_p081_test {

Json with(int64_t heads, int64_t kv_heads, const Json& options = Json::object()) {
  Json part = {{"name", "key_driven"}, {"heads", heads}, {"kv_heads", kv_heads}};
  part.update(options);
  return part;
}
Json plain(int64_t heads, int64_t kv_heads) {
  return {{"name", "softmax"}, {"heads", heads}, {"kv_heads", kv_heads}};
}
const std::vector<std::string> kMaps = {"q.weight", "k.weight", "v.weight", "out.weight"};

void set_lengths(Mixer& mixer, const std::vector<float>& lengths) {
  parameter_of(mixer, "dealt_by").init(Tensor::of({std::ssize(lengths)}, std::span<const float>(lengths)));
}

TEST(SystemsP081, EqualLengthsAreEvenGroups) {
  const Tensor x = normal_rows(70, 64, 2);
  for (const char* share : {"softmax", "minmax"})
    for (const int64_t kv_heads : {1, 2, 4, 8}) {  // one: multi-query attention; eight: multi-head attention
      const auto even = make_mixer(plain(8, kv_heads), 64),
                 dealt = make_mixer(with(8, kv_heads, {{"share", share}}), 64);
      copy_parameters(*even, *dealt, kMaps);
      set_lengths(*dealt, std::vector<float>(static_cast<size_t>(kv_heads), 3.7f));
      EXPECT_TRUE(same_numbers(run_alone(*dealt, x), run_alone(*even, x))) << share << " " << kv_heads;
      if (kv_heads == 1 || kv_heads == 8) {  // whatever the lengths
        set_lengths(*dealt, kv_heads == 1 ? std::vector<float>{9} : std::vector<float>{1, 2, 3, 40, 5, 6, 7, 8});
        EXPECT_TRUE(same_numbers(run_alone(*dealt, x), run_alone(*even, x))) << share << " " << kv_heads;
      }
    }
}

// How many heads each key head serves, told by what they say: with identity maps and one token a head says the value
// of its key head.
std::vector<int64_t> sizes_of(Mixer& mixer, int64_t heads, int64_t kv_heads) {
  for (const std::string& name : kMaps) {
    Tensor& w = parameter_of(mixer, name).var.value();
    w.fill(0);
    for (int64_t i = 0; i < std::min(w.rows(), w.row_size()); ++i)
      w.data()[i * w.row_size() + (name == "v.weight" ? 0 : i)] = name == "v.weight" ? static_cast<float>(i) : 1;
  }
  Tensor x = Tensor::zeros({1, heads});
  x.data()[0] = 1;
  const Tensor y = run_alone(mixer, x);
  std::vector<int64_t> sizes(static_cast<size_t>(kv_heads));
  int64_t last = 0;
  for (const float kv : y.span()) {
    const int64_t at = std::llround(kv);
    EXPECT_GE(at, last);
    ++sizes[static_cast<size_t>(last = at)];
  }
  return sizes;
}

TEST(SystemsP081, EveryGroupHasAHeadAndAllAreDealt) {
  const auto dealt = [](const std::vector<float>& lengths, const char* share) {
    const auto kv = std::ssize(lengths);
    const int64_t heads = 4 * kv;
    const auto mixer = make_mixer(with(heads, kv, {{"share", share}, {"position", "none"}, {"head_dim", 1}}), heads);
    set_lengths(*mixer, lengths);
    return sizes_of(*mixer, heads, kv);
  };
  EXPECT_EQ(dealt({1, 2, 3, 5}, "minmax"), (std::vector<int64_t>{1, 2, 4, 9}));   // of 16 x (0, 1, 2, 4) / 7
  EXPECT_EQ(dealt({1, 1, 1, 9}, "minmax"), (std::vector<int64_t>{1, 1, 1, 13}));  // of all and nothing
  EXPECT_EQ(dealt({3, 3, 3, 3}, "softmax"), (std::vector<int64_t>{4, 4, 4, 4}));
  EXPECT_EQ(dealt({1, 2, 3, 2}, "softmax"), (std::vector<int64_t>{2, 4, 6, 4}));  // of 16 softmax(1/2, 1, 3/2, 1)
  Rng rng(5);
  for (int trial = 0; trial < 100; ++trial) {
    std::vector<float> lengths(static_cast<size_t>(1 + rng.below(6)));
    for (float& x : lengths) x = static_cast<float>(std::exp(2 * rng.normal()));
    const std::vector<int64_t> sizes = dealt(lengths, trial % 2 ? "softmax" : "minmax");
    int64_t sum = 0;
    for (const int64_t s : sizes) {
      EXPECT_GE(s, 1);
      sum += s;
    }
    EXPECT_EQ(sum, 4 * std::ssize(lengths));
    for (size_t a = 0; a < sizes.size(); ++a)
      for (size_t b = 0; b < sizes.size(); ++b)
        if (lengths[a] > lengths[b]) {
          EXPECT_GE(sizes[a], sizes[b]);
        }
  }
}

// Lengths are measured while training, and heads dealt anew at every third pass.
TEST(SystemsP081, HeadsAreDealtByWhatTrainingMeasures) {
  const int64_t n = 50, d = 32;
  const auto mixer =
      make_mixer(with(8, 2, {{"decay", 0.5}, {"every", 3}, {"share", "minmax"}, {"position", "none"}}), d);
  Tensor& k = parameter_of(*mixer, "k.weight").var.value();
  for (float& w : k.slice(k.rows() / 2, k.rows() / 2).span()) w *= 3;
  const Tensor x = normal_rows(n, d, 2);
  const Segment whole[] = {{0, n, 0, nullptr}};
  const auto pass = [&](bool training) {
    const Context context{.training = training};
    return mixer->forward(Var(x), {whole, &context}).value();
  };
  const Tensor even = pass(false);
  EXPECT_TRUE(same_numbers(pass(true), even));
  EXPECT_TRUE(same_numbers(pass(true), even));
  EXPECT_TRUE(same_numbers(pass(true), even));  // by what was measured before
  const Tensor uneven = pass(false);
  EXPECT_FALSE(same_numbers(uneven, even));
  const Tensor keys = linear(Var(x), parameter_of(*mixer, "k.weight")).value();
  for (int64_t g = 0; g < 2; ++g) {
    double mean = 0;
    for (int64_t t = 0; t < n; ++t) {
      double square = 0;
      for (int64_t p = 0; p < 4; ++p) square += std::pow(double{keys.data()[t * 8 + g * 4 + p]}, 2);
      mean += std::sqrt(square) / n;
    }
    // Three passes with half memory, from 1 on.
    EXPECT_NEAR(parameter_of(*mixer, "dealt_by").value().data()[g], 0.125 + 0.875 * mean, 1e-5 * mean);
  }
  const auto cut = make_mixer(with(8, 2, {{"share", "minmax"}, {"position", "none"}}), d);
  copy_parameters(*mixer, *cut, kMaps);
  set_lengths(*cut, {1, 3});  // any others in the same order
  EXPECT_TRUE(same_numbers(run_alone(*cut, x), uneven));
}

TEST(SystemsP081, AQuarterOfTheCache) {
  const int64_t n = 200;
  EXPECT_EQ(4 * state_bytes(with(8, 2), n), state_bytes(plain(8, 8), n));
}

TEST(SpeedP081, ATokenAfter8192TakesHalfTheTime) {
  const int64_t d = 512, heads = 16;
  const auto few = make_mixer(with(heads, heads / 4), d), all = make_mixer(plain(heads, heads), d);
  set_lengths(*few, {1, 1.5, 2, 1.2f});
  SequenceState of_few, of_all;
  for (int64_t piece = 0; piece < 8; ++piece) {
    const Tensor x = normal_rows(1024, d, 1 + static_cast<uint64_t>(piece));
    run_alone(*few, x, &of_few), run_alone(*all, x, &of_all);
  }
  const Tensor token = normal_rows(1, d, 30);
  const double ratio = processor_ratio(
      31, [&] { run_alone(*few, token, &of_few); }, [&] { run_alone(*all, token, &of_all); });
  std::printf("a token after 8192: %.3f of multi-head attention's time\n", ratio);
  EXPECT_LE(ratio, 0.5);
}

StoredModel stored(Model& model) {
  StoredModel s;
  s.model_file = write_model_spec(model.spec());
  model.parameters([&](const std::string& name, Parameter& p) { s.tensors[name] = io::stored(p.value()); });
  return s;
}

TEST(SystemsP081, KeyHeadsBecomeTheirMeans) {
  const Json block = {{"mixer", plain(4, 4)}, {"channel", "mlp"}};
  Model model(read_model_spec(Json{{"vocab", 20}, {"d_model", 16}, {"blocks", {block, block}}}, "test"), Rng(1),
              "test");
  for (const char* mixer : {"softmax", "key_driven"}) {
    StoredModel s = stored(model);
    EXPECT_EQ(group_key_heads(s, {.kv_heads = 2, .mixer = mixer}), 2);
    const auto made = make_model(s);
    EXPECT_EQ(2 * made->state_bytes(100), model.state_bytes(100));
    const Tensor before = parameter_of(model, "blocks.1.mixer.v.weight").value(),
                 after = parameter_of(*made, "blocks.1.mixer.v.weight").value();
    ASSERT_EQ(after.rows(), 8);
    for (int64_t i = 0; i < after.elements(); ++i) {
      const int64_t at = i / 64 * 128 + i % 64;  // a head is 4 rows of 16
      EXPECT_NEAR(after.data()[i], (before.data()[at] + before.data()[at + 64]) / 2, 1e-7);
    }
    EXPECT_TRUE(same_numbers(parameter_of(*made, "blocks.0.mixer.q.weight").value(),
                             parameter_of(model, "blocks.0.mixer.q.weight").value()));
  }
  StoredModel s = stored(model);
  EXPECT_THROW(group_key_heads(s, {.kv_heads = 3}), Error);
  EXPECT_THROW(group_key_heads(s, {.kv_heads = 2, .mixer = "gla"}), Error);
}

// Multi-head attention trained on bytes of text, cut to a quarter of its key heads and trained on for a tenth.
TEST(SystemsP081, TrainedOnFromMultiHeadAttention) {
  constexpr int64_t kSteps = 400;
  const trained::Text text;
  const auto file = [](const Json& mixer) {
    const Json block = {{"mixer", mixer}, {"channel", "mlp"}};
    return Json{{"vocab", 256}, {"d_model", 64}, {"blocks", {block, block}}};
  };
  const auto dealt = [](const char* share) { return with(8, 2, {{"decay", 0.9}, {"every", 10}, {"share", share}}); };
  const Json kinds[] = {plain(8, 2), dealt("softmax"), dealt("minmax")};
  const trained::Rows kept = text.kept(128);
  double ahead[3] = {};
  int wins[3] = {};
  for (const uint64_t seed : {1, 2, 3}) {
    const auto batch = [&](int64_t, Rng rng) { return text.drawn(8, 128, rng); };
    trained::Trainee all(file(plain(8, 8)), {.steps = kSteps, .rate = 5e-3, .seed = seed});
    all.train(batch);
    double before[3], after[3];
    for (size_t i = 0; i < 3; ++i) {
      StoredModel s = stored(all.model());
      group_key_heads(s, {.kv_heads = 2, .mixer = kinds[i].at("name")});
      const auto grouped = make_model(s);
      trained::Trainee few(file(kinds[i]), {.steps = kSteps / 10, .rate = 2e-3, .seed = seed});
      trained::copy_weights(*grouped, few.model());
      before[i] = 100 * few.accuracy(kept);
      few.train(batch);
      after[i] = 100 * few.accuracy(kept);
      EXPECT_EQ(before[i], before[0]);
      ahead[i] += (after[i] - after[0]) / 3;
      wins[i] += after[i] > after[0];
    }
    std::printf(
        "seed %d: all heads %.2f %%; cut to a quarter %.2f; trained on: even groups %.2f, by softmax %.2f, by "
        "min-max %.2f\n",
        static_cast<int>(seed), 100 * all.accuracy(kept), before[0], after[0], after[1], after[2]);
  }
  for (const size_t i : {1, 2}) {
    std::printf("%s: ahead of even groups by %.2f points, in %d of 3 seeds\n", json_text(kinds[i]).c_str(), ahead[i],
                wins[i]);
  }
  EXPECT_GE(ahead[1], -0.5);
}

}  // namespace sennit::systems_p081_test
