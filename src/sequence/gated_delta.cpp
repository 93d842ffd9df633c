#include <algorithm>

#include "base/error.h"
#include "kernels/delta.h"
#include "ops/count.h"
#include "sequence/carry.h"
#include "sequence/per_head.h"
#include "sequence/recurrences.h"

namespace sennit {
namespace {

constexpr int64_t kRecurrentUpTo = 8;  // shorter segments go token by token

struct Core {
  Tensor q, k, v, beta, g;
  Pooled<Segment> segments;
  RecurrenceOptions options;
  bool exact;

  int64_t heads() const { return options.heads; }
  int64_t key_dim() const { return q.row_size() / heads(); }
  int64_t value_dim() const { return v.row_size() / heads(); }
  int64_t state_size() const { return key_dim() * value_dim(); }
  auto tasks() const {
    return [this](int64_t segment, int64_t head) { return task(segments[segment], head); };
  }
  kernels::DeltaTask task(const Segment& s, int64_t head) const {
    return {.q = q.data() + s.begin * q.row_size() + head * key_dim(),
            .k = k.data() + s.begin * k.row_size() + head * key_dim(),
            .v = v.data() + s.begin * v.row_size() + head * value_dim(),
            .g = g ? g.data() + s.begin * heads() + head : nullptr,
            .beta = beta.data() + s.begin * heads() + head,
            .q_stride = q.row_size(),
            .k_stride = k.row_size(),
            .v_stride = v.row_size(),
            .g_stride = g ? heads() : 0,
            .beta_stride = heads(),
            .length = s.length,
            .key_dim = key_dim(),
            .value_dim = value_dim(),
            .scale = options.scale};
  }
};

}  // namespace

Var gated_delta(const Var& q, const Var& k, const Var& v, const Var& beta, const Var& g, const Batch& batch,
                const RecurrenceOptions& options) {
  SENNIT_CHECK(q.shape() == k.shape() && beta.columns() == options.heads && (!g || g.columns() == options.heads),
               "gated_delta: q {}, k {}, beta {}, g {}", q.shape().str(), k.shape().str(), beta.shape().str(), g.shape().str());
  Core core{q.value(), k.value(), v.value(), beta.value(), g.value(), {batch.segments.begin(), batch.segments.end()}, options, batch.context->exact};
  Carry carry(batch, options.field, {core.heads(), core.key_dim(), core.value_dim()});
  Tensor y(v.shape());
  count_flops(q.rows() * core.heads() * core.state_size() * 8);
  each_head(std::ssize(core.segments), core.heads(), core.tasks(), kernels::delta().scratch_floats, [&](int64_t i, int64_t head, const auto& task, float* scratch) {
    const int64_t at = head * core.state_size();
    const bool stepwise = core.exact || task.length <= kRecurrentUpTo;
    (stepwise ? kernels::delta().recurrent : kernels::delta().chunked)(
        task, moved(carry.in(i), at), carry.out(i) + at, y.data() + core.segments[i].begin * y.row_size() + head * core.value_dim(),
        y.row_size(), scratch);
  });
  return carry.record(batch, std::move(y), {q, k, v, beta, g}, [core](const Tensor& dy, Gradients& into, Carry& kept) {
    Tensor &dq = into.sum(0), &dk = into.sum(1), &dv = into.sum(2), &dbeta = into.sum(3);
    Tensor* dg = core.g ? &into.sum(4) : nullptr;
    count_flops(core.q.rows() * core.heads() * core.state_size() * 20);
    each_head(std::ssize(core.segments), core.heads(), core.tasks(), kernels::delta().backward_scratch_floats, [&](int64_t i, int64_t head, const auto& task, float* scratch) {
      const int64_t at = head * core.state_size(), row = core.segments[i].begin;
      kernels::delta().backward(task, moved(kept.in(i), at), dy.data() + row * dy.row_size() + head * core.value_dim(), dy.row_size(),
                                moved(kept.d_out(i), at), dq.data() + row * dq.row_size() + head * core.key_dim(),
                                dk.data() + row * dk.row_size() + head * core.key_dim(), dv.data() + row * dv.row_size() + head * core.value_dim(),
                                dg ? dg->data() + row * core.heads() + head : nullptr, dbeta.data() + row * core.heads() + head,
                                moved(kept.d_in(i), at), scratch);
    });
  });
}

}  // namespace sennit
