#include "kernels/dplr.h"

#include "base/error.h"
#include "ops/count.h"
#include "sequence/carry.h"
#include "sequence/per_head.h"
#include "sequence/recurrences.h"

namespace sennit {
namespace {

struct Core {
  Tensor q, k, v, a, b, g;
  Pooled<Segment> segments;
  RecurrenceOptions options;

  int64_t heads() const { return options.heads; }
  int64_t key_dim() const { return q.row_size() / heads(); }
  int64_t value_dim() const { return v.row_size() / heads(); }
  int64_t state_size() const { return key_dim() * value_dim(); }
  int64_t key_at(int64_t segment, int64_t head) const {
    return segments[segment].begin * q.row_size() + head * key_dim();
  }
  int64_t value_at(int64_t segment, int64_t head) const {
    return segments[segment].begin * v.row_size() + head * value_dim();
  }
  auto tasks() const {
    return [this](int64_t segment, int64_t head) {
      const int64_t at = key_at(segment, head);
      return kernels::DplrTask{.q = q.data() + at,
                               .k = k.data() + at,
                               .v = v.data() + value_at(segment, head),
                               .a = a.data() + at,
                               .b = b.data() + at,
                               .g = g.data() + at,
                               .stride = q.row_size(),
                               .v_stride = v.row_size(),
                               .length = segments[segment].length,
                               .key_dim = key_dim(),
                               .value_dim = value_dim(),
                               .scale = options.scale};
    };
  }
};

}  // namespace

Var dplr(const DplrInputs& in, const Batch& batch, const RecurrenceOptions& options) {
  for (const Var* x : {&in.k, &in.a, &in.b, &in.g})
    SENNIT_CHECK(x->shape() == in.q.shape(), "dplr: {} for {}", x->shape().str(), in.q.shape().str());
  Core core{in.q.value(),
            in.k.value(),
            in.v.value(),
            in.a.value(),
            in.b.value(),
            in.g.value(),
            {batch.segments.begin(), batch.segments.end()},
            options};
  Carry carry(batch, options.field, {core.heads(), core.key_dim(), core.value_dim()});
  Tensor y(in.v.shape());
  count_flops(y.rows() * core.heads() * core.state_size() * 9);
  each_head(std::ssize(core.segments), core.heads(), core.tasks(), kernels::dplr().scratch_floats,
            [&](int64_t i, int64_t head, const auto& task, float* scratch) {
              const int64_t at = head * core.state_size();
              kernels::dplr().forward(task, moved(carry.in(i), at), carry.out(i) + at,
                                      y.data() + core.value_at(i, head), y.row_size(), scratch);
            });
  return carry.record(
      batch, std::move(y), {in.q, in.k, in.v, in.a, in.b, in.g},
      [core](const Tensor& dy, Gradients& into, Carry& kept) {
        Tensor *d[] = {&into.sum(0), &into.sum(1), &into.sum(3), &into.sum(4), &into.sum(5)}, &dv = into.sum(2);
        count_flops(dy.rows() * core.heads() * core.state_size() * 40);
        each_head(std::ssize(core.segments), core.heads(), core.tasks(), kernels::dplr().backward_scratch_floats,
                  [&](int64_t i, int64_t head, const auto& task, float* scratch) {
                    const int64_t state = head * core.state_size(), at = core.key_at(i, head),
                                  value = core.value_at(i, head);
                    kernels::dplr().backward(task, moved(kept.in(i), state), dy.data() + value, dy.row_size(),
                                             moved(kept.d_out(i), state),
                                             {.q = d[0]->data() + at,
                                              .k = d[1]->data() + at,
                                              .v = dv.data() + value,
                                              .a = d[2]->data() + at,
                                              .b = d[3]->data() + at,
                                              .g = d[4]->data() + at},
                                             moved(kept.d_in(i), state), scratch);
                  });
      });
}

}  // namespace sennit
