#include "kernels/gla.h"

#include <algorithm>

#include "base/error.h"
#include "ops/count.h"
#include "sequence/carry.h"
#include "sequence/per_head.h"
#include "sequence/recurrences.h"

namespace sennit {
namespace {

constexpr int64_t kRecurrentUpTo = 8;  // shorter segments go token by token

struct Core {
  Tensor q, k, v, g;
  Pooled<Segment> segments;
  RecurrenceOptions options;
  bool exact;

  int64_t heads() const { return options.heads; }
  int64_t key_dim() const { return q.row_size() / heads(); }
  int64_t value_dim() const { return v.row_size() / heads(); }
  int64_t state_size() const { return key_dim() * value_dim(); }
  int64_t gate_dim() const { return g ? g.row_size() / heads() : 0; }
  auto tasks() const {
    return [this](int64_t segment, int64_t head) { return task(segments[segment], head); };
  }
  kernels::GlaTask task(const Segment& s, int64_t head) const {
    return {.q = q.data() + s.begin * q.row_size() + head * key_dim(),
            .k = k.data() + s.begin * k.row_size() + head * key_dim(),
            .v = v.data() + s.begin * v.row_size() + head * value_dim(),
            .g = g ? g.data() + s.begin * g.row_size() + head * gate_dim() : nullptr,
            .q_stride = q.row_size(),
            .k_stride = k.row_size(),
            .v_stride = v.row_size(),
            .g_stride = g ? g.row_size() : 0,
            .length = s.length,
            .key_dim = key_dim(),
            .value_dim = value_dim(),
            .scale = options.scale,
            .decay = !g ? kernels::Decay::none : gate_dim() == 1 && key_dim() > 1 ? kernels::Decay::scalar : kernels::Decay::vector,
            .reads_before = options.reads_before};
  }
};

}  // namespace

Var gla(const Var& q, const Var& k, const Var& v, const Var& g, const Batch& batch, const RecurrenceOptions& options) {
  Core core{q.value(), k.value(), v.value(), g.value(), {batch.segments.begin(), batch.segments.end()}, options, batch.context->exact};
  SENNIT_CHECK(q.shape() == k.shape() && (!g || g.columns() == options.heads || g.shape() == k.shape()), "gla: q {}, k {}, g {}",
               q.shape().str(), k.shape().str(), g.shape().str());
  const Shape state{core.heads(), core.key_dim(), core.value_dim()};
  Carry carry(batch, options.field, state);
  Tensor y(v.shape());
  count_flops(q.rows() * core.heads() * core.state_size() * (g ? 6 : 4));
  each_head(std::ssize(core.segments), core.heads(), core.tasks(), kernels::gla().scratch_floats, [&](int64_t i, int64_t head, const auto& task, float* scratch) {
    const int64_t at = head * core.state_size();
    const bool stepwise = core.exact || task.length <= kRecurrentUpTo;
    (stepwise ? kernels::gla().recurrent : kernels::gla().chunked)(
        task, moved(carry.in(i), at), carry.out(i) + at, y.data() + core.segments[i].begin * y.row_size() + head * core.value_dim(),
        y.row_size(), scratch);
  });
  return carry.record(batch, std::move(y), {q, k, v, g}, [core](const Tensor& dy, Gradients& into, Carry& kept) {
    Tensor &dq = into.sum(0), &dk = into.sum(1), &dv = into.sum(2);
    Tensor* dg = core.g ? &into.sum(3) : nullptr;
    count_flops(core.q.rows() * core.heads() * core.state_size() * 14);
    each_head(std::ssize(core.segments), core.heads(), core.tasks(), kernels::gla().backward_scratch_floats, [&](int64_t i, int64_t head, const auto& task, float* scratch) {
      const int64_t at = head * core.state_size(), row = core.segments[i].begin;
      kernels::gla().backward(task, moved(kept.in(i), at), dy.data() + row * dy.row_size() + head * core.value_dim(), dy.row_size(),
                              moved(kept.d_out(i), at), dq.data() + row * dq.row_size() + head * core.key_dim(),
                              dk.data() + row * dk.row_size() + head * core.key_dim(), dv.data() + row * dv.row_size() + head * core.value_dim(),
                              dg ? dg->data() + row * dg->row_size() + head * core.gate_dim() : nullptr, moved(kept.d_in(i), at), scratch);
    });
  });
}

}  // namespace sennit
