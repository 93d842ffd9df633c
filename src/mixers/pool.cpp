// MetaFormer Is Actually What You Need for Vision (Yu et al., arXiv:2111.11418), equation 3, the mixer of PoolFormer
// over a line of tokens:
//   y_t = mean of x_s over |s - t| <= reach inside the sequence, less x_t;   causal: over t - reach <= s <= t
// It has no parameters.
#include "mixers/mixer.h"
#include "ops/arithmetic.h"
#include "sequence/recurrences.h"
#include "sequence/reverse.h"

namespace sennit::mixers {
namespace {

struct Pool : Mixer {
  struct Options {
    int64_t reach = 1;
    Fields fields() { return {{"reach", &reach, "tokens that are read on a side", {.min = 1, .max = 7}}}; }
  };
  static Info info() {
    return {.title = "Pooling (PoolFormer)",
            .paper = "arXiv:2111.11418",
            .equation = "y_t = mean_{|s - t| <= reach} x_s - x_t",
            .cost = "O(n d reach)",
            .patterns = {Pattern::causal, Pattern::bidirectional},
            .settings = {{"wide", R"({"reach": 5})"}}};
  }
  Pool(const Dims& d, const Options& o, Rng)
      : reach(o.reach), width(d.d_model), ones(Tensor::full({d.d_model, o.reach + 1}, 1)) {}

  void visit(const ParameterVisitor&) override {}
  StateSpec state_spec() const override { return {{"x", {reach, width}}}; }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Pool>("pool", batch);
    const bool both = batch.pattern == Pattern::bidirectional;
    Var sum = short_conv(x, ones, {}, batch, 0);
    if (both) {
      const Var ahead = short_conv(reversed(x, batch.segments), ones, {}, batch, 0);
      sum = sum + reversed(ahead, batch.segments) - x;
    }
    Tensor share({x.rows(), 1});
    for (const Segment& s : batch.segments)
      for (int64_t t = 0; t < s.length; ++t) {
        const int64_t before = std::min(reach, s.position + t), after = both ? std::min(reach, s.length - 1 - t) : 0;
        share.data()[s.begin + t] = 1 / static_cast<float>(before + after + 1);
      }
    return multiply_groups(sum, Var(share)) - x;
  }
  int64_t flops(int64_t n) const override { return n * width * (2 * (reach + 1) + 2); }
  int64_t pattern_flops(Pattern pattern, int64_t n, int64_t) const override {
    return flops(n) + (pattern == Pattern::bidirectional ? n * width * (2 * (reach + 1) + 2) : 0);
  }

  naive::Matrix naive(NaiveRun& run) const override {
    naive::Matrix& past = run.state["x"];
    if (!past.rows) past = naive::Matrix(reach, width);
    const int64_t n = run.x.rows;
    const bool both = run.pattern == Pattern::bidirectional;
    naive::Matrix y(n, width);
    for (int64_t c = 0; c < width; ++c) {
      const auto at = [&](int64_t t) { return t >= 0 ? run.x(t, c) : past(reach + t, c); };
      for (int64_t t = 0; t < n; ++t) {
        double sum = 0, count = 0;
        for (int64_t s = t - reach; s <= (both ? t + reach : t); ++s)
          if (run.position + s >= 0 && s < n) sum += at(s), ++count;
        y(t, c) = sum / count - run.x(t, c);
      }
      std::vector<double> last;
      for (int64_t t = n - reach; t < n; ++t) last.push_back(at(t));
      for (int64_t i = 0; i < reach; ++i) past(i, c) = last[i];
    }
    return y;
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context&) override {
    const int64_t n = x.rows();
    ImplicitMatrix m{Tensor::zeros({1, n, n}), x.value()};
    for (int64_t t = 0; t < n; ++t) {
      const int64_t first = std::max<int64_t>(0, t - reach);
      for (int64_t s = first; s <= t; ++s) m.weights.data()[t * n + s] = 1 / static_cast<float>(t - first + 1);
      m.weights.data()[t * n + t] -= 1;
    }
    return m;
  }

  int64_t reach, width;
  Var ones;
};

}  // namespace

void register_pool(Registry<Mixer>& r) {
  r.add<Pool>("pool");
}

}  // namespace sennit::mixers
