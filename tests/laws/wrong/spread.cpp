#include "laws/wrong/spread.h"

#include <cmath>
#include <mutex>

#include "base/parallel.h"
#include "nn/init.h"
#include "ops/arithmetic.h"
#include "ops/count.h"
#include "ops/maps.h"

namespace sennit::laws {
namespace {

struct Spread : Mixer {
  static Info info() {
    return {"Spread", "", "", "", {Pattern::bidirectional, Pattern::cross}, "a token sees those after it"};
  }
  Spread(int64_t d, Rng rng, SpreadFault f) : fault(f), width(d), map(d, d, rng.fork("map")) {
    rate.init(uniform_init({d}, -1, 1, rng.fork("rate")));
  }
  void visit(const ParameterVisitor& v) override {
    v("map", map);
    v("rate", rate);
  }
  StateSpec state_spec() const override { return {}; }
  int64_t grid_columns() const override { return 3; }
  int64_t flops(int64_t n) const override { return pattern_flops(Pattern::bidirectional, n, 0); }
  int64_t pattern_flops(Pattern pattern, int64_t n, int64_t memory) const override {
    const int64_t m = pattern == Pattern::cross ? memory : n;
    return (2 * m * width * width + 2 * n * m * width) / (fault == SpreadFault::cost && pattern == Pattern::cross ? 2 : 1);
  }

  // Calls body(row of y, row of v, distance) for all that the rows of a segment see.
  template <class Body>
  void each_pair(const Segment& s, const Segment& seen, Body&& body) const {
    for (int64_t i = 0; i < s.length; ++i)
      for (int64_t j = 0; j < seen.length; ++j)
        body(s.begin + i, seen.begin + j, static_cast<float>(std::abs(s.position + i - j)));
  }

  void check(const Batch& batch) const {
    Batch b = batch;
    std::vector<Segment> bare(b.segments.begin(), b.segments.end());
    for (Segment& s : bare) s.state = nullptr;
    if (fault == SpreadFault::states) b.segments = bare;
    if (fault == SpreadFault::any_pattern && b.pattern == Pattern::causal) b.pattern = Pattern::bidirectional;
    mixers::check_batch<Spread>("spread", b);
    if (fault != SpreadFault::ragged) mixers::check_grid("spread", 3, batch);
  }

  Var forward(const Var& x, const Batch& batch) override {
    check(batch);
    const bool cross = batch.pattern == Pattern::cross;
    const Var v = map(cross ? *batch.memory : x, *batch.context), decay = scale(softplus(rate.var), -1);
    std::vector<Segment> segments(batch.segments.begin(), batch.segments.end());
    std::vector<Segment> seen =
        cross ? std::vector<Segment>(batch.memory_segments.begin(), batch.memory_segments.end()) : segments;
    if (fault == SpreadFault::first_memory && cross && seen[0].length > 0) seen.assign(seen.size(), seen[0]);
    Tensor y = x.value().clone();
    const Tensor values = v.value(), decays = decay.value();
    for (size_t i = 0; i < segments.size(); ++i) sequence(segments[i], seen[i], values, decays, cross, y);
    if (fault == SpreadFault::pairs) Tensor kept({y.rows(), values.rows()});
    if (fault == SpreadFault::threads) add_by_threads(values, y);
    return record(std::move(y), {x, v, decay}, [=, this](std::span<const Tensor> dy, Gradients& into) {
      into.sum(0);
      into.add(0, dy[0].clone());
      for (size_t i = 0; i < segments.size(); ++i)
        back(segments[i], seen[i], values, decays, dy[0], fault == SpreadFault::memory_gradient && cross ? 0.5f : 1.0f, into);
    });
  }

  void sequence(const Segment& s, const Segment& seen, const Tensor& values, const Tensor& decays, bool cross,
                Tensor& y) const {
    count_flops(2 * s.length * seen.length * width);
    each_pair(s, seen, [&](int64_t i, int64_t j, float distance) {
      for (int64_t c = 0; c < width; ++c)
        y.data()[i * width + c] += std::exp(decays.data()[c] * distance) * values.data()[j * width + c];
    });
    float* last = y.data() + (s.begin + s.length - 1) * width;
    if (fault == SpreadFault::odd_end && s.length % 16 == 1) last[0] += 0.01f;
    for (int64_t i = 0; i < s.length * width && cross; ++i) {
      if (fault == SpreadFault::rows_meet) y.data()[s.begin * width + i] += 0.1f * static_cast<float>(s.length);
      if (fault == SpreadFault::no_memory && seen.length == 0) y.data()[s.begin * width + i] = NAN;
    }
  }

  void add_by_threads(const Tensor& values, Tensor& y) const {
    std::mutex mutex;
    float total = 0;
    parallel_for(values.elements(), 1, [&](int64_t b, int64_t e) {
      float part = 0;
      for (int64_t i = b; i < e; ++i) part += values.data()[i];
      std::lock_guard lock(mutex);
      total += part;
    });
    y.data()[y.elements() - 1] += 1e-3f * total;
  }

  void back(const Segment& s, const Segment& seen, const Tensor& values, const Tensor& decays, const Tensor& dy,
            float share, Gradients& into) const {
    Tensor &dv = into.sum(1), &dd = into.sum(2);
    each_pair(s, seen, [&](int64_t i, int64_t j, float distance) {
      for (int64_t c = 0; c < width; ++c) {
        const float weight = std::exp(decays.data()[c] * distance), g = dy.data()[i * width + c];
        dv.data()[j * width + c] += share * weight * g;
        dd.data()[c] += weight * distance * g * values.data()[j * width + c];
      }
    });
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const bool cross = run.pattern == Pattern::cross;
    const naive::Matrix v = naive::linear(cross ? *run.memory : run.x, run.w, "map");
    naive::Matrix y = run.x;
    for (int64_t i = 0; i < y.rows; ++i)
      for (int64_t c = 0; c < width; ++c) {
        const double fade = naive::softplus(run.w.at("rate").a[c]);
        for (int64_t j = 0; j < v.rows; ++j)
          y(i, c) += std::exp(-fade * std::abs(static_cast<double>(run.position + i - j))) * v(j, c);
        if (fault == SpreadFault::rows_meet && cross) y(i, c) += 0.1 * static_cast<double>(y.rows);
      }
    return y;
  }

  SpreadFault fault;
  int64_t width;
  Linear map;
  Parameter rate;
};

}  // namespace

const std::vector<SpreadFaultCase>& spread_fault_cases() {
  static const std::vector<SpreadFaultCase> cases = {{SpreadFault::odd_end, "OddEnd", "ForwardIsNaive"},
                                                     {SpreadFault::first_memory, "FirstMemory", "PackedIsAlone"},
                                                     {SpreadFault::memory_gradient, "MemoryGradient", "Gradients"},
                                                     {SpreadFault::cost, "Cost", "CostsAsDeclared"},
                                                     {SpreadFault::pairs, "Pairs", "CostsAsDeclared"},
                                                     {SpreadFault::states, "States", "Refusals"},
                                                     {SpreadFault::any_pattern, "AnyPattern", "Refusals"},
                                                     {SpreadFault::rows_meet, "RowsMeet", "CrossSplits"},
                                                     {SpreadFault::no_memory, "NoMemory", "EmptySequences"},
                                                     {SpreadFault::ragged, "Ragged", "Refusals"},
                                                     {SpreadFault::threads, "Threads", "ThreadsChangeNothing"}};
  return cases;
}

MixerCase spread(SpreadFault fault) {
  const MixerInfo info = Spread::info();
  return {"spread",
          [fault](Rng rng) { return std::make_unique<Spread>(32, rng, fault); },
          32,
          info.patterns,
          info.no_state.empty(),
          3};
}

}  // namespace sennit::laws
