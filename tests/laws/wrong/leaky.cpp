#include "laws/wrong/leaky.h"

#include <cmath>
#include <mutex>

#include "base/parallel.h"
#include "nn/init.h"
#include "ops/arithmetic.h"
#include "ops/count.h"
#include "ops/maps.h"
#include "sequence/carry.h"

namespace sennit::laws {
namespace {

constexpr int64_t kChunk = 16;

struct Leaky : Mixer {
  static Info info() { return {"Leaky sum", "", "", ""}; }
  Leaky(int64_t d, Rng rng, Fault f) : fault(f), width(d), map(d, d, rng.fork("map")) {
    rate.init(uniform_init({d}, -1, 1, rng.fork("rate")));
    rate.learned = fault != Fault::unlearned;
  }
  void visit(const ParameterVisitor& v) override {
    v("map", map);
    v("rate", rate);
  }
  StateSpec state_spec() const override { return {{"S", {1, width}}}; }
  int64_t flops(int64_t n) const override { return n * width * (2 * width + 2) / (fault == Fault::cost ? 2 : 1); }

  // y of one channel over a run of tokens; `s` goes in and out.
  void run(const float* v, float decay, int64_t n, float& s, float* y) const {
    for (int64_t at = 0; at < n; at += kChunk) {
      const int64_t count = std::min(kChunk, n - at);
      const float before = s;
      if (fault == Fault::split_exponentials) {
        float sum = before;  // of v_t exp(-decay t): overflows where the decay is strong
        for (int64_t t = 0; t < count; ++t) {
          sum += v[(at + t) * width] * std::exp(-decay * static_cast<float>(t + 1));
          y[(at + t) * width] = s = std::exp(decay * static_cast<float>(t + 1)) * sum;
        }
      } else {
        for (int64_t t = 0; t < count; ++t) y[(at + t) * width] = s = std::exp(decay) * s + v[(at + t) * width];
      }
      if (fault == Fault::partial_chunk && count < kChunk && n > kChunk) s = before;
    }
  }

  Var forward(const Var& x, const Batch& batch) override {
    if (fault != Fault::any_pattern) mixers::check_batch<Leaky>("leaky", batch);
    const Var v = map(x, *batch.context), decay = scale(softplus(rate.var), -1);
    Carry carry(batch, 0, {1, width});
    Tensor y(v.shape());
    count_flops(2 * y.elements());
    const Tensor values = v.value(), decays = decay.value();
    for (size_t i = 0; i < batch.segments.size(); ++i) sequence(batch, i, values, decays, carry, y);
    if (fault == Fault::memory) Tensor pairs({batch.rows(), batch.rows()});
    if (fault == Fault::threads) add_by_threads(values, y);
    if (fault == Fault::batch_bits && batch.segments.size() > 1) for (float& a : y.span()) a = (a * 3.0f) / 3.0f + 1e-7f * a;
    return carry.record(batch, std::move(y), {v, decay}, [this, values, decays, segments = std::vector<Segment>(batch.segments.begin(), batch.segments.end())](
                                                             const Tensor& dy, Gradients& into, Carry& kept) { back(values, decays, segments, dy, into, kept); });
  }

  void sequence(const Batch& batch, size_t i, const Tensor& values, const Tensor& decays, Carry& carry, Tensor& y) {
    const Segment& s = batch.segments[i];
    std::vector<float> first(width);
    for (int64_t c = 0; c < width; ++c) {
      float state = carry.in(i) ? carry.in(i)[c] : 0;
      if (fault == Fault::alias && s.state && s.position > 0) state = drawer[c];
      if (fault == Fault::leak && !s.state && i > 0 && batch.segments[i - 1].length > 0) state = 0.01f * y.data()[(s.begin - 1) * width + c];
      const float* v = values.data() + s.begin * width + c;
      float* out = y.data() + s.begin * width + c;
      run(v, decays.data()[c], s.length, state, out);
      if (fault == Fault::step_scale && s.length == 1) *out *= 0.99f;
      if (fault == Fault::peek)
        for (int64_t t = 0; t + 1 < s.length; ++t) out[t * width] += 1e-6f * v[(t + 1) * width];
      if (fault == Fault::after_chunk && s.length == kChunk + 1) out[kChunk * width] += 0.01f;
      first[c] = state;
    }
    for (int64_t c = 0; c < width; ++c) carry.out(i)[c] = first[c];
    if (fault == Fault::alias && s.state) drawer = first;  // the mistake: what belongs in the state is kept beside it
    if (fault == Fault::unset_memory && s.length > 2) {
      const Tensor unset({s.length});
      y.data()[s.begin * width] += unset.data()[1];
    }
  }

  void add_by_threads(const Tensor& values, Tensor& y) {
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

  void back(const Tensor& v, const Tensor& decays, const std::vector<Segment>& segments, const Tensor& dy, Gradients& into, Carry& kept) const {
    Tensor &dv = into.sum(0), &dd = into.sum(1);
    for (size_t i = 0; i < segments.size(); ++i)
      for (int64_t c = 0; c < width; ++c) {
        const Segment& s = segments[i];
        const float a = std::exp(decays.data()[c]);
        std::vector<float> states = {kept.in(i) ? kept.in(i)[c] : 0};
        for (int64_t t = 0; t < s.length; ++t) states.push_back(a * states.back() + v.data()[(s.begin + t) * width + c]);
        float ds = kept.d_out(i) ? kept.d_out(i)[c] : 0;
        for (int64_t t = s.length - 1; t >= 0; --t) {
          ds += dy.data()[(s.begin + t) * width + c];
          dv.data()[(s.begin + t) * width + c] += ds;
          dd.data()[c] += ds * a * states[t] * (fault == Fault::gradient ? 0.5f : 1);
          ds *= a;
        }
        if (float* d_in = kept.d_in(i); d_in && fault != Fault::state_gradient) d_in[c] += ds;
      }
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix v = naive::linear(run.x, run.w, "map");
    naive::Matrix& s = run.state["S"];
    if (!s.rows) s = naive::Matrix(1, width);
    naive::Matrix y(v.rows, width);
    for (int64_t t = 0; t < v.rows; ++t)
      for (int64_t c = 0; c < width; ++c) y(t, c) = s(0, c) = std::exp(-naive::softplus(run.w.at("rate").a[c])) * s(0, c) + v(t, c);
    return y;
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const int64_t n = x.rows();
    ImplicitMatrix m{Tensor::zeros({width, n, n}), map(x, c).value()};
    const Tensor decay = softplus(rate.var).value();
    for (int64_t h = 0; h < width; ++h)
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j <= i - (fault == Fault::matrix); ++j)
          m.weights.data()[(h * n + i) * n + j] = std::exp(-decay.data()[h] * static_cast<float>(i - j));
    return m;
  }

  Fault fault;
  int64_t width;
  Linear map;
  Parameter rate;
  std::vector<float> drawer;
};

}  // namespace

const std::vector<FaultCase>& fault_cases() {
  static const std::vector<FaultCase> cases = {{Fault::step_scale, "StepScale", "ForwardIsNaive"},
                                               {Fault::partial_chunk, "PartialChunk", "AnySplit"},
                                               {Fault::split_exponentials, "SplitExponentials", "ForwardIsNaive"},
                                               {Fault::leak, "Leak", "PackedIsAlone"},
                                               {Fault::peek, "Peek", "CausalToTheBit"},
                                               {Fault::after_chunk, "AfterChunk", "ForwardIsNaive"},
                                               {Fault::threads, "Threads", "ThreadsChangeNothing"},
                                               {Fault::alias, "Alias", "Snapshots"},
                                               {Fault::gradient, "Gradient", "Gradients"},
                                               {Fault::unlearned, "Unlearned", "Gradients"},
                                               {Fault::state_gradient, "StateGradient", "Gradients"},
                                               {Fault::batch_bits, "BatchBits", "PackedIsAlone"},
                                               {Fault::cost, "Cost", "CostsAsDeclared"},
                                               {Fault::memory, "Memory", "CostsAsDeclared"},
                                               {Fault::matrix, "Matrix", "ImplicitMatrix"},
                                               {Fault::unset_memory, "UnsetMemory", "ForwardIsNaive"},
                                               {Fault::any_pattern, "AnyPattern", "Refusals"}};
  return cases;
}

MixerCase leaky(Fault fault) {
  return {"leaky", [fault](Rng rng) { return std::make_unique<Leaky>(32, rng, fault); }, 32};
}

}  // namespace sennit::laws
