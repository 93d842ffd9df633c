// Attention and sparse distributed memory (Bricken & Pehlevan, arXiv:2111.05498): how many addresses two patterns share
// falls as an exponential of their distance, so that attention at the fitted temperature reads what the memory reads.
#include <gtest/gtest.h>

#include <bit>

#include "mixers/distributed_memory.h"
#include "ops/arithmetic.h"
#include "ops/norms.h"
#include "ops/products.h"
#include "support/mixers.h"

namespace sennit::systems_p279_test {

using mixers::DistributedMemory;
using Bits = DistributedMemory::Pattern;
constexpr int64_t kBits = 64;

Bits drawn(Rng& rng) {
  Bits bits(kBits);
  for (int8_t& b : bits) b = rng.below(2) ? 1 : -1;
  return bits;
}
// With `count` of its bits turned over.
Bits noisy(Bits bits, int64_t count, Rng& rng) {
  std::vector<size_t> places(bits.size());
  for (size_t i = 0; i < places.size(); ++i) places[i] = i;
  for (int64_t i = 0; i < count; ++i) {
    const auto last = static_cast<int64_t>(places.size()) - i - 1;
    std::swap(places[static_cast<size_t>(rng.below(last + 1))], places[static_cast<size_t>(last)]);
    int8_t& bit = bits[places[static_cast<size_t>(last)]];
    bit = static_cast<int8_t>(-bit);
  }
  return bits;
}
double cosine(const Bits& a, const Bits& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum / kBits;
}

TEST(SystemsP279, CountsOfSharedAddressesAreThoseOfDrawnOnes) {
  const int64_t addresses = 60000;
  for (const int64_t radius : {24, 27}) {
    const DistributedMemory memory(kBits, radius, addresses, Rng(3));
    Rng rng(4);
    const Bits first = drawn(rng);
    for (const int64_t apart : {0, 1, 5, 12, 24}) {
      const double part = std::exp(mixers::log_intersection(kBits, radius, apart) - kBits * std::log(2.0)),
                   expected = part * addresses, sigma = std::sqrt(expected * (1 - part));
      EXPECT_NEAR(static_cast<double>(memory.within(first, noisy(first, apart, rng))), expected, 3 * sigma)
          << radius << " " << apart;
    }
  }
}

// By every address there is.
TEST(SystemsP279, CountsAreExact) {
  const int64_t bits = 10;
  for (const int64_t radius : {0, 3, 5, 10})
    for (int64_t apart = 0; apart <= bits; ++apart) {
      const uint32_t other = (1u << apart) - 1;
      int64_t count = 0;
      for (uint32_t a = 0; a < 1u << bits; ++a)
        count += std::popcount(a) <= radius && std::popcount(a ^ other) <= radius;
      EXPECT_NEAR(std::exp(mixers::log_intersection(bits, radius, apart)), static_cast<double>(count), 1e-9 * count);
    }
}

TEST(SystemsP279, IntersectionsFallAsAnExponential) {
  const std::pair<int64_t, double> betas[] = {{21, 4.7}, {24, 3.0}, {27, 1.8}};
  for (const auto& [radius, beta] : betas) {
    const mixers::IntersectionFit fit = mixers::fit_intersection(kBits, radius);
    std::printf("radius %lld: beta %.3f, R2 %.4f\n", static_cast<long long>(radius), fit.beta, fit.r2);
    EXPECT_GE(fit.r2, 0.98);
    EXPECT_NEAR(fit.beta, beta, 0.1);
  }
}

// On the sphere, against directions that are drawn.
TEST(SystemsP279, CapsOfASphereMeetAsDrawnDirectionsSay) {
  const int64_t dims = 8, count = 100000;
  Rng rng(5);
  std::vector<double> rows(static_cast<size_t>(dims * count));
  for (double& a : rows) a = rng.normal();
  for (const double cap : {1.0, 1.3})
    for (const double apart : {0.0, 0.4, 1.1}) {
      int64_t inside = 0;
      for (int64_t i = 0; i < count; ++i) {
        const double* row = rows.data() + i * dims;
        double square = 0;
        for (int64_t c = 0; c < dims; ++c) square += row[c] * row[c];
        const double edge = std::cos(cap) * std::sqrt(square);
        inside += row[0] >= edge && row[0] * std::cos(apart) + row[1] * std::sin(apart) >= edge;
      }
      const double part = std::exp(mixers::log_cap_intersection(dims, cap, apart)), n = static_cast<double>(count);
      EXPECT_NEAR(static_cast<double>(inside), n * part, 3 * std::sqrt(n * part * (1 - part)) + 1e-3 * n * part)
          << cap << " " << apart;
    }
}

TEST(SystemsP279, TheMixerIsAttentionOfUnitVectorsAtTheFittedTemperature) {
  NoGrad off;
  constexpr int64_t kDim = 32, kHeads = 4, kRows = 70;
  auto mixer = make_mixer({{"name", "sdm"}, {"bits", kBits}, {"radius", 21}}, kDim);
  const Tensor x = normal_rows(kRows, kDim, 2), weights = mixer->implicit(Var(x), {})->weights;
  const auto unit = [&](const char* name) {
    return l2norm(matmul(Var(x), parameter_of(*mixer, name), {.transpose_b = true}), {.groups = kHeads}).value();
  };
  const Tensor q = unit("q.weight"), k = unit("k.weight");
  for (int64_t h = 0; h < kHeads; ++h)
    for (int64_t j = 0; j + 1 < kRows; ++j) {  // two keys of the last query: their ratio is that of e^(beta cos)
      double apart = 0;
      for (int64_t c = h * kDim / kHeads; c < (h + 1) * kDim / kHeads; ++c)
        apart += double{q.data()[(kRows - 1) * kDim + c]} * (k.data()[j * kDim + c] - k.data()[(j + 1) * kDim + c]);
      const float* row = weights.data() + (h * kRows + kRows - 1) * kRows;
      EXPECT_NEAR(std::log(row[j] / row[j + 1]), mixers::fit_intersection(kBits, 21).beta * apart, 1e-4);
    }
  EXPECT_LE(most_apart(run_alone(*mixer, x), run_square(*mixer, x)), 1e-5);
}

// What is read, as the stored pattern that it is nearest to. Patterns point to themselves.
struct Reader {
  std::vector<Bits> patterns;
  double beta;

  size_t nearest(const std::vector<double>& said) const {
    size_t best = 0;
    double most = -INFINITY;
    for (size_t p = 0; p < patterns.size(); ++p) {
      double sum = 0;
      for (size_t i = 0; i < said.size(); ++i) sum += said[i] * patterns[p][i];
      if (sum > most) most = sum, best = p;
    }
    return best;
  }
  size_t by_memory(const DistributedMemory& memory, const Bits& query) const {
    const auto sums = memory.read(query);
    return nearest({sums.begin(), sums.end()});
  }
  size_t by_attention(const Bits& query) const {
    std::vector<double> said(kBits);
    for (const Bits& p : patterns)
      for (size_t i = 0; i < said.size(); ++i) said[i] += std::exp(beta * cosine(p, query)) * p[i];
    return nearest(said);
  }
  // Hopfield's network of 1982: W = sum of p p^T without its diagonal, updated until at rest, at most 20 times.
  size_t by_hopfield(const Bits& query) const {
    std::vector<double> state(query.begin(), query.end());
    for (int step = 0; step < 20; ++step) {
      std::vector<double> next(kBits);
      for (const Bits& p : patterns) {
        double along = 0;
        for (size_t i = 0; i < state.size(); ++i) along += p[i] * state[i];
        for (size_t i = 0; i < state.size(); ++i) next[i] += p[i] * (along - p[i] * state[i]);
      }
      for (double& a : next) a = a >= 0 ? 1 : -1;
      if (next == state) break;
      state = next;
    }
    return nearest(state);
  }
};

TEST(SystemsP279, AttentionAndTheMemoryReadTheSame) {
  constexpr int64_t kRadius = 21;
  Rng rng(7);
  Reader reader{{}, mixers::fit_intersection(kBits, kRadius).beta};
  DistributedMemory memory(kBits, kRadius, 20000, Rng(8));
  for (int i = 0; i < 100; ++i) {
    reader.patterns.push_back(drawn(rng));
    memory.write(reader.patterns.back(), reader.patterns.back());
  }
  std::printf("bits turned over: memory, attention, Hopfield network; the first two alike\n");
  for (const int64_t noise : {0, 6, 13, 19, 26}) {
    double right[3] = {}, alike = 0;
    for (size_t p = 0; p < reader.patterns.size(); ++p)
      for (int repeat = 0; repeat < 2; ++repeat) {
        const Bits query = noisy(reader.patterns[p], noise, rng);
        const size_t a = reader.by_memory(memory, query), b = reader.by_attention(query), c = reader.by_hopfield(query);
        right[0] += a == p, right[1] += b == p, right[2] += c == p, alike += a == b;
      }
    std::printf("%2lld: %.3f, %.3f, %.3f; %.3f\n", static_cast<long long>(noise), right[0] / 200, right[1] / 200,
                right[2] / 200, alike / 200);
    if (noise == 6) {  // a tenth
      EXPECT_GE(alike / 200, 0.95);
    }
  }
}

}  // namespace sennit::systems_p279_test
