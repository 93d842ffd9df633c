#include "base/error.h"
#include "kernels/delta.h"
#include "ops/count.h"
#include "sequence/matrix_state.h"

namespace sennit {
namespace {

struct GatedDeltaCore : MatrixState {
  Tensor k, beta, g;
  float* errors = nullptr;  // [N, H V], when a backward pass follows

  kernels::DeltaTask task(int64_t segment) const {
    return {.q = q.data() + key_at(segment, 0),
            .k = k.data() + key_at(segment, 0),
            .v = v.data() + value_at(segment, 0),
            .g = g ? g.data() + at(segment, 0, 1) : nullptr,
            .beta = beta.data() + at(segment, 0, 1),
            .q_stride = q.row_size(),
            .k_stride = k.row_size(),
            .v_stride = v.row_size(),
            .g_stride = g ? heads() : 0,
            .beta_stride = heads(),
            .length = segments[segment].length,
            .key_dim = key_dim(),
            .value_dim = value_dim(),
            .scale = options.scale,
            .errors = moved(errors, value_at(segment, 0))};
  }
};

}  // namespace

Var gated_delta(const Var& q, const Var& k, const Var& v, const Var& beta, const Var& g, const Batch& batch,
                const RecurrenceOptions& options) {
  SENNIT_CHECK(q.shape() == k.shape() && beta.columns() == options.heads && (!g || g.columns() == options.heads),
               "gated_delta: q {}, k {}, beta {}, g {}", q.shape().str(), k.shape().str(), beta.shape().str(), g.shape().str());
  GatedDeltaCore core{{q, v, batch, options}, k.value(), beta.value(), g.value()};
  Tensor errors;
  if (recording()) errors = Tensor(v.shape()), core.errors = errors.data();
  Carry carry(batch, options.field, core.state_shape());
  count_flops(core.state_flops(8));
  Tensor y = run_heads(core, carry, kernels::delta().scratch_floats, [steps = core.stepwise_up_to()](const auto& t, auto... rest) {
    return (t.length <= steps ? kernels::delta().recurrent : kernels::delta().chunked)(t, rest...);
  });
  return carry.record(batch, std::move(y), {q, k, v, beta, g}, [core, errors](const Tensor& dy, Gradients& into, Carry& kept) {
    kernels::Sum d[5];
    into.sums(std::span(d, core.g ? 5 : 4));
    count_flops(core.state_flops(20));
    run_heads_backward(core, kept, dy, kernels::delta().backward_scratch_floats, [&](int64_t i, int64_t head, const auto& task, const HeadGradients& h, float* scratch) {
      const int64_t gate = core.at(i, head, 1);
      kernels::delta().backward(task, h.s0, h.dy, h.dy_stride, h.ds_end,
                                {.q = d[0].from(h.key_at), .k = d[1].from(h.key_at), .v = d[2].from(h.value_at), .g = d[4].from(gate), .beta = d[3].from(gate)},
                                h.ds0, scratch);
    });
  });
}

}  // namespace sennit
