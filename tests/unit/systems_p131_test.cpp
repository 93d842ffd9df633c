// Scatterbrain (Chen et al., arXiv:2110.15343): features estimate all weights, hashing finds the keys that are exact.
#include <gtest/gtest.h>

#include "nn/init.h"
#include "sequence/corrected_attention.h"
#include "support/mixer_timing.h"

namespace sennit::systems_p131_test {

Json with(const Json& options) {
  Json part = {{"name", "scatterbrain"}};
  part.update(options);
  return part;
}
const std::vector<std::string> kMaps = {"q.weight", "k.weight", "v.weight", "out.weight"};

TEST(SystemsP131, AllPairsAreExactAttention) {
  const int64_t n = 200, d = 32;
  const Tensor x = normal_rows(n, d, 2);
  for (const uint64_t seed : {1, 2, 3}) {
    const auto exact = make_mixer("softmax", d, seed);
    const auto all = make_mixer(with({{"pairs", n}, {"seed", seed}}), d),
               some = make_mixer(with({{"pairs", 8}, {"seed", seed}}), d);
    copy_parameters(*exact, *all, kMaps), copy_parameters(*exact, *some, kMaps);
    const Tensor want = run_alone(*exact, x);
    EXPECT_LE(most_apart(run_alone(*all, x), want), 1e-4);
    EXPECT_GE(most_apart(run_alone(*some, x), want), 1e-3);  // it is the pairs that do it
  }
}

// Sums over all pairs in double, of features drawn as the mixer draws them.
TEST(SystemsP131, NoPairsAreAPerformer) {
  const int64_t n = 60, d = 32, heads = 4, dim = 8, features = 24;
  const auto mixer = make_mixer(with({{"pairs", 0}, {"features", features}, {"position", "none"}, {"seed", 5}}), d);
  const Tensor x = normal_rows(n, d, 2), got = run_alone(*mixer, x),
               w = normal_init({features, dim}, 1, Rng(5).fork("features"));
  const auto maps = [&](const std::string& name, const naive::Matrix& rows) {
    const Tensor& weight = parameter_of(*mixer, name + ".weight").value();
    naive::Matrix y(rows.rows, d);
    for (int64_t i = 0; i < y.rows; ++i)
      for (int64_t j = 0; j < d; ++j)
        for (int64_t p = 0; p < d; ++p) y(i, j) += double{weight.data()[j * d + p]} * rows(i, p);
    return y;
  };
  naive::Matrix rows(n, d), core(n, d);
  for (size_t i = 0; i < rows.a.size(); ++i) rows.a[i] = x.data()[i];
  const naive::Matrix q = maps("q", rows), k = maps("k", rows), v = maps("v", rows);
  const auto phi = [&](const naive::Matrix& m, int64_t i, int64_t h, int64_t r) {
    double along = 0, square = 0;
    for (int64_t p = 0; p < dim; ++p) {
      const double number = m(i, h * dim + p) / std::pow(static_cast<double>(dim), 0.25);
      along += w.data()[r * dim + p] * number, square += number * number;
    }
    return std::exp(along - square / 2);
  };
  for (int64_t i = 0; i < n; ++i)
    for (int64_t h = 0; h < heads; ++h) {
      double total = 0;
      for (int64_t j = 0; j <= i; ++j) {
        double weight = 0;
        for (int64_t r = 0; r < features; ++r) weight += phi(q, i, h, r) * phi(k, j, h, r);
        total += weight;
        for (int64_t p = h * dim; p < (h + 1) * dim; ++p) core(i, p) += weight * v(j, p);
      }
      for (int64_t p = h * dim; p < (h + 1) * dim; ++p) core(i, p) /= total;
    }
  const naive::Matrix want = maps("out", core);
  for (size_t i = 0; i < want.a.size(); ++i) EXPECT_NEAR(got.data()[i], want.a[i], 1e-5);
}

// One draw of features a head: N and D of the header, before they are divided, [n, heads (dim + 1)].
struct Problem {
  static constexpr int64_t kRows = 16, kHeads = 4, kDim = 4, kFeatures = 4;
  Tensor q = rows(1), k = rows(2), v = normal_rows(kRows, kHeads*kDim, 3);

  static Tensor rows(uint64_t seed) {
    Tensor t = normal_rows(kRows, kHeads * kDim, seed);
    for (float& x : t.span()) x *= 0.7f;
    return t;
  }
  // Every third key, and itself.
  static int64_t listed(int64_t query, int32_t* keys) {
    int64_t count = 0;
    for (int64_t j = 0; j <= query; ++j)
      if (j % 3 == 0 || j == query) keys[count++] = static_cast<int32_t>(j);
    return count;
  }
  double score(int64_t h, int64_t i, int64_t j) const {
    double s = 0;
    for (int64_t p = h * kDim; p < (h + 1) * kDim; ++p)
      s += double{q.data()[i * kHeads * kDim + p]} * k.data()[j * kHeads * kDim + p];
    return s / 2;  // sqrt(kDim)
  }
  std::vector<double> truth() const {
    std::vector<double> all;
    for (int64_t i = 0; i < kRows; ++i)
      for (int64_t h = 0; h < kHeads; ++h) {
        std::vector<double> sums(kDim + 1);
        for (int64_t j = 0; j <= i; ++j) add(sums, h, j, std::exp(score(h, i, j)));
        all.insert(all.end(), sums.begin(), sums.end());
      }
    return all;
  }
  std::vector<double> estimate(Rng rng) const {
    Tensor b({kRows, kHeads * kFeatures}), a(b.shape()), mean(v.shape()), log_sum({kRows, kHeads});
    const double root = std::pow(static_cast<double>(kDim), -0.25);
    for (int64_t h = 0; h < kHeads; ++h)
      for (int64_t r = 0; r < kFeatures; ++r) {
        double w[kDim];
        for (double& x : w) x = rng.normal();
        for (int64_t i = 0; i < kRows; ++i)
          for (Tensor* f : {&b, &a}) {
            double sum = f == &b ? -std::log(double{kFeatures}) : 0;
            for (int64_t p = 0; p < kDim; ++p) {
              const double x = root * (f == &b ? q : k).data()[i * kHeads * kDim + h * kDim + p];
              sum += w[p] * x - x * x / 2;
            }
            f->data()[(i * kHeads + h) * kFeatures + r] = static_cast<float>(sum);
          }
      }
    for (int64_t i = 0; i < kRows; ++i)
      for (int64_t h = 0; h < kHeads; ++h) {
        std::vector<double> sums(kDim + 1);
        for (int64_t j = 0; j <= i; ++j)
          for (int64_t r = 0; r < kFeatures; ++r)
            add(sums, h, j,
                std::exp(double{b.data()[(i * kHeads + h) * kFeatures + r]} +
                         a.data()[(j * kHeads + h) * kFeatures + r]));
        log_sum.data()[i * kHeads + h] = static_cast<float>(std::log(sums[kDim]));
        for (int64_t p = 0; p < kDim; ++p)
          mean.data()[(i * kHeads + h) * kDim + p] = static_cast<float>(sums[p] / sums[kDim]);
      }
    const Var vq(q), vb(b), vk(k), vv(v), va(a), vm(mean), vs(log_sum);
    const AttentionSegment whole[] = {{0, kRows, 0, 0, kRows, 0}};
    Tensor log_totals;
    const Tensor y =
        corrected_attention(
            {vq, vb, {&vk, 1}, {&vv, 1}, {&va, 1}, vm, vs}, whole, {.heads = kHeads, .most = kRows, .scale = 0.5f},
            [](size_t, int64_t, int64_t i, int32_t* keys) { return listed(i, keys); }, &log_totals)
            .value();
    std::vector<double> all;
    for (int64_t i = 0; i < kRows * kHeads; ++i) {
      const double total = std::exp(double{log_totals.data()[i]});
      for (int64_t p = 0; p < kDim; ++p) all.push_back(total * y.data()[i * kDim + p]);
      all.push_back(total);
    }
    return all;
  }
  void add(std::vector<double>& sums, int64_t h, int64_t j, double weight) const {
    for (int64_t p = 0; p < kDim; ++p) sums[p] += weight * v.data()[j * kHeads * kDim + h * kDim + p];
    sums[kDim] += weight;
  }
};

// Slope of the logarithm of the error of means over that of how many draws they are of, up to all 4000.
TEST(SystemsP131, TheEstimateIsUnbiased) {
  NoGrad off;
  constexpr size_t kDraws = 4000;
  const Problem problem;
  const std::vector<double> truth = problem.truth();
  std::vector<std::vector<double>> sums = {std::vector<double>(truth.size())};  // of the first so many draws
  for (size_t draw = 0; draw < kDraws; ++draw) {
    std::vector<double> more = problem.estimate(Rng(7).fork(draw));
    for (size_t i = 0; i < more.size(); ++i) more[i] += sums.back()[i];
    sums.push_back(std::move(more));
  }
  double xs = 0, ys = 0, xx = 0, xy = 0, points = 0;
  for (const size_t together : {1, 4, 16, 50, 200, 1000, 4000}) {
    double square = 0, count = 0;
    for (size_t first = 0; first + together <= kDraws; first += together, ++count)
      for (size_t i = 0; i < truth.size(); ++i) {
        const double mean = (sums[first + together][i] - sums[first][i]) / static_cast<double>(together);
        square += (mean - truth[i]) * (mean - truth[i]);
      }
    const double x = std::log(static_cast<double>(together)), y = std::log(square / count) / 2;
    xs += x, ys += y, xx += x * x, xy += x * y, ++points;
  }
  const double slope = (points * xy - xs * ys) / (points * xx - xs * xs);
  std::printf("slope %.3f\n", slope);
  EXPECT_NEAR(slope, -0.5, 0.1);
}

// Tokens of 128 small clusters, as their own queries and keys: a token's score of itself is `heat`, others' of its
// cluster are near it and the rest near 0. Of a query 64 numbers are estimated: that many features, that many keys, or
// three parts of features and one of keys.
struct Clusters {
  static constexpr int64_t kTokens = 1024, kDim = 32;
  static constexpr uint64_t kDraws = 3;
  Tensor x{{kTokens, kDim}};

  Clusters() {
    const Tensor centres = normal_rows(128, kDim, 4), noise = normal_rows(kTokens, kDim, 5);
    Rng rng(6);
    for (int64_t i = 0; i < kTokens; ++i) {
      const float* centre = centres.data() + rng.below(128) * kDim;
      double square = 0;
      for (int64_t p = 0; p < kDim; ++p) square += double{centre[p]} * centre[p];
      for (int64_t p = 0; p < kDim; ++p)
        x.data()[i * kDim + p] = centre[p] / static_cast<float>(std::sqrt(square)) +
                                 0.1f * noise.data()[i * kDim + p] / std::sqrt(static_cast<float>(kDim));
    }
  }
  Tensor said(Json part, double heat) const {
    part["heads"] = 1, part["position"] = "none";
    const auto mixer = make_mixer(part, kDim);
    for (const std::string& name : kMaps) {
      Tensor& w = parameter_of(*mixer, name).var.value();
      w.fill(0);
      for (int64_t p = 0; p < kDim; ++p)
        w.data()[p * kDim + p] =
            name[0] == 'q' || name[0] == 'k' ? static_cast<float>(std::sqrt(heat * std::sqrt(double{kDim}))) : 1;
    }
    parameter_of(*mixer, "v.weight").var.value().copy_from(normal_rows(kDim, kDim, 7));
    return run_alone(*mixer, x);
  }
  // Of the output, relative; the mean over draws.
  double error(double heat, const Tensor& exact, int64_t features, int64_t pairs) const {
    double sum = 0;
    for (uint64_t seed = 0; seed < kDraws; ++seed) {
      const Tensor y =
          said(with({{"features", features}, {"pairs", pairs}, {"buckets", 64}, {"rounds", 4}, {"seed", seed}}), heat);
      double off_by = 0, size = 0;
      for (int64_t i = 0; i < y.elements(); ++i) {
        off_by += std::pow(double{y.data()[i]} - exact.data()[i], 2);
        size += std::pow(double{exact.data()[i]}, 2);
      }
      sum += std::sqrt(off_by / size);
    }
    return sum / kDraws;
  }
};

TEST(SystemsP131, BetterThanEitherPartOverTemperatures) {
  const Clusters clusters;
  int better = 0, temperatures = 0;
  double apart = INFINITY, gain_between = 0;  // where features and keys alone do equally well
  for (double heat = 0.5; heat < 9; heat *= 1.5, ++temperatures) {
    const Tensor exact = clusters.said({{"name", "softmax"}}, heat);
    const double features = clusters.error(heat, exact, 64, 0), keys = clusters.error(heat, exact, 0, 64),
                 both = clusters.error(heat, exact, 48, 16), gain = std::min(features, keys) / both;
    std::printf("heat %.2f: features %.3f, keys %.3f, both %.3f\n", heat, features, keys, both);
    better += gain >= 1;
    if (std::fabs(std::log(features / keys)) < apart) apart = std::fabs(std::log(features / keys)), gain_between = gain;
  }
  std::printf("better at %d of %d, %.2f times where features and keys are equal\n", better, temperatures, gain_between);
  EXPECT_GE(better, 0.8 * temperatures);
  EXPECT_GE(gain_between, 1.5);
}

TEST(SpeedP131, TimeIsNearlyLinear) {
  const double growth = time_ratio(with(Json::object()), 64, 8192, 2048);
  std::printf("8192 tokens against 2048: %.2f, exponent %.2f\n", growth, std::log(growth) / std::log(4.0));
  EXPECT_LT(growth, std::pow(4.0, 1.3));
}

}  // namespace sennit::systems_p131_test
