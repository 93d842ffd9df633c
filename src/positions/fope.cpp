// Fourier Position Embedding (Hua et al., arXiv:2412.17739), section 4: a channel turns by no single frequency but by
// a series of them, and those that do not go round once in pretraining do not turn at all. With frequencies
// w_D = base^(-2D/d) of which K have w_D >= 2 pi / length, and coefficients C = I + Gaussian for cosines and for sines,
//   cos_i(n) = sum_{D < K} cos(w_D n) C^cos[D, i],   sin_i(n) = sum_{D < K} sin(w_D n) C^sin[D, i]   for i < K,
//   cos_i(n) = 1, sin_i(n) = 0 for the other pairs, and (a, b) becomes (a cos_i - b sin_i, a sin_i + b cos_i).
// The coefficients are drawn once, by `seed`, for each of `series` equal runs of heads. Without noise it is rotary
// embedding with the slow frequencies clipped.
#include <cmath>
#include <memory>
#include <mutex>
#include <vector>

#include "base/parallel.h"
#include "positions/position.h"
#include "sequence/rotary.h"
#include "tensor/pooled.h"

namespace sennit::positions {
namespace {

struct Fope : Position {
  struct Options {
    double base = 10000, noise = 0;
    int64_t length = 512, series = 1, seed = 0;
    Fields fields() {
      return {{"base", &base, "the slowest pair turns once in about 2 pi base tokens", {.min = 1}},
              {"length", &length, "tokens in pretraining: pairs that turn more slowly stay", {.min = 1, .max = 1e12}},
              {"noise", &noise, "deviation of what is added to each pair by all frequencies", {.min = 0, .max = 100}},
              {"series", &series, "runs of heads with coefficients of their own", {.min = 1, .max = 1e4}},
              {"seed", &seed, "of the coefficients", {.min = 0, .max = 1e15}}};
    }
  };
  static Info info() { return {"Fourier position embedding", "arXiv:2412.17739"}; }

  Fope(const Dims& d, const Options& o, Rng) : options(o), pairs(d.head_dim / 2) {
    if (d.heads % o.series)
      fail({"fope", fmt::format("`series` to divide {} heads", d.heads), fmt::format("{}", o.series)});
    for (int64_t i = 0; i < pairs; ++i) {
      const double w = std::pow(o.base, -static_cast<double>(i) / static_cast<double>(pairs));
      if (w * static_cast<double>(o.length) >= 2 * M_PI) frequencies.push_back(w);
    }
    const int64_t kept = std::ssize(frequencies);
    Rng rng = Rng(static_cast<uint64_t>(o.seed)).fork("fope");
    coefficients.resize(static_cast<size_t>(2 * o.series * kept * kept));
    for (int64_t c = 0; c < std::ssize(coefficients); ++c)
      coefficients[static_cast<size_t>(c)] =
          o.noise / std::sqrt(static_cast<double>(kept)) * rng.normal() + (c / kept % kept == c % kept ? 1 : 0);
  }
  bool relative() const override { return options.noise == 0; }

  // [D, i] of the cosines of a series, and behind them of its sines.
  const double* coefficients_of(int64_t series, bool sines) const {
    return coefficients.data() + (2 * series + sines) * std::ssize(frequencies) * std::ssize(frequencies);
  }

  Var turn(const Var& x, std::span<const Segment> segments, int64_t heads) const override {
    if (heads % options.series)
      fail({"fope", fmt::format("`series` to divide {} heads of keys", heads), fmt::format("{}", options.series)});
    int64_t end = 0;
    for (const Segment& s : segments) end = std::max(end, s.position + s.length);
    const auto known = table_of(end);
    Pooled<PairFactors> factors;
    for (int64_t f = 0; f < options.series; ++f)
      factors.push_back({Tensor::full({x.rows(), pairs}, 1), Tensor::zeros({x.rows(), pairs})});
    for (const Segment& s : segments)
      parallel_for(s.length, 64, [&](int64_t first, int64_t last) {
        Pooled<float> computed(static_cast<size_t>(row_floats()));
        for (int64_t t = first; t < last; ++t) {
          const int64_t place = s.position + t, at = place * row_floats();
          const bool ready = at < std::ssize(*known);
          if (!ready) compute(place, computed.data());
          const float* from = ready ? known->data() + at : computed.data();
          for (PairFactors& f : factors)
            for (Tensor* part : {&f.cos, &f.sin}) {
              std::copy_n(from, frequencies.size(), part->data() + (s.begin + t) * pairs);
              from += std::ssize(frequencies);
            }
        }
      });
    return multiply_pairs(x, factors, heads);
  }

  void naive_turn(double* row, int64_t position, int64_t head, int64_t heads) const override {
    const int64_t kept = std::ssize(frequencies), series = head * options.series / heads;
    for (int64_t i = 0; i < kept; ++i) {
      double c = 0, s = 0;
      for (int64_t j = 0; j < kept; ++j) {
        const double angle = static_cast<double>(position) *
                             std::pow(options.base, -static_cast<double>(j) / static_cast<double>(pairs));
        c += std::cos(angle) * coefficients_of(series, false)[j * kept + i];
        s += std::sin(angle) * coefficients_of(series, true)[j * kept + i];
      }
      const double a = row[i], b = row[i + pairs];
      row[i] = a * c - b * s, row[i + pairs] = a * s + b * c;
    }
  }

  Options options;
  int64_t pairs;
  std::vector<double> frequencies, coefficients;

 private:
  using Table = std::vector<float>;
  static constexpr int64_t kMostKept = 1 << 16;  // positions; those further on are computed where they are needed

  int64_t row_floats() const { return 2 * options.series * std::ssize(frequencies); }

  // A position's row: cosines and sines, series after series.
  void compute(int64_t position, float* row) const {
    const int64_t kept = std::ssize(frequencies);
    std::vector<double> waves(static_cast<size_t>(2 * kept)), sums(static_cast<size_t>(kept));
    for (int64_t j = 0; j < kept; ++j) {
      const double angle = static_cast<double>(position) * frequencies[static_cast<size_t>(j)];
      waves[static_cast<size_t>(j)] = std::cos(angle), waves[static_cast<size_t>(kept + j)] = std::sin(angle);
    }
    for (int64_t part = 0; part < 2 * options.series; ++part) {
      const double* c = coefficients.data() + part * kept * kept;
      const double* wave = waves.data() + part % 2 * kept;
      std::fill(sums.begin(), sums.end(), 0.0);
      for (int64_t j = 0; j < kept; ++j)
        for (int64_t i = 0; i < kept; ++i) sums[static_cast<size_t>(i)] += wave[j] * c[j * kept + i];
      for (int64_t i = 0; i < kept; ++i) row[part * kept + i] = static_cast<float>(sums[static_cast<size_t>(i)]);
    }
  }

  // The rows of positions below `end` at least, as far as they are kept; each is computed once.
  std::shared_ptr<const Table> table_of(int64_t end) const {
    const std::lock_guard lock(mutex_);
    const int64_t have = row_floats() ? std::ssize(*table_) / row_floats() : 0;
    if (end > have && have < kMostKept) {
      const int64_t rows = std::min(kMostKept, std::max({end, 2 * have, int64_t{64}}));
      auto longer = std::make_shared<Table>(*table_);
      longer->resize(static_cast<size_t>(rows * row_floats()));
      parallel_for(rows - have, 64, [&](int64_t first, int64_t last) {
        for (int64_t p = have + first; p < have + last; ++p) compute(p, longer->data() + p * row_floats());
      });
      table_ = std::move(longer);
    }
    return table_;
  }

  mutable std::mutex mutex_;
  mutable std::shared_ptr<const Table> table_ = std::make_shared<Table>();
};

}  // namespace

void register_fope(Registry<Position>& r) {
  r.add<Fope>("fope");
}

}  // namespace sennit::positions
