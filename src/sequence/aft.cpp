#include "sequence/aft.h"

#include "base/error.h"
#include "base/parallel.h"
#include "kernels/aft.h"
#include "ops/arithmetic.h"
#include "ops/count.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "sequence/recurrences.h"
#include "sequence/running.h"
#include "tensor/pooled.h"

namespace sennit {
namespace {

// Every segment's rows behind the `window` rows before them, and the rows that fall out of the window at each token.
struct Past {
  Var rows, leaving;
};
Past with_past(const Var& x, int64_t window, float nothing, const Batch& batch, size_t field) {
  const Var fresh(Tensor::full({window, x.columns()}, nothing));
  Pooled<Var> all, leaving;
  for (const Segment& s : batch.segments) {
    LayerState* state = batch.state(s);
    const Var both[] = {state && state->has(field) ? state->get(field) : fresh, rows(x, s.begin, s.length)};
    all.push_back(concat_rows(both));
    leaving.push_back(rows(all.back(), 0, s.length));
    if (!state) continue;
    const Var kept = rows(all.back(), s.length, window);
    state->set(field, recording() ? kept : Var(kept.value().clone()));
  }
  return {concat_rows(all), concat_rows(leaving)};
}

struct Core {
  Tensor k, v, far_logit, far_value, w;
  Pooled<Segment> segments;

  int64_t width() const { return far_value.row_size(); }
  int64_t dim() const { return width() / w.rows(); }
  int64_t past_row(int64_t segment) const { return segments[segment].begin + segment * w.row_size(); }
  kernels::AftTask task(int64_t segment, int64_t head) const {
    const int64_t near = past_row(segment) * width() + head * dim(),
                  at = segments[segment].begin * width() + head * dim();
    return {.k = k.data() + near,
            .v = v.data() + near,
            .far_logit = far_logit.data() + at,
            .far_value = far_value.data() + at,
            .w = w.data() + head * w.row_size(),
            .stride = width(),
            .length = segments[segment].length,
            .channels = dim(),
            .window = w.row_size()};
  }
};

}  // namespace

Var aft(const Var& k, const Var& v, const Var& w, const Batch& batch, size_t field) {
  SENNIT_CHECK(k.shape() == v.shape() && k.columns() % w.rows() == 0, "aft: k {}, v {}, w {}", k.shape().str(),
               v.shape().str(), w.shape().str());
  const int64_t window = w.columns();
  const Past keys = with_past(k, window, kAftNothing, batch, field + 2),
             values = with_past(v, window, 0, batch, field + 3);
  const RunningSoftmax far = running_softmax(keys.leaving, batch, field);
  const Var far_value = diagonal_scan(far.weight * values.leaving, far.log_decay, batch, field + 1);
  const Var far_logit = keys.leaving + softplus(scale(far.above, -1));
  Core core{keys.rows.value(), values.rows.value(), far_logit.value(),
            far_value.value(), w.value(),           {batch.segments.begin(), batch.segments.end()}};
  Tensor y(k.shape()), lse(k.shape());
  count_flops(5 * y.elements() * window);
  const int64_t heads = w.rows(), segments = std::ssize(core.segments);
  parallel_for(segments * heads, 1, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) {
      const auto task = core.task(i / heads, i % heads);
      const int64_t at = task.far_value - core.far_value.data();
      kernels::aft().forward(task, y.data() + at, lse.data() + at);
    }
  });
  return record(y, {keys.rows, values.rows, far_logit, far_value, w},
                [core, y, lse](std::span<const Tensor> dy, Gradients& into) {
                  Tensor &dk = into.sum(0), &dv = into.sum(1), &dl = into.sum(2), &dm = into.sum(3), &dw = into.sum(4);
                  count_flops(10 * y.elements() * core.w.row_size());
                  // A head's distances gather from all segments: one thread, in order.
                  parallel_for(core.w.rows(), 1, [&](int64_t b, int64_t e) {
                    for (int64_t head = b; head < e; ++head)
                      for (int64_t i = 0; i < std::ssize(core.segments); ++i) {
                        const auto task = core.task(i, head);
                        const int64_t at = task.far_value - core.far_value.data(), near = task.k - core.k.data();
                        kernels::aft().backward(task, y.data() + at, lse.data() + at, dy[0].data() + at,
                                                {dk.data() + near, dv.data() + near, dl.data() + at, dm.data() + at,
                                                 dw.data() + head * core.w.row_size()});
                      }
                  });
                });
}

}  // namespace sennit
