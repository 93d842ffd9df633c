// The maps from scores to weights beside the softmax, and blocks, against loops in double.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernels/attention.h"
#include "support/buffers.h"
#include "support/gradients.h"
#include "support/levels.h"

namespace sennit::attention_maps_test {

using kernels::AttentionTask;
using kernels::ScoreMap;
using Doubles = std::vector<double>;

constexpr int64_t kKey = 5, kValue = 19;

struct Form {
  const char* name;
  ScoreMap map;
  int64_t power = 2;
  bool causal = true;
  int64_t window = 0, block = 0;
  float count_bias = 1, epsilon = 0, clip_high = 1.04f;
};
const Form kForms[] = {{.name = "softmax in blocks", .map = ScoreMap::softmax, .block = 11},
                       {.name = "softmax in blocks, both ways", .map = ScoreMap::softmax, .causal = false, .block = 70},
                       {.name = "clipped", .map = ScoreMap::clipped},
                       {.name = "clipped, both ways", .map = ScoreMap::clipped, .causal = false, .clip_high = 1},
                       {.name = "clipped, window", .map = ScoreMap::clipped, .window = 9},
                       {.name = "sigmoid", .map = ScoreMap::sigmoid},
                       {.name = "sigmoid, no bias, window", .map = ScoreMap::sigmoid, .window = 70, .count_bias = 0},
                       {.name = "power 2", .map = ScoreMap::power},
                       {.name = "power 4, window", .map = ScoreMap::power, .power = 4, .window = 20, .epsilon = 0.5f},
                       {.name = "power 6, both ways", .map = ScoreMap::power, .power = 6, .causal = false}};

struct Inputs {
  Doubles q, k, v;
};

struct Sample {
  Form form;
  int64_t queries, keys, offset, position;
  Fenced q, k, v;
  Sample(const Form& f, int64_t n, int64_t past, uint64_t seed)
      : form(f), queries(n), keys(n + past), offset(past), position(past + 3), q(0), k(0), v(0) {
    Rng rng(seed);
    q = Fenced::normal(rng, n * kKey), k = Fenced::normal(rng, keys * kKey), v = Fenced::normal(rng, keys * kValue);
  }
  AttentionTask task() const {
    return {.q = q.data(),
            .k = k.data(),
            .v = v.data(),
            .q_stride = kKey,
            .k_stride = kKey,
            .v_stride = kValue,
            .queries = queries,
            .keys = keys,
            .key_dim = kKey,
            .value_dim = kValue,
            .offset = offset,
            .causal = form.causal,
            .window = form.window,
            .block = form.block,
            .position = position,
            .scale = 0.7f,
            .map = form.map,
            .clip_low = 4,
            .clip_high = form.clip_high,
            .count_bias = form.count_bias,
            .power = form.power,
            .epsilon = form.epsilon};
  }
  Inputs doubles() const { return {q.doubles(), k.doubles(), v.doubles()}; }
  bool sees(int64_t i, int64_t j) const {
    const int64_t at = i + offset, shift = position - offset;  // of key 0 in its sequence
    return (!form.causal || j <= at) && (form.window == 0 || j > at - form.window) &&
           (form.block == 0 || (position + i) / form.block == (j + shift) / form.block);
  }
  Doubles weights(const Inputs& in, int64_t i) const {
    Doubles s(keys), w(keys);
    double count = 0, total = 0;
    for (int64_t j = 0; j < keys; ++j) {
      for (int64_t c = 0; c < kKey; ++c) s[j] += 0.7f * in.q[i * kKey + c] * in.k[j * kKey + c];
      count += sees(i, j);
      total += !sees(i, j) ? 0 : form.map == ScoreMap::power ? std::pow(s[j], form.power) : std::exp(s[j]);
    }
    for (int64_t j = 0; j < keys; ++j) {
      if (!sees(i, j)) continue;
      const double low = -4 / count, share = std::exp(s[j]) / total;
      switch (form.map) {
        case ScoreMap::softmax:
          w[j] = share;
          break;
        case ScoreMap::clipped:
          w[j] = std::min(1.0, std::max(0.0, (form.clip_high - low) * share + low));
          break;
        case ScoreMap::sigmoid:
          w[j] = 1 / (1 + std::exp(-(s[j] - form.count_bias * std::log(count))));
          break;
        case ScoreMap::power:
          w[j] = std::pow(s[j], form.power) / (form.epsilon + total);
          break;
      }
    }
    return w;
  }
  Doubles outputs(const Inputs& in) const {
    Doubles o(queries * kValue);
    for (int64_t i = 0; i < queries; ++i) {
      const Doubles w = weights(in, i);
      for (int64_t j = 0; j < keys; ++j)
        for (int64_t c = 0; c < kValue; ++c) o[i * kValue + c] += w[j] * in.v[j * kValue + c];
    }
    return o;
  }
};

struct Output {
  Fenced o, stat;
};
Output forward(const AttentionTask& t, int64_t step) {
  Output out{Fenced(t.queries * kValue, NAN), Fenced(t.queries, NAN)};
  Fenced scratch(kernels::attention().scratch_floats(t), NAN);
  for (int64_t b = 0; b < t.queries; b += step)
    kernels::attention().forward(t, b, std::min(t.queries, b + step), out.o.data(), kValue, out.stat.data(),
                                 scratch.data());
  EXPECT_TRUE(out.o.intact() && out.stat.intact() && scratch.intact());
  return out;
}

TEST(AttentionMaps, AgreeWithDouble) {
  for_each_level([](IsaLevel) {
    for (const Form& form : kForms)
      for (const int64_t n : {1, 2, 63, 64, 65, 130})
        for (const int64_t past : {0, 5, 64}) {
          const Sample x(form, n, past, static_cast<uint64_t>(n));
          const Output got = forward(x.task(), 96);
          const Doubles want = x.outputs(x.doubles());
          for (int64_t i = 0; i < got.o.size(); ++i)
            ASSERT_NEAR(got.o[i], want[static_cast<size_t>(i)], 2e-5) << form.name << " " << n << " " << past;
        }
  });
}

TEST(AttentionMaps, ARowHasTheSameBitsHoweverTheWorkIsCut) {
  for_each_level([](IsaLevel) {
    for (const Form& form : kForms) {
      const Sample x(form, 130, 7, 3);
      const Output whole = forward(x.task(), 130), parts = forward(x.task(), 7);
      ASSERT_EQ(std::memcmp(whole.o.data(), parts.o.data(), static_cast<size_t>(whole.o.size()) * 4), 0) << form.name;
    }
  });
}

TEST(AttentionMaps, WhatIsNotSeenMayBeAnything) {
  for_each_level([](IsaLevel) {
    for (const Form& form : kForms) {
      Sample x(form, 80, 0, 4);
      const Output before = forward(x.task(), 80);
      for (int64_t c = 0; c < kKey; ++c) x.k[40 * kKey + c] = NAN;
      for (int64_t c = 0; c < kValue; ++c) x.v[40 * kValue + c] = NAN;
      const Output after = forward(x.task(), 80);
      for (int64_t i = 0; i < 80; ++i)
        if (!x.sees(i, 40)) {
          ASSERT_EQ(std::memcmp(before.o.data() + i * kValue, after.o.data() + i * kValue, kValue * 4), 0)
              << form.name << " " << i;
        }
    }
  });
}

TEST(AttentionMaps, GradientsAreThoseOfCentralDifferences) {
  for_each_level([](IsaLevel) {
    Rng rng(5);
    for (const Form& form : kForms)
      for (const int64_t n : {1, 17, 70}) {
        const Sample x(form, n, 3, static_cast<uint64_t>(n));
        const AttentionTask t = x.task();
        SCOPED_TRACE(std::string(form.name) + " " + std::to_string(n));
        const Output got = forward(t, 96);
        const Fenced d = Fenced::normal(rng, n * kValue);
        Fenced dq(x.q.size()), dk(x.k.size()), dv(x.v.size()), scratch(kernels::attention().scratch_floats(t), NAN);
        kernels::attention().backward(t, got.o.data(), d.data(), kValue, got.stat.data(), dq.data(), dk.data(),
                                      dv.data(), kKey, kKey, kValue, scratch.data());
        ASSERT_TRUE(scratch.intact());
        const Inputs in = x.doubles();
        const auto along = losses(in, [&](const Inputs& at) { return x.outputs(at); }, d);
        expect_gradient("dq", along(&Inputs::q), in.q, dq, 1e-4, rng);
        expect_gradient("dk", along(&Inputs::k), in.k, dk, 1e-4, rng);
        expect_gradient("dv", along(&Inputs::v), in.v, dv, 1e-5, rng);
      }
  });
}

}  // namespace sennit::attention_maps_test
