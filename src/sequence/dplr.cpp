#include "kernels/dplr.h"

#include "base/error.h"
#include "ops/count.h"
#include "sequence/matrix_state.h"

namespace sennit {
namespace {

struct DplrCore : MatrixState {
  Tensor k, a, b, g;
  float *kept = nullptr, *z = nullptr;  // kept_shape() and [N, H V], when a backward pass follows

  // Room for what every segment keeps: at most as many states as it has whole runs of tokens.
  int64_t runs(int64_t tokens) const { return tokens / kernels::DplrTask::kKept; }
  Shape kept_shape() const { return {heads(), runs(q.rows()), state_size()}; }

  kernels::DplrTask task(int64_t segment) const {
    const int64_t at = key_at(segment, 0);
    return {.q = q.data() + at,
            .k = k.data() + at,
            .v = v.data() + value_at(segment, 0),
            .a = a.data() + at,
            .b = b.data() + at,
            .g = g.data() + at,
            .stride = q.row_size(),
            .v_stride = v.row_size(),
            .length = segments[segment].length,
            .key_dim = key_dim(),
            .value_dim = value_dim(),
            .scale = options.scale,
            .kept = moved(kept, runs(segments[segment].begin) * state_size()),
            .z = moved(z, value_at(segment, 0)),
            .kept_stride = runs(q.rows()) * state_size()};
  }
};

}  // namespace

Var dplr(const DplrInputs& in, const Batch& batch, const RecurrenceOptions& options) {
  for (const Var* x : {&in.k, &in.a, &in.b, &in.g})
    SENNIT_CHECK(x->shape() == in.q.shape(), "dplr: {} for {}", x->shape().str(), in.q.shape().str());
  DplrCore core{{in.q, in.v, batch, options}, in.k.value(), in.a.value(), in.b.value(), in.g.value()};
  Tensor kept, z;
  if (recording()) kept = Tensor(core.kept_shape()), z = Tensor(core.v.shape()), core.kept = kept.data(), core.z = z.data();
  Carry carry(batch, options.field, core.state_shape());
  count_flops(core.state_flops(9));
  Tensor y = run_heads(core, carry, kernels::dplr().scratch_floats, [](const auto& t, auto... rest) { kernels::dplr().forward(t, rest...); });
  return carry.record(batch, std::move(y), {in.q, in.k, in.v, in.a, in.b, in.g}, [core, kept, z](const Tensor& dy, Gradients& into, Carry& carried) {
    kernels::Sum d[6];
    into.sums(d);
    count_flops(core.state_flops(22));
    run_heads_backward(core, carried, dy, kernels::dplr().backward_scratch_floats, [&](int64_t, int64_t, const auto& task, const HeadGradients& h, float* scratch) {
      const int64_t at = h.key_at;
      kernels::dplr().backward(task, h.s0, h.dy, h.dy_stride, h.ds_end,
                               {.q = d[0].from(at), .k = d[1].from(at), .v = d[2].from(h.value_at), .a = d[3].from(at), .b = d[4].from(at), .g = d[5].from(at)},
                               h.ds0, scratch);
    });
  });
}

}  // namespace sennit
