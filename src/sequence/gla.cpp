#include "kernels/gla.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/paired_gla.h"
#include "ops/count.h"
#include "products/panel_kernels.h"
#include "sequence/matrix_state.h"

namespace sennit {
namespace {

// Whether a task goes by products of bf16 pairs, where these are wanted: of a shorter or narrower one, packing takes more
// than it saves.
bool goes_paired(const kernels::GlaTask& t) {
  constexpr int64_t kLeastLength = 32, kLeastWidth = 16;
  return t.length >= kLeastLength && std::min(t.key_dim, t.value_dim) >= kLeastWidth;
}

struct GlaCore : MatrixState {
  Tensor k, g;
  bool pairs;  // wanted in long segments

  int64_t gate_dim() const { return !g ? 0 : g.row_size() == heads() ? 1 : key_dim(); }
  kernels::Decay decay() const {
    if (!g) return kernels::Decay::none;
    return gate_dim() == 1 && key_dim() > 1 ? kernels::Decay::scalar : kernels::Decay::vector;
  }
  static int64_t forward_floats(const kernels::GlaTask& t) {
    return std::max(kernels::gla().scratch_floats(t), kernels::paired_gla().forward_floats(t));
  }
  static int64_t backward_floats(const kernels::GlaTask& t) {
    return std::max(kernels::gla().backward_scratch_floats(t), kernels::paired_gla().backward_floats(t));
  }
  kernels::GlaTask task(int64_t segment) const {
    return {.q = q.data() + key_at(segment, 0),
            .k = k.data() + key_at(segment, 0),
            .v = v.data() + value_at(segment, 0),
            .g = g ? g.data() + at(segment, 0, gate_dim()) : nullptr,
            .q_stride = q.row_size(),
            .k_stride = k.row_size(),
            .v_stride = v.row_size(),
            .g_stride = g ? g.row_size() : 0,
            .length = segments[segment].length,
            .key_dim = key_dim(),
            .value_dim = value_dim(),
            .scale = options.scale,
            .decay = decay(),
            .reads_before = options.reads_before};
  }
};

}  // namespace

Var gla(const Var& q, const Var& k, const Var& v, const Var& g, const Batch& batch, const RecurrenceOptions& options) {
  SENNIT_CHECK(q.shape() == k.shape() && (!g || g.columns() == options.heads || g.shape() == k.shape()), "gla: q {}, k {}, g {}",
               q.shape().str(), k.shape().str(), g.shape().str());
  const GlaCore core{{q, v, batch, options}, k.value(), g.value(), (options.paired && !batch.context->exact) || wants_pairs(*batch.context)};
  Carry carry(batch, options.field, core.state_shape());
  count_flops(core.state_flops(g ? 6 : 4));
  Tensor y = run_heads(core, carry, core.pairs ? core.forward_floats : kernels::gla().scratch_floats,
                       [pairs = core.pairs, steps = core.stepwise_up_to()](const auto& t, auto... rest) {
                         if (pairs && goes_paired(t)) return kernels::paired_gla().forward(t, panel_kernels(Precision::bf16), rest...);
                         return (t.length <= steps ? kernels::gla().recurrent : kernels::gla().chunked)(t, rest...);
                       });
  return carry.record(batch, std::move(y), {q, k, v, g}, [core](const Tensor& dy, Gradients& into, Carry& kept) {
    kernels::Sum d[4];
    into.sums(std::span(d, core.g ? 4 : 3));
    count_flops(core.state_flops(14));
    const auto scratch_floats = core.pairs ? core.backward_floats : kernels::gla().backward_scratch_floats;
    run_heads_backward(core, kept, dy, scratch_floats, [&](int64_t i, int64_t head, const auto& task, const HeadGradients& h, float* scratch) {
      const kernels::Gla::Gradients to{.q = d[0].from(h.key_at), .k = d[1].from(h.key_at), .v = d[2].from(h.value_at), .g = d[3].from(core.at(i, head, core.gate_dim()))};
      const auto run = [&](const auto& step, const auto&... panels) { step(task, panels..., h.s0, h.dy, h.dy_stride, h.ds_end, to, h.ds0, scratch); };
      if (core.pairs && goes_paired(task))
        run(kernels::paired_gla().backward, panel_kernels(Precision::bf16));
      else
        run(kernels::gla().backward);
    });
  });
}

}  // namespace sennit
