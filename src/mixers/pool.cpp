// MetaFormer Is Actually What You Need for Vision (Yu et al., arXiv:2111.11418), equation 3, the mixer of PoolFormer
// over a line or a grid of tokens:
//   y_t = mean of x_s over the neighbours s of t inside the sequence, less x_t;   causal: over those up to t
// Neighbours are at most `reach` away, on a grid in rows and in columns. It has no parameters.
#include "mixers/mixer.h"
#include "ops/arithmetic.h"
#include "sequence/plane.h"

namespace sennit::mixers {
namespace {

struct Pool : Mixer {
  struct Options {
    int64_t reach = 1, columns = 0;
    Fields fields() {
      return {{"reach", &reach, "tokens that are read on a side", {.min = 1, .max = 7}}, columns_field(&columns)};
    }
  };
  static Info info() {
    return {.title = "Pooling (PoolFormer)",
            .paper = "arXiv:2111.11418",
            .equation = "y_t = mean of x over the neighbours of t - x_t",
            .cost = "O(n d reach), on a grid O(n d reach^2)",
            .patterns = {Pattern::causal, Pattern::bidirectional},
            .settings = {{"wide", R"({"reach": 5})"}, {"grid", R"({"columns": 7})"}}};
  }
  Pool(const Dims& d, const Options& o, Rng)
      : options(o),
        near(o.columns ? grid_neighbours(o.columns, o.reach) : line_neighbours(o.reach)),
        width(d.d_model),
        ones(Tensor::full({near.taps(), d.d_model}, 1)) {}

  void visit(const ParameterVisitor&) override {}
  StateSpec state_spec() const override { return {{"x", {near.before(), width}}}; }
  int64_t grid_columns() const override { return near.columns; }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Pool>("pool", batch);
    check_grid("pool", near.columns, batch);
    Tensor share({x.rows(), 1});
    for (const Segment& s : batch.segments) {
      const int64_t first = batch.pattern == Pattern::causal ? s.position : 0;
      for (int64_t t = 0; t < s.length; ++t)
        share.data()[s.begin + t] = 1 / static_cast<float>(seen(first + t, first + s.length, batch.pattern));
    }
    return multiply_groups(plane_differences(x, ones, near, batch, 0), Var(share));
  }
  // How many tokens one reads, itself among them.
  int64_t seen(int64_t token, int64_t length, Pattern pattern) const {
    int64_t count = 0;
    each_neighbour(near, token, length, pattern == Pattern::causal, [&](int64_t, int64_t) { ++count; });
    return count;
  }
  int64_t flops(int64_t n) const override { return plane_conv_flops(n, near, width) + n * width; }

  naive::Matrix naive(NaiveRun& run) const override {
    naive::Matrix& past = run.state["x"];
    const int64_t n = run.x.rows, reach = options.reach, wide = std::max<int64_t>(1, options.columns),
                  kept = near.before();
    if (!past.rows) past = naive::Matrix(kept, width);
    naive::Matrix all(kept + n, width), y(n, width);
    std::copy(past.a.begin(), past.a.end(), all.a.begin());
    std::copy(run.x.a.begin(), run.x.a.end(), all.a.begin() + kept * width);
    // Place p of the sequence is row p - position + kept.
    const auto near_by = [&](int64_t p, int64_t t) {
      if (run.pattern == Pattern::causal && p > t) return false;
      return std::abs(p / wide - t / wide) <= reach && std::abs(p % wide - t % wide) <= reach;
    };
    for (int64_t t = run.position; t < run.position + n; ++t) {
      std::vector<int64_t> read;
      for (int64_t p = std::max<int64_t>(0, run.position - kept); p < run.position + n; ++p)
        if (near_by(p, t)) read.push_back(p - run.position + kept);
      for (int64_t c = 0; c < width; ++c) {
        double sum = 0;
        for (const int64_t row : read) sum += all(row, c);
        y(t - run.position, c) = sum / static_cast<double>(read.size()) - run.x(t - run.position, c);
      }
    }
    std::copy(all.a.end() - kept * width, all.a.end(), past.a.begin());
    return y;
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context&) override {
    const int64_t n = x.rows();
    ImplicitMatrix m{Tensor::zeros({1, n, n}), x.value()};
    for (int64_t t = 0; t < n; ++t) {
      const float share = 1 / static_cast<float>(seen(t, n, Pattern::causal));
      each_neighbour(near, t, n, true, [&](int64_t s, int64_t) { m.weights.data()[t * n + s] = share; });
      m.weights.data()[t * n + t] -= 1;
    }
    return m;
  }

  Options options;
  Neighbours near;
  int64_t width;
  Var ones;
};

}  // namespace

void register_pool(Registry<Mixer>& r) {
  r.add<Pool>("pool");
}

}  // namespace sennit::mixers
