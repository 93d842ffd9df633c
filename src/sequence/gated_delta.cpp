#include "base/error.h"
#include "kernels/delta.h"
#include "ops/count.h"
#include "sequence/matrix_state.h"

namespace sennit {
namespace {

struct GatedDeltaCore : MatrixState {
  Tensor k, beta, g;

  kernels::DeltaTask task(int64_t segment, int64_t head) const {
    return {.q = q.data() + key_at(segment, head),
            .k = k.data() + key_at(segment, head),
            .v = v.data() + value_at(segment, head),
            .g = g ? g.data() + at(segment, head, 1) : nullptr,
            .beta = beta.data() + at(segment, head, 1),
            .q_stride = q.row_size(),
            .k_stride = k.row_size(),
            .v_stride = v.row_size(),
            .g_stride = g ? heads() : 0,
            .beta_stride = heads(),
            .length = segments[segment].length,
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
  const GatedDeltaCore core{{q, v, batch, options}, k.value(), beta.value(), g.value()};
  const kernels::Delta& kernel = kernels::delta();
  Carry carry(batch, options.field, core.state_shape());
  count_flops(core.state_flops(8));
  Tensor y = run_heads(core, carry, kernel.scratch_floats, [&](const auto& task) { return core.stepwise(task.length) ? kernel.recurrent : kernel.chunked; });
  return carry.record(batch, std::move(y), {q, k, v, beta, g}, [core](const Tensor& dy, Gradients& into, Carry& kept) {
    Tensor &dq = into.sum(0), &dk = into.sum(1), &dv = into.sum(2), &dbeta = into.sum(3);
    Tensor* dg = core.g ? &into.sum(4) : nullptr;
    count_flops(core.state_flops(20));
    run_heads_backward(core, kept, dy, kernels::delta().backward_scratch_floats, [&](int64_t i, int64_t head, const auto& task, const HeadGradients& d, float* scratch) {
      const int64_t gate = core.at(i, head, 1);
      kernels::delta().backward(task, d.s0, d.dy, d.dy_stride, d.ds_end, dq.data() + d.key_at, dk.data() + d.key_at, dv.data() + d.value_at,
                                dg ? dg->data() + gate : nullptr, dbeta.data() + gate, d.ds0, scratch);
    });
  });
}

}  // namespace sennit
