#include "sequence/cache.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "base/error.h"
#include "base/parallel.h"
#include "decoding/generate.h"
#include "sequence/sparse_attention.h"
#include "state/state_file.h"
#include "support/levels.h"
#include "support/models.h"
#include "support/temp_folder.h"

namespace sennit::cache_test {

using kernels::cached_units;
using kernels::kCachedRun;

constexpr CacheFormat kLow[] = {CacheFormat::bf16, CacheFormat::f16, CacheFormat::q8_0};

Tensor random_rows(int64_t rows, int64_t columns, uint64_t seed, double size = 1) {
  Tensor x({rows, columns});
  Rng rng(seed);
  for (float& v : x.span()) v = static_cast<float>(size * rng.normal());
  return x;
}

bool same(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

// The nearest number with so many bits after the first, ties to even, by arithmetic on doubles alone.
double nearest(double x, int bits, int lowest_exponent, double largest) {
  if (x == 0) return 0;
  const double step = std::ldexp(1, std::max(std::ilogb(x), lowest_exponent) - bits);
  const double y = std::nearbyint(x / step) * step;
  return std::fabs(y) > largest ? std::copysign(largest, x) : y;
}
double nearest_f16(double x) {
  return nearest(x, 10, -14, 65504);
}
double nearest_bf16(double x) {
  return nearest(x, 7, -126, INFINITY);
}

double f16_of_bits(uint16_t h) {
  const int exponent = h >> 10 & 31, fraction = h & 1023;
  const double size = exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
  return h & 0x8000 ? -size : size;
}

using Keep = std::function<Tensor(const Tensor& rows, int64_t heads, CacheFormat format)>;

// What is wrong with a head of kept rows: every number must be the nearest that its format has for it.
std::string head_fault(const float* x, const std::byte* kept, int64_t dim, CacheFormat format) {
  const auto half = [&](int64_t byte) {
    uint16_t h;
    std::memcpy(&h, kept + byte, 2);
    return h;
  };
  for (int64_t c = 0; c < dim; ++c) {
    if (format == CacheFormat::f16 && f16_of_bits(half(2 * c)) != nearest_f16(x[c])) return "not the nearest f16";
    if (format == CacheFormat::bf16 && std::bit_cast<float>(uint32_t{half(2 * c)} << 16) != nearest_bf16(x[c]))
      return "not the nearest bf16";
    if (format != CacheFormat::q8_0) continue;
    const int64_t run = c / kCachedRun * kCachedRun, end = std::min(dim, run + kCachedRun);
    float most = 0;
    for (int64_t i = run; i < end; ++i) most = std::max(most, std::fabs(x[i]));
    const double scale = f16_of_bits(half(dim + run / kCachedRun * 2));
    const double before = f16_of_bits(static_cast<uint16_t>(half(dim + run / kCachedRun * 2) - 1));
    if (scale * 127 < most || before * 127 >= most) return "not its block's scale";
    const double value = scale * static_cast<int8_t>(kept[c]);
    if (std::fabs(value - x[c]) > scale * 0.5000002) return "not the nearest code";
  }
  return "";
}

// Law: rows are rounded once, each number by itself or with its block, to the nearest, however they come.
std::string rounds_once(const Keep& keep) {
  for (const CacheFormat format : kLow)
    for (const int64_t dim : {1, 7, 31, 32, 33, 64, 80})
      for (const double size : {1e-3, 1.0, 300.0}) {
        constexpr int64_t kHeads = 3, kRows = 5;
        const Tensor x = random_rows(kRows, kHeads * dim, static_cast<uint64_t>(dim), size);
        const Tensor kept = keep(x, kHeads, format);
        const int64_t units = cached_units(format, dim);
        if (kept.shape() != Shape{kRows, kHeads * units} || kept.dtype() != cache_dtype(format)) return "shape";
        for (int64_t i = 0; i < kRows * kHeads; ++i) {
          const std::byte* head = kept.raw() + i * units * dtype_bits(kept.dtype()) / 8;
          if (const std::string wrong = head_fault(x.data() + i * dim, head, dim, format); !wrong.empty()) return wrong;
        }
        for (int64_t i = 0; i < kRows; ++i)
          if (!same(keep(x.slice(i, 1), kHeads, format), kept.slice(i, 1))) return "not by rows";
      }
  return "";
}

Tensor rounded_twice(const Tensor& x, int64_t heads, CacheFormat format) {
  const CacheFormat before = format == CacheFormat::q8_0 ? CacheFormat::bf16 : CacheFormat::q8_0;
  return rounded(widened(rounded(x, heads, before), heads), heads, format);
}

Tensor with_stale_scales(const Tensor& x, int64_t heads, CacheFormat format) {
  Tensor kept = rounded(x, heads, format);
  const int64_t dim = x.row_size() / heads, units = kept.row_size() / heads;
  if (format == CacheFormat::q8_0)
    for (int64_t i = 0; i < kept.rows() * heads; ++i)
      for (int64_t run = 1; run * kCachedRun < dim; ++run) {
        uint8_t* scales = kept.data<uint8_t>() + i * units + dim;
        std::memcpy(scales + 2 * run, scales, 2);
      }
  return kept;
}

TEST(Cache, RowsAreRoundedOnceToTheNearest) {
  EXPECT_EQ(rounds_once(rounded), "");
  EXPECT_NE(rounds_once(rounded_twice), "");
  EXPECT_NE(rounds_once(with_stale_scales), "");
}

TEST(Cache, WideningIsExactAndBack) {
  for (const CacheFormat format : kLow) {
    const Tensor kept = rounded(random_rows(4, 3 * 45, 2), 3, format), wide = widened(kept, 3);
    EXPECT_EQ(wide.shape(), (Shape{4, 3 * 45}));
    EXPECT_EQ(cached_numbers(kept, 3), 45);
    if (format != CacheFormat::q8_0) {
      EXPECT_TRUE(same(rounded(wide, 3, format), kept));
      continue;
    }
    const int64_t units = cached_units(format, 45);
    for (int64_t i = 0; i < 12; ++i)
      for (int64_t c = 0; c < 45; ++c) {
        uint16_t scale;
        std::memcpy(&scale, kept.data<uint8_t>() + i * units + 45 + c / 32 * 2, 2);
        EXPECT_EQ(wide.data()[i * 45 + c],
                  f16_of_bits(scale) * static_cast<int8_t>(kept.data<uint8_t>()[i * units + c]));
      }
  }
}

TEST(Cache, WhatIsNotFiniteIsNotHidden) {
  Tensor x = random_rows(1, 64, 1);
  x.data()[3] = NAN, x.data()[40] = 1e6f;
  EXPECT_TRUE(std::isnan(widened(rounded(x, 1, CacheFormat::q8_0), 1).data()[5]));
  EXPECT_FALSE(std::isnan(widened(rounded(x, 1, CacheFormat::q8_0), 1).data()[41]));
  EXPECT_TRUE(std::isnan(widened(rounded(x, 1, CacheFormat::f16), 1).data()[3]));
  EXPECT_EQ(widened(rounded(x, 1, CacheFormat::f16), 1).data()[40], 65504);
  EXPECT_EQ(widened(rounded(Tensor::zeros({1, 64}), 1, CacheFormat::q8_0), 1).data()[0], 0);
}

struct AttentionCase {
  int64_t queries, keys, heads, kv_heads, key_dim, value_dim;
};
constexpr AttentionCase kCases[] = {{1, 1, 1, 1, 1, 1},       {1, 63, 4, 2, 64, 64},   {1, 64, 2, 2, 33, 20},
                                    {1, 300, 8, 1, 80, 48},   {7, 65, 2, 1, 16, 40},   {100, 130, 4, 4, 32, 32},
                                    {97, 200, 2, 1, 20, 100}, {1, 1300, 8, 2, 64, 64}, {1, 700, 3, 3, 128, 64},
                                    {5, 200, 4, 2, 64, 192},  {1, 129, 12, 1, 32, 96}};

// Queries as a few of them meet codes: multiples of a 127 * 128th of the largest number of their head.
Tensor in_digits(const Tensor& q, int64_t heads) {
  Tensor y = q.clone();
  const int64_t dim = q.row_size() / heads;
  for (int64_t i = 0; i < q.rows() * heads; ++i) {
    const std::span<float> head(y.data() + i * dim, dim);
    float largest = 0;
    for (const float x : head) largest = std::max(largest, std::abs(x));
    for (float& x : head) x = std::rint(x * (16256 / largest)) * (largest / 16256);
  }
  return y;
}

// Law: attention reads a cache as it is: the bits of attention over the rounded rows as floats, and outside exact mode
// what is near them, of codes those of queries in digits.
TEST(Cache, AttentionReadsWhatWasKeptToTheBit) {
  NoGrad off;
  for_each_level([](IsaLevel level) {
    for (const AttentionCase& a : kCases)
      for (const CacheFormat format : kLow) {
        const Var q(random_rows(a.queries, a.heads * a.key_dim, 1));
        const Var k(rounded(random_rows(a.keys, a.kv_heads * a.key_dim, 2), a.kv_heads, format)),
            v(rounded(random_rows(a.keys, a.kv_heads * a.value_dim, 3), a.kv_heads, format));
        const Var wide_k(widened(k.value(), a.kv_heads)), wide_v(widened(v.value(), a.kv_heads));
        const AttentionSegment segment{0, a.queries, 0, 0, a.keys, a.keys - a.queries};
        const std::vector<float> slopes(a.heads, 0.1f);
        AttentionOptions o{.heads = a.heads, .kv_heads = a.kv_heads, .scale = 0.3f};
        const int64_t units = level == IsaLevel::avx2 ? 32 : 64;
        const bool codes = format == CacheFormat::q8_0 && level != IsaLevel::scalar && a.key_dim % units == 0;
        // Weights times scales are rounded to 2^-15 of the largest in 64 rows: three deviations of a random walk.
        const double doubt = format == CacheFormat::q8_0 ? 2e-5 + 3 * 0x1p-15 * std::sqrt(64 / 12.0) : 2e-5;
        const Var met(codes ? in_digits(q.value(), a.heads) : q.value());
        const auto near = [&](const char* what) {
          AttentionOptions free = o;
          free.exact = false;
          const Tensor got = attention(q, {&k, 1}, {&v, 1}, {&segment, 1}, free).value(),
                       want = attention(met, {&wide_k, 1}, {&wide_v, 1}, {&segment, 1}, o).value();
          for (int64_t i = 0; i < got.elements(); ++i)
            ASSERT_NEAR(got.data()[i], want.data()[i], doubt)
                << what << ", " << to_string(format) << ", " << a.keys << " keys of " << a.key_dim;
        };
        const auto check = [&](const char* what) {
          near(what);
          EXPECT_TRUE(same(attention(q, {&k, 1}, {&v, 1}, {&segment, 1}, o).value(),
                           attention(q, {&wide_k, 1}, {&wide_v, 1}, {&segment, 1}, o).value()))
              << what << ", " << to_string(format) << ", " << a.keys << " keys";
        };
        check("causal");
        o.window = 40, check("window");
        o.slopes = slopes, check("biases");
        for (const ScoreMap map : {ScoreMap::clipped, ScoreMap::sigmoid, ScoreMap::power}) o.map = map, check("map");
        const SparseAttentionOptions sparse{.heads = a.heads, .kv_heads = a.kv_heads, .scale = 0.3f};
        const TileSource source = [&](size_t, int64_t, TileList& tiles) {
          std::vector<int32_t> odd;
          for (int32_t j = 1; j < tiles.keys(); j += 2) odd.push_back(j);
          tiles.add(odd, tiles.queries(), 0);
          tiles.add(Places{0, 1}, tiles.queries(), 0);
        };
        EXPECT_TRUE(same(sparse_attention(q, {&k, 1}, {&v, 1}, {&segment, 1}, sparse, source).value(),
                         sparse_attention(q, {&wide_k, 1}, {&wide_v, 1}, {&segment, 1}, sparse, source).value()))
            << "sparse, " << to_string(format) << ", " << a.keys << " keys";
      }
  });
}

// Codes of some keys and values, and queries at their end, so many at a time.
struct FewQueries {
  int64_t queries, keys, dim;
  Tensor q = random_rows(queries, 2 * dim, 1), k = rounded(random_rows(keys, dim, 2), 1, CacheFormat::q8_0),
         v = rounded(random_rows(keys, dim, 3), 1, CacheFormat::q8_0);

  std::vector<float> by(int64_t step) const {
    const AttentionOptions o{.heads = 2, .kv_heads = 1, .scale = 0.3f, .exact = false};
    const Var ks(k), vs(v);
    std::vector<float> y;
    for (int64_t i = 0; i < queries; i += step) {
      const int64_t some = std::min(step, queries - i);
      const AttentionSegment segment{0, some, 0, 0, keys, keys - queries + i};
      const Tensor part = attention(Var(q.slice(i, some)), {&ks, 1}, {&vs, 1}, {&segment, 1}, o).value();
      y.insert(y.end(), part.span().begin(), part.span().end());
    }
    return y;
  }
};

TEST(Cache, AFewQueriesMeetCodesEachForItself) {
  NoGrad off;
  for_each_level([](IsaLevel) {
    for (const int64_t dim : {32, 64, 96, 128})
      for (const int64_t keys : {5, 64, 130, 1041}) {
        const FewQueries x{4, keys, dim};
        const std::vector<float> whole = x.by(4);
        for (const int64_t step : {1, 2, 3}) EXPECT_TRUE(same_bits(x.by(step), whole)) << dim << " by " << step;
      }
  });
}

// What is not finite in a query or in the scale of a run reaches what depends on it, and nothing else.
TEST(Cache, WhatIsNotFiniteIsNotRoundedAway) {
  NoGrad off;
  for_each_level([](IsaLevel) {
    for (const float wrong : {NAN, INFINITY}) {
      FewQueries x{4, 130, 64};
      const std::vector<float> before = x.by(4);
      x.q.data()[2 * 128 + 70] = wrong;  // the second head of query 2
      const uint16_t bits = std::isnan(wrong) ? 0x7e00 : 0x7c00;
      uint8_t* const last = x.v.data<uint8_t>() + 129 * x.v.row_size();  // what query 3 alone sees
      std::memcpy(last + 64 + 2, &bits, 2);                              // the scale of its second run
      const std::vector<float> after = x.by(4);
      for (int64_t i = 0; i < 4 * 128; ++i) {
        const int64_t query = i / 128, head = i / 64 % 2, run = i / 32 % 2;
        if ((query == 2 && head == 1) || (query == 3 && run == 1))
          EXPECT_FALSE(std::isfinite(after[i])) << i;
        else
          EXPECT_EQ(after[i], before[i]) << i;
      }
    }
  });
}

// Each kind of mixer that keeps keys and values of heads.
Model model_of(const char* block) {
  Json file{{"vocab", 60}, {"d_model", 48}};
  file["blocks"] = {{{"repeat", 2}, {"mixer", json_of(block)}, {"channel", "none"}}};
  return Model(read_model_spec(file, "test"), Rng(3), "test");
}
constexpr const char* kMixers[] = {
    R"({"name": "softmax", "heads": 4, "kv_heads": 2})",
    R"({"name": "softmax", "heads": 1, "window": 70, "position": "alibi"})",
    R"({"name": "moba", "heads": 2, "block": 16, "top": 3})",
    R"({"name": "infllm_v2", "heads": 2, "block": 16, "top": 3, "unit": 4, "local": 1, "dense": 20})",
    R"({"name": "seer_attention", "heads": 2, "block": 16, "top": 3})",
    R"({"name": "sparse_transformer", "heads": 2, "stride": 8})",
    R"({"name": "power_attention", "heads": 2, "block": 16})",
    R"({"name": "subsampled", "heads": 2})",
    R"({"name": "expert_heads", "heads": 3})",
    R"({"name": "hopfield", "heads": 2})"};

std::vector<float> logits_after(Model& model, std::span<const int32_t> tokens, CacheFormat cache, int64_t piece) {
  Session s(model, {.cache = cache, .exact = true});
  const auto y = s.feed(tokens, piece);
  EXPECT_EQ(s.state().bytes(), model.state_bytes(std::ssize(tokens), cache));
  return {y.begin(), y.end()};
}

TEST(Cache, PiecesThreadsAndBytes) {
  const auto tokens = some_tokens(200);
  const int threads = thread_count();
  for (const char* mixer : kMixers) {
    SCOPED_TRACE(mixer);
    Model model = model_of(mixer);
    const std::vector<float> exact = logits_after(model, tokens, CacheFormat::f32, 200);
    for (const CacheFormat format : kLow) {
      SCOPED_TRACE(to_string(format));
      const std::vector<float> whole = logits_after(model, tokens, format, 200);
      EXPECT_FALSE(same_bits(whole, exact));
      for (const int64_t piece : {1, 7, 64, 150})
        EXPECT_TRUE(same_bits(logits_after(model, tokens, format, piece), whole));
      for (const int n : {1, 2, 3, 8}) {
        set_thread_count(n);
        EXPECT_TRUE(same_bits(logits_after(model, tokens, format, 200), whole)) << n << " threads";
      }
      set_thread_count(threads);
      EXPECT_LT(2 * model.state_bytes(4096, format), 1.2 * static_cast<double>(model.state_bytes(4096)));
    }
  }
}

TEST(Cache, NearTheModelInFloats) {
  const auto tokens = some_tokens(200);
  Model model = model_of(kMixers[0]);
  const std::vector<float> exact = logits_after(model, tokens, CacheFormat::f32, 200);
  EXPECT_LT(relative_distance(logits_after(model, tokens, CacheFormat::f16, 200), exact), 2e-3);
  EXPECT_LT(relative_distance(logits_after(model, tokens, CacheFormat::bf16, 200), exact), 1e-2);
  EXPECT_LT(relative_distance(logits_after(model, tokens, CacheFormat::q8_0, 200), exact), 2e-2);
}

TEST(Cache, SavedStatesSayTheirFormat) {
  TempFolder folder;
  const auto tokens = some_tokens(90), next = some_tokens(9, 60, 8);
  for (const char* mixer : kMixers) {
    Model model = model_of(mixer);
    for (const CacheFormat format : kLow) {
      Session session(model, {.cache = format}), restored(model, {.cache = format});
      session.feed(tokens);
      const Session copy = session.snapshot();
      const std::string path = folder / "s.safetensors";
      save_states(path, {&session.state()}, model.state_specs(), "m");
      restored.restore(std::move(load_states(path, model.state_specs(), "m", nullptr, format)[0]));
      Session cloned = copy.snapshot();
      for (const int32_t t : next) {
        const auto y = session.feed({&t, 1});
        EXPECT_TRUE(same_bits(y, restored.feed({&t, 1})));
        EXPECT_TRUE(same_bits(y, cloned.feed({&t, 1})));
      }
      for (const CacheFormat other : {CacheFormat::f32, CacheFormat::bf16, CacheFormat::q8_0}) {
        if (other == format) continue;
        const std::string error = error_of([&] { load_states(path, model.state_specs(), "m", nullptr, other); });
        EXPECT_NE(error.find(to_string(other)), std::string::npos) << error;
        EXPECT_NE(error.find(to_string(format)), std::string::npos) << error;
      }
    }
  }
}

TEST(Cache, NoGradientsThroughFewBits) {
  Model model = model_of(kMixers[0]);
  SequenceState state(CacheFormat::q8_0);
  const Segment segment[] = {{0, 5, 0, &state}};
  const Context context;
  const auto tokens = some_tokens(5);
  EXPECT_THROW(model.hidden(tokens, {segment, &context}), Error);
  EXPECT_THROW(parse_cache_format("q4_0", "test"), Error);
  for (const std::string& name : cache_formats()) EXPECT_EQ(to_string(parse_cache_format(name, "test")), name);
}

}  // namespace sennit::cache_test
