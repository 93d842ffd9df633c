// ScatterFormer (He et al., arXiv:2401.00912): linear attention in windows of scattered tokens, and strips across them.
#include <gtest/gtest.h>

#include "model/model.h"
#include "norms/norm.h"
#include "ops/maps.h"
#include "sequence/place_conv.h"
#include "sequence/whole.h"
#include "sequence/windows.h"
#include "support/images.h"
#include "support/mixer_timing.h"
#include "support/timing.h"

namespace sennit::systems_p148_test {

Json with(const Json& options) {
  Json part = {{"name", "scattered"}};
  part.update(options);
  return part;
}

// Tokens in windows of so many each, at different places of them, in any order.
constexpr int64_t kSide = 8, kAcross = 6;  // of a window; windows in a row
std::vector<Place> scattered(const std::vector<int64_t>& sizes, Rng rng) {
  std::vector<Place> places;
  for (int64_t w = 0; w < std::ssize(sizes); ++w) {
    std::vector<int64_t> cells(kSide * kSide);
    for (size_t i = 0; i < cells.size(); ++i) cells[i] = static_cast<int64_t>(i);
    for (int64_t i = 0; i < sizes[static_cast<size_t>(w)]; ++i) {
      std::swap(cells[static_cast<size_t>(i)], cells[static_cast<size_t>(i + rng.below(std::ssize(cells) - i))]);
      const int64_t cell = cells[static_cast<size_t>(i)];
      places.push_back({w / kAcross * kSide + cell / kSide, w % kAcross * kSide + cell % kSide});
    }
  }
  for (int64_t i = std::ssize(places) - 1; i > 0; --i)
    std::swap(places[static_cast<size_t>(i)], places[static_cast<size_t>(rng.below(i + 1))]);
  return places;
}

Tensor run_at(Mixer& mixer, const Tensor& x, std::span<const Place> places, std::span<const Segment> segments = {}) {
  NoGrad off;
  const Context context;
  const Segment whole[] = {{0, x.rows(), 0, nullptr}};
  Batch batch{segments.empty() ? whole : segments, &context, Pattern::bidirectional};
  batch.places = places;
  return mixer.forward(Var(x), batch).value();
}

naive::Weights weights_of(Module& module) {
  naive::Weights w;
  module.parameters([&](const std::string& name, Parameter& p) {
    naive::Matrix m(p.value().rank() == 1 ? 1 : p.value().rows(),
                    p.value().rank() == 1 ? p.value().elements() : p.value().row_size());
    m.a.assign(p.value().span().begin(), p.value().span().end());
    w[name] = m;
  });
  return w;
}
naive::Matrix doubles(const Tensor& x) {
  naive::Matrix m(x.rows(), x.row_size());
  m.a.assign(x.span().begin(), x.span().end());
  return m;
}

// Every window padded to the largest one, with a mask: in double.
Tensor padded_in_double(Mixer& mixer, const Tensor& x, std::span<const Place> places, const char* map, int64_t heads) {
  const naive::Weights w = weights_of(mixer);
  const naive::Matrix in = doubles(x), q = naive::linear(in, w, "q"), k = naive::linear(in, w, "k"),
                      v = naive::linear(in, w, "v");
  std::map<std::pair<int64_t, int64_t>, std::vector<int64_t>> windows;
  for (int64_t t = 0; t < x.rows(); ++t)
    windows[{places[static_cast<size_t>(t)].row / kSide, places[static_cast<size_t>(t)].column / kSide}].push_back(t);
  size_t most = 0;
  for (const auto& [place, tokens] : windows) most = std::max(most, tokens.size());
  const int64_t dim = q.cols / heads;
  naive::Matrix y(x.rows(), q.cols);
  for (auto& [place, tokens] : windows) {
    const size_t count = tokens.size();
    tokens.resize(most, -1);
    for (int64_t h = 0; h < heads; ++h)
      for (size_t i = 0; i < count; ++i) {
        std::vector<double> sum(static_cast<size_t>(dim));
        double total = 1e-6;
        for (const int64_t j : tokens) {
          double weight = 0;
          for (int64_t p = h * dim; p < (h + 1) * dim && j >= 0; ++p)
            weight += naive::activation(map, q(tokens[i], p)) * naive::activation(map, k(j, p));
          total += weight;
          for (int64_t p = 0; p < dim && j >= 0; ++p) sum[static_cast<size_t>(p)] += weight * v(j, h * dim + p);
        }
        for (int64_t p = 0; p < dim; ++p) y(tokens[i], h * dim + p) = sum[static_cast<size_t>(p)] / total;
      }
  }
  const naive::Matrix said = naive::linear(y, w, "out");
  Tensor t(x.shape());
  for (int64_t i = 0; i < t.elements(); ++i) t.data()[i] = static_cast<float>(said.a[static_cast<size_t>(i)]);
  return t;
}

TEST(SystemsP148, RaggedWindowsAreThoseOfPaddedAttention) {
  Rng rng(3);
  for (const char* map : {"relu", "elu"})
    for (int round = 0; round < 2; ++round) {
      std::vector<int64_t> sizes(3 * kAcross);
      for (int64_t& size : sizes) size = rng.below(3) ? rng.below(40) : rng.below(2);
      sizes[0] = 0, sizes[1] = 1, sizes[2] = kSide * kSide;
      const auto places = scattered(sizes, rng.fork("places").fork(static_cast<uint64_t>(round)));
      const auto mixer = make_mixer(with({{"map", map}}), 32);
      const Tensor x = normal_rows(std::ssize(places), 32, 2);
      EXPECT_LE(most_apart(run_at(*mixer, x, places), padded_in_double(*mixer, x, places, map, 4)), 1e-5) << map;
    }
}

// The laws hold mixers to their definitions on grids; this is for places.
TEST(SystemsP148, ScatteredTokensAreThoseOfTheDefinition) {
  const auto places = scattered({5, 0, 30, 1, 12, 3, 0, 64}, Rng(1));
  const Tensor x = normal_rows(std::ssize(places), 32, 2);
  for (const char* name : {"scattered", "strip_conv", "hilo"}) {
    const auto mixer = make_mixer(name, 32);
    const naive::Weights w = weights_of(*mixer);
    const naive::Matrix in = doubles(x);
    NaiveRun run{.w = w, .x = in, .pattern = Pattern::bidirectional, .places = places};
    const naive::Matrix definition = mixer->naive(run);
    Tensor wanted(x.shape());
    for (int64_t i = 0; i < wanted.elements(); ++i)
      wanted.data()[i] = static_cast<float>(definition.a[static_cast<size_t>(i)]);
    EXPECT_LE(most_apart(run_at(*mixer, x, places), wanted), 1e-5) << name;
  }
}

TEST(SystemsP148, ScenesOfABatchDoNotMeet) {
  const auto a = scattered({5, 0, 30, 1}, Rng(1)), b = scattered({20, 7, 0, 0, 0, 64}, Rng(2));
  std::vector<Place> all = a;
  all.insert(all.end(), b.begin(), b.end());
  const int64_t na = std::ssize(a), nb = std::ssize(b);
  const Tensor x = normal_rows(na + nb, 32, 2);
  const Segment scenes[] = {{0, na, 0, nullptr}, {na, 0, 0, nullptr}, {na, nb, 0, nullptr}};
  for (const char* name : {"scattered", "strip_conv", "hilo"}) {
    const auto mixer = make_mixer(name, 32);
    const Tensor y = run_at(*mixer, x, all, scenes);
    EXPECT_LE(most_apart(y.slice(0, na), run_at(*mixer, x.slice(0, na).clone(), a)), 1e-6) << name;
    EXPECT_LE(most_apart(y.slice(na, nb), run_at(*mixer, x.slice(na, nb).clone(), b)), 1e-6) << name;
  }
}

TEST(SystemsP148, TokensInAnotherOrderAreAnsweredInIt) {
  const auto places = scattered({9, 1, 0, 40, 3, 3, 17}, Rng(1));
  const int64_t n = std::ssize(places);
  std::vector<int64_t> order(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) order[static_cast<size_t>(i)] = (i * 5 + 3) % n;
  ASSERT_NE(n % 5, 0);
  const Tensor x = normal_rows(n, 32, 2), turned = gather_rows(Var(x), order).value();
  std::vector<Place> there;
  for (const int64_t i : order) there.push_back(places[static_cast<size_t>(i)]);
  for (const char* name : {"scattered", "strip_conv", "hilo"}) {
    const auto mixer = make_mixer(name, 32);
    const Tensor y = gather_rows(Var(run_at(*mixer, x, places)), order).value();
    EXPECT_LE(most_apart(run_at(*mixer, turned, there), y), 1e-6) << name;
  }
}

// Where all tokens of a window keep their places but one, only that window hears of it; strips carry it further.
TEST(SystemsP148, StripsCrossWindows) {
  const auto places = scattered(std::vector<int64_t>(12, 40), Rng(1));
  const int64_t n = std::ssize(places);
  const Tensor x = normal_rows(n, 32, 2);
  Tensor other = x.clone();
  for (float& v : other.slice(0, 1).span()) v += 1;
  const auto moved = [&](const Json& part) {
    const auto mixer = make_mixer(part, 32);
    const Tensor before = run_at(*mixer, x, places), after = run_at(*mixer, other, places);
    std::vector<bool> rows;
    for (int64_t t = 0; t < n; ++t) rows.push_back(!same_numbers(before.slice(t, 1), after.slice(t, 1)));
    return rows;
  };
  const std::vector<bool> attended = moved("scattered"), convolved = moved("strip_conv");
  int64_t outside = 0;
  for (size_t t = 0; t < places.size(); ++t) {
    const Place a = places[0], b = places[t];
    if (a.row / kSide == b.row / kSide && a.column / kSide == b.column / kSide) continue;
    EXPECT_FALSE(attended[t]) << t;
    outside += convolved[t];
  }
  EXPECT_GT(outside, 0);
}

// The convolution of tokens that are there is that of the plane with zeros where there are none.
TEST(SystemsP148, StripsAreThoseOfAPlaneFilledWithZeros) {
  constexpr int64_t kColumns = kSide * kAcross, kRows = 2 * kSide;
  const auto places = scattered({20, 0, 1, 64, 9, 30, 12, 5}, Rng(4));
  const int64_t n = std::ssize(places);
  const auto mixer = make_mixer("strip_conv", 32),
             filled = make_mixer({{"name", "strip_conv"}, {"columns", kColumns}}, 32);
  const Tensor x = normal_rows(n, 32, 2);
  Tensor plane = Tensor::zeros({kRows * kColumns, 32}), wanted(x.shape());
  const auto at = [&](int64_t t) {
    return places[static_cast<size_t>(t)].row * kColumns + places[static_cast<size_t>(t)].column;
  };
  for (int64_t t = 0; t < n; ++t) plane.slice(at(t), 1).copy_from(x.slice(t, 1));
  const Tensor y = run_alone(*filled, plane, nullptr, Pattern::bidirectional);
  for (int64_t t = 0; t < n; ++t) wanted.slice(t, 1).copy_from(y.slice(at(t), 1));
  EXPECT_LE(most_apart(run_at(*mixer, x, places), wanted), 1e-6);
}

TEST(SystemsP148, WhatCannotBeScatteredIsRefused) {
  const Tensor x = normal_rows(4, 32, 2);
  const std::vector<Place> good = {{0, 0}, {0, 5}, {9, 1}, {2, 2}}, twice = {{0, 0}, {0, 5}, {0, 0}, {2, 2}},
                           outside = {{0, 0}, {0, 5}, {-1, 1}, {2, 2}}, few = {{0, 0}};
  const auto refuses = [&](const Json& part, const std::vector<Place>& places) {
    const auto mixer = make_mixer(part, 32);
    try {
      run_at(*mixer, x, places);
    } catch (const Error&) {
      return true;
    }
    return false;
  };
  for (const char* name : {"scattered", "strip_conv", "hilo"}) {
    EXPECT_FALSE(refuses(name, good)) << name;
    EXPECT_TRUE(refuses(name, outside)) << name;
    EXPECT_TRUE(refuses(name, few)) << name;
  }
  EXPECT_TRUE(refuses("strip_conv", twice));
  for (const char* name : {"pool", "atconv", "conv_glu"}) EXPECT_TRUE(refuses(name, good)) << name;
}

// A model file with both.
TEST(SystemsP148, AModelReadsScatteredTokens) {
  NoGrad off;
  const Json file = {
      {"vocab", 10},
      {"d_model", 16},
      {"pattern", "bidirectional"},
      {"blocks", {{{"mixer", "scattered"}, {"channel", "none"}}, {{"mixer", "strip_conv"}, {"channel", "mlp"}}}}};
  Model model(read_model_spec(file, "test"), Rng(1), "test");
  const std::vector<int32_t> tokens = {1, 2, 3, 4};
  const std::vector<Place> near = {{0, 0}, {0, 1}, {1, 0}, {1, 1}}, far = {{0, 0}, {0, 90}, {90, 0}, {1, 1}};
  const Segment whole[] = {{0, 4, 0, nullptr}};
  const Context context;
  const auto run = [&](std::span<const Place> places) {
    Batch batch{whole, &context, Pattern::bidirectional};
    batch.places = places;
    return model.hidden(tokens, batch).value();
  };
  EXPECT_GE(most_apart(run(near), run(far)), 1e-3);
}

// The same attention with every window padded to the largest one.
Var padded(Mixer& mixer, const Var& x, const Windows& w) {
  const auto map = [&](const Var& rows, const char* name) { return linear(rows, parameter_of(mixer, name)); };
  const int64_t heads = 4, count = std::ssize(w.windows);
  int64_t most = 0;
  for (const Segment& s : w.windows) most = std::max(most, s.length);
  std::vector<int64_t> spread(static_cast<size_t>(count * most), x.rows()), back(static_cast<size_t>(x.rows()));
  std::vector<Segment> segments;
  for (int64_t i = 0; i < count; ++i) {
    segments.push_back({i * most, most, 0, nullptr});
    for (int64_t j = 0; j < w.windows[static_cast<size_t>(i)].length; ++j) {
      const int64_t row = w.order[static_cast<size_t>(w.windows[static_cast<size_t>(i)].begin + j)];
      spread[static_cast<size_t>(i * most + j)] = row, back[static_cast<size_t>(row)] = i * most + j;
    }
  }
  const auto spread_out = [&](const Var& rows) {
    const Var all[] = {rows, Var(Tensor::zeros({1, rows.columns()}))};
    return gather_rows(concat_rows(all), spread);
  };
  const Var q = spread_out(relu(map(x, "q.weight"))), k = spread_out(relu(map(x, "k.weight"))),
            v = spread_out(map(x, "v.weight"));
  const Var weight = sum_groups(q * sequence_sums(k, segments), heads);
  const Var said = multiply_groups(whole_products(q, k, v, segments, heads), inverse(affine(weight, 1, 1e-6f)));
  return map(gather_rows(said, back), "out.weight");
}

// Windows of places in one row, as many tokens in each as Zipf's law says.
struct Skewed {
  std::vector<Place> places;
  Windows windows;
  Skewed(int64_t count, int64_t most) {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t t = 0; t < most / (i + 1); ++t) places.push_back({t / kWide, i * kWide + t % kWide});
    const Segment whole[] = {{0, std::ssize(places), 0, nullptr}};
    windows = windows_of(whole, places, kWide);
  }
  static constexpr int64_t kWide = 64;
};
const Json kSkewed = with({{"side", Skewed::kWide}});

TEST(SystemsP148, HalfTheMemoryOfPaddingOnSkewedWindows) {
  NoGrad off;
  const Skewed s(64, 600);
  const auto mixer = make_mixer(kSkewed, 32);
  const Tensor x = normal_rows(std::ssize(s.places), 32, 2);
  EXPECT_LE(most_apart(run_at(*mixer, x, s.places), padded(*mixer, Var(x), s.windows).value()), 1e-5);
  const auto peak = [&](auto&& run) {
    reset_memory_peak();
    const int64_t base = memory_counters().live;
    run();
    return static_cast<double>(memory_counters().peak - base);
  };
  const double ours = peak([&] { run_at(*mixer, x, s.places); }),
               theirs = peak([&] { padded(*mixer, Var(x), s.windows); });
  std::printf("%lld tokens in %lld windows: %.1f MB, padded %.1f MB\n", static_cast<long long>(x.rows()),
              static_cast<long long>(s.windows.windows.size()), ours / 1e6, theirs / 1e6);
  EXPECT_LE(ours, 0.5 * theirs);
}

TEST(SpeedP148, TwiceAsFastAsPaddingOnSkewedWindows) {
  NoGrad off;
  const Skewed s(128, 1000);
  const auto mixer = make_mixer(kSkewed, 32);
  const Tensor x = normal_rows(std::ssize(s.places), 32, 2);
  const double ratio = processor_ratio(
      5, [&] { padded(*mixer, Var(x), s.windows); }, [&] { run_at(*mixer, x, s.places); });
  std::printf("padded against scattered: %.1f of the time\n", ratio);
  EXPECT_GE(ratio, 2);
}

TEST(SpeedP148, TimeIsLinear) {
  constexpr int64_t kWidth = 128;  // as in the paper
  const auto mixer = make_mixer("scattered", kWidth);
  const auto scene = [](int64_t n) {  // about twelve tokens in a window
    std::vector<Place> places;
    const int64_t columns = static_cast<int64_t>(std::sqrt(5.0 * static_cast<double>(n)));
    for (int64_t t = 0; t < n; ++t) places.push_back({(5 * t + t % 3) / columns, (5 * t + t % 3) % columns});
    return places;
  };
  const auto few = scene(10000), many = scene(100000);
  const Tensor small = normal_rows(10000, kWidth, 1), large = normal_rows(100000, kWidth, 2);
  const double ratio = processor_ratio(
      5, [&] { run_at(*mixer, large, many); }, [&] { run_at(*mixer, small, few); });
  std::printf("a hundred thousand tokens against ten thousand: %.2f of the time\n", ratio);
  EXPECT_LT(ratio, 12);
}

// Clouds of points: where the strokes of a digit are, some of them lost, among some that are not of it.
struct Clouds {
  std::vector<Place> places;
  std::vector<Segment> segments;
  std::vector<int32_t> classes;

  Clouds(int64_t count, Rng rng) {
    constexpr int64_t kPlane = 20;
    for (int64_t n = 0; n < count; ++n) {
      Rng one = rng.fork(static_cast<uint64_t>(n));
      classes.push_back(static_cast<int32_t>(one.below(10)));
      const std::vector<float> ink = digits::drawn(classes.back(), kPlane, one.fork("strokes"));
      const int64_t begin = std::ssize(places);
      for (int64_t cell = 0; cell < kPlane * kPlane; ++cell) {
        const bool drawn = ink[static_cast<size_t>(cell)] > 0.5f;
        if (one.uniform() < (drawn ? 0.7 : 0.05)) places.push_back({cell / kPlane, cell % kPlane});
      }
      segments.push_back({begin, std::ssize(places) - begin, 0, nullptr});
    }
  }
  Tensor features() const {  // where a point lies, and a constant
    Tensor x({std::ssize(places), 3});
    for (int64_t t = 0; t < x.rows(); ++t) {
      const Place& p = places[static_cast<size_t>(t)];
      x.data()[3 * t] = static_cast<float>(p.row) / 10 - 1, x.data()[3 * t + 1] = static_cast<float>(p.column) / 10 - 1;
      x.data()[3 * t + 2] = 1;
    }
    return x;
  }
};

double accuracy_of_clouds(const Json& attention, uint64_t seed) {
  constexpr int64_t kWidth = 32, kSteps = 300;
  const Rng rng(seed);
  Linear in(3, kWidth, rng.fork("in"), {}), head(kWidth, 10, rng.fork("head"), {});
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<NamedParameter> parameters = named_parameters(in, "in.");
  const auto take = [&](Module& module, const std::string& name) {
    const auto more = named_parameters(module, name);
    parameters.insert(parameters.end(), more.begin(), more.end());
  };
  take(head, "head.");
  const Json strips = {{"name", "strip_conv"}, {"strip", 5}}, none = "none", mlp = "mlp", norm = "layernorm";
  for (int64_t b = 0; b < 4; ++b) {  // attention in windows, then strips and a network, twice
    const bool windows = b % 2 == 0;
    blocks.push_back(sennit::blocks::registry().make("prenorm",
                                                     {.d_model = kWidth,
                                                      .depth = b,
                                                      .mixer = windows ? &attention : &strips,
                                                      .channel = windows ? &none : &mlp,
                                                      .norm = &norm,
                                                      .where = "test"},
                                                     rng.fork("block").fork(static_cast<uint64_t>(b)), "test"));
    take(*blocks.back(), "block." + std::to_string(b) + ".");
  }
  train::Descent descent(parameters, {.steps = kSteps, .rate = 5e-3, .warmup = kSteps / 10});
  const auto seen = [&](const Clouds& clouds, const Context& context) {
    Batch batch{clouds.segments, &context, Pattern::bidirectional};
    batch.places = clouds.places;
    Var x = in(Var(clouds.features()), context);
    for (const auto& block : blocks) x = block->forward(x, batch);
    return sequence_means(x, clouds.segments);
  };
  for (int64_t step = 1; step <= kSteps; ++step) {
    const Context context{.training = true};
    const Clouds clouds(32, rng.fork("train").fork(static_cast<uint64_t>(step)));
    descent.step(linear_cross_entropy(seen(clouds, context), head.weight, clouds.classes), {}, step);
  }
  NoGrad off;
  const Clouds kept(1000, rng.fork("kept"));
  const Tensor said = matmul(seen(kept, {}), head.weight, {.transpose_b = true}).value();
  int64_t right = 0;
  for (int64_t i = 0; i < said.rows(); ++i) {
    const auto row = said.span().subspan(static_cast<size_t>(10 * i), 10);
    right += std::max_element(row.begin(), row.end()) - row.begin() == kept.classes[static_cast<size_t>(i)];
  }
  return static_cast<double>(right) / 1000;
}

TEST(SystemsP148, TrainedCloudsAreToldAsBySoftmaxInWindows) {
  double linear_attention = 0, softmax = 0;
  for (const uint64_t seed : {1, 2, 3}) {
    const double of_linear = accuracy_of_clouds(with({{"side", 4}}), seed),
                 of_softmax = accuracy_of_clouds({{"name", "hilo"}, {"alpha", 0}, {"side", 4}}, seed);
    std::printf("accuracy: scattered linear attention %.3f, softmax in windows %.3f\n", of_linear, of_softmax);
    linear_attention += of_linear / 3, softmax += of_softmax / 3;
  }
  EXPECT_GE(softmax, 0.8);
  EXPECT_GE(linear_attention, softmax - 0.02);
}

}  // namespace sennit::systems_p148_test
