#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernels/long_conv.h"
#include "support/buffers.h"
#include "support/levels.h"

namespace sennit::long_conv_kernel_test {

using kernels::LongConvTask;

std::vector<float> turns_for(int64_t n) {
  std::vector<float> turns(static_cast<size_t>(2 * n));
  for (int64_t half = 1; half < n; half *= 2)
    for (int64_t j = 0; j < half; ++j) {
      const double angle = -M_PI * static_cast<double>(j) / static_cast<double>(half);
      turns[2 * (half + j)] = static_cast<float>(std::cos(angle)),
                        turns[2 * (half + j) + 1] = static_cast<float>(std::sin(angle));
    }
  return turns;
}

struct Case {
  int64_t rows, first, end, taps, channels;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const int64_t n : {1, 2, 5, 63, 64, 65, 127, 128, 129, 200, 300, 1000})
    for (const int64_t taps : {int64_t{1}, int64_t{3}, int64_t{64}, int64_t{150}, n, 2 * n}) {
      all.push_back({n, 0, n, taps, n % 3 ? 5 : 17});
      all.push_back({n, n / 3, n, taps, 9});
      all.push_back({n, n - 1, n, taps, 33});
      all.push_back({n - n / 2, 0, n, taps, 4});  // fewer rows than outputs: how gradients run
    }
  return all;
}

struct Trial {
  Case c;
  Fenced x, h;
  std::vector<float> turns;
  LongConvTask task;

  Trial(const Case& s, Rng& rng, bool exact)
      : c(s),
        x(Fenced::normal(rng, s.rows * s.channels)),
        h(Fenced::normal(rng, s.taps * s.channels)),
        task{.x = x.data(),
             .h = h.data(),
             .x_stride = s.channels,
             .h_stride = s.channels,
             .rows = s.rows,
             .first = s.first,
             .end = s.end,
             .taps = s.taps,
             .channels = s.channels,
             .exact = exact,
             .turns = nullptr} {
    turns = turns_for(kernels::long_conv().largest_transform(task));
    task.turns = turns.data();
  }
  Trial(const Trial&) = delete;
  Fenced forward() const {
    Fenced y((c.end - c.first) * c.channels), scratch(kernels::long_conv().scratch_floats(task));
    kernels::long_conv().forward(task, y.data(), c.channels, scratch.data());
    EXPECT_TRUE(y.intact() && scratch.intact());
    return y;
  }
};

TEST(LongConvKernel, IsTheSum) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (const Case& c : cases())
      for (const bool exact : {false, true}) {
        const Trial run(c, rng, exact);
        const Fenced y = run.forward();
        for (int64_t t = c.first; t < c.end; ++t)
          for (int64_t ch = 0; ch < c.channels; ++ch) {
            double want = 0;
            for (int64_t s = 0; s <= t && s < c.rows; ++s)
              if (t - s < c.taps) want += double{run.h[(t - s) * c.channels + ch]} * run.x[s * c.channels + ch];
            ASSERT_NEAR(y[(t - c.first) * c.channels + ch], want, 4e-6 * std::sqrt(static_cast<double>(c.rows)) + 1e-6)
                << c.rows << " rows, " << c.first << " to " << c.end << ", " << c.taps << " taps, row " << t;
          }
      }
  });
}

TEST(LongConvKernel, NoLaterRowChangesABit) {
  for_each_level([](IsaLevel) {
    Rng rng(2);
    Trial run({1000, 100, 1000, 1000, 5}, rng, false);
    ASSERT_GT(kernels::long_conv().largest_transform(run.task), 0);
    Fenced before = run.forward();
    for (int trial = 0; trial < 20; ++trial) {
      const int64_t at = rng.below(1000), same = std::max<int64_t>(0, at - 100) * 5;
      for (int64_t ch = 0; ch < 5; ++ch) run.x[at * 5 + ch] = static_cast<float>(50 * rng.normal());
      Fenced after = run.forward();
      ASSERT_EQ(std::memcmp(before.data(), after.data(), static_cast<size_t>(same) * 4), 0) << at;
      before = std::move(after);
    }
  });
}

TEST(LongConvKernel, TheFiltersGradientIsTheCorrelation) {
  for_each_level([](IsaLevel) {
    Rng rng(3);
    for (const Case& c : cases()) {
      if (c.end != c.rows) continue;
      const Trial run(c, rng, false);
      const Fenced dy = Fenced::normal(rng, (c.rows - c.first) * c.channels);
      Fenced dh(c.taps * c.channels, 1), scratch(kernels::long_conv().scratch_floats(run.task));
      kernels::long_conv().filter_gradient(run.task, dy.data(), c.channels, dh.data(), scratch.data());
      ASSERT_TRUE(dh.intact() && scratch.intact());
      for (int64_t k = 0; k < c.taps; ++k)
        for (int64_t ch = 0; ch < c.channels; ++ch) {
          double want = 1;
          for (int64_t t = std::max(k, c.first); t < c.rows; ++t)
            want += double{dy[(t - c.first) * c.channels + ch]} * run.x[(t - k) * c.channels + ch];
          ASSERT_NEAR(dh[k * c.channels + ch], want, 4e-6 * std::sqrt(static_cast<double>(c.rows)) + 1e-6)
              << c.rows << " rows, lag " << k;
        }
    }
  });
}

TEST(LongConvKernel, RunsBackwards) {
  Rng rng(4);
  Trial run({300, 0, 300, 300, 7}, rng, false);
  const Fenced y = run.forward();
  Fenced turned(run.x.size()), backwards(y.size()), scratch(kernels::long_conv().scratch_floats(run.task));
  for (int64_t t = 0; t < 300; ++t)
    for (int64_t ch = 0; ch < 7; ++ch) turned[t * 7 + ch] = run.x[(299 - t) * 7 + ch];
  run.task.x = turned.data() + 299 * 7, run.task.x_stride = -7;
  kernels::long_conv().forward(run.task, backwards.data() + 299 * 7, -7, scratch.data());
  ASSERT_TRUE(backwards.intact());
  for (int64_t t = 0; t < 300; ++t)
    for (int64_t ch = 0; ch < 7; ++ch) ASSERT_EQ(backwards[t * 7 + ch], y[(299 - t) * 7 + ch]);
}

}  // namespace sennit::long_conv_kernel_test
