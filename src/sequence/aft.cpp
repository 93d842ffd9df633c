#include "sequence/aft.h"

#include <algorithm>

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
struct AftPast {
  Var rows, leaving;
};
AftPast with_past(const Var& x, int64_t window, float nothing, const Batch& batch, size_t field) {
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

struct AftCore {
  Tensor k, v, far_logit, far_value, first;  // the weights: distances, or readers
  int64_t heads, window;
  Pooled<Segment> segments;
  Tensor second{}, backwards{};  // of pairs: read, and its columns from the last position to the first

  void set_read(const Tensor& read) {
    second = read;
    backwards = Tensor({read.row_size(), read.rows()});  // filled where some token looks
    int64_t from = read.rows(), to = 0;
    for (const Segment& s : segments)
      from = std::min(from, std::max<int64_t>(0, s.position + 1 - window)), to = std::max(to, s.position + s.length);
    for (int64_t s = from; s < to; ++s)
      for (int64_t c = 0; c < read.row_size(); ++c)
        backwards.data()[(c + 1) * read.rows() - 1 - s] = read.data()[s * read.row_size() + c];
  }
  bool pairs() const { return second.defined(); }
  int64_t width() const { return far_value.row_size(); }
  int64_t dim() const { return width() / heads; }
  int64_t rank() const { return first.row_size() / heads; }
  int64_t past_row(int64_t segment) const { return segments[segment].begin + segment * window; }
  kernels::AftTask task(int64_t segment, int64_t head) const {
    const int64_t near = past_row(segment) * width() + head * dim(),
                  at = segments[segment].begin * width() + head * dim();
    return {.k = k.data() + near,
            .v = v.data() + near,
            .far_logit = far_logit.data() + at,
            .far_value = far_value.data() + at,
            .w = pairs() ? nullptr : first.data() + head * window,
            .stride = width(),
            .length = segments[segment].length,
            .channels = dim(),
            .window = window};
  }
  // f(task, position) of every token of a segment by itself, with the weights of its pairs in `row` [window].
  template <class F>
  void for_tokens(int64_t segment, int64_t head, float* row, F&& f) const {
    const kernels::AftTask whole = task(segment, head);
    for (int64_t t = 0; t < whole.length; ++t) {
      kernels::AftTask one = whole;
      const int64_t position = segments[segment].position + t;
      one.length = 1, one.window = std::min(window, position + 1), one.w = row;
      one.k += (t + window - one.window) * one.stride, one.v += (t + window - one.window) * one.stride;
      one.far_logit += t * one.stride, one.far_value += t * one.stride;
      const int64_t positions = second.rows();
      kernels::aft().pairs(first.data() + place(position, head),
                           backwards.data() + (head * rank() + 1) * positions - 1 - position, positions, rank(),
                           one.window, row);
      f(one, position);
    }
  }
  int64_t flops() const {
    if (!pairs()) return 5 * far_value.elements() * window;
    int64_t near = 0;
    for (const Segment& s : segments)
      for (int64_t t = 0; t < s.length; ++t) near += std::min(window, s.position + t + 1);
    return near * (5 * width() + 2 * heads * rank());
  }
  int64_t place(int64_t position, int64_t head) const { return (position * heads + head) * rank(); }
};

struct AftSaved {
  AftCore core;
  Tensor y, lse;

  // One segment's gradients through one head.
  void backward(int64_t segment, int64_t head, const Tensor& dy, const kernels::Aft::Gradients& into) const {
    const auto task = core.task(segment, head);
    const int64_t at = task.far_value - core.far_value.data(), near = task.k - core.k.data();
    kernels::aft().backward(
        task, y.data() + at, lse.data() + at, dy.data() + at,
        {into.k + near, into.v + near, into.far_logit + at, into.far_value + at, into.w + head * core.window});
  }
  void backward_pairs(int64_t segment, int64_t head, const Tensor& dy, const kernels::Aft::Gradients& into,
                      float* of_read) const {
    Pooled<float> row(static_cast<size_t>(core.window)), slopes(row.size());
    core.for_tokens(segment, head, row.data(), [&](const kernels::AftTask& one, int64_t position) {
      const int64_t at = one.far_value - core.far_value.data(), near = one.k - core.k.data();
      std::fill_n(slopes.begin(), one.window, 0.0f);
      kernels::aft().backward(one, y.data() + at, lse.data() + at, dy.data() + at,
                              {into.k + near, into.v + near, into.far_logit + at, into.far_value + at, slopes.data()});
      const float* reader = core.first.data() + core.place(position, head);
      float* d_reader = into.w + core.place(position, head);
      for (int64_t j = 0; j < one.window; ++j) {
        const float *read = core.second.data() + core.place(position - j, head), slope = slopes[static_cast<size_t>(j)];
        float* d_read = of_read + core.place(position - j, head);
        for (int64_t r = 0; r < core.rank(); ++r) d_reader[r] += slope * read[r], d_read[r] += slope * reader[r];
      }
    });
  }
};

void check_positions(const AftWeights& w, const Batch& batch) {
  for (const Segment& s : batch.segments)
    if (s.position + s.length > w.readers.rows())
      fail({"aft", fmt::format("at most {} positions, the weights' length", w.readers.rows()),
            fmt::format("{}", s.position + s.length)});
}

}  // namespace

Var aft(const Var& k, const Var& v, const AftWeights& w, const Batch& batch, size_t field) {
  SENNIT_CHECK(k.shape() == v.shape() && k.columns() % w.heads == 0, "aft: k {}, v {}, {} heads", k.shape().str(),
               v.shape().str(), w.heads);
  const int64_t window = w.window, heads = w.heads, segments = std::ssize(batch.segments);
  const AftPast keys = with_past(k, window, kAftNothing, batch, field + 2),
             values = with_past(v, window, 0, batch, field + 3);
  const RunningSoftmax far = running_softmax(keys.leaving, batch, field);
  const Var far_value = diagonal_scan(far.weight * values.leaving, far.log_decay, batch, field + 1);
  const Var far_logit = keys.leaving + softplus(scale(far.above, -1));
  Pooled<Var> inputs = {keys.rows, values.rows, far_logit, far_value, w.distances ? w.distances : w.readers};
  AftCore core{keys.rows.value(),
            values.rows.value(),
            far_logit.value(),
            far_value.value(),
            inputs.back().value(),
            heads,
            window,
            {batch.segments.begin(), batch.segments.end()}};
  if (!w.distances) {
    check_positions(w, batch);
    inputs.push_back(w.read);
    core.set_read(w.read.value());
  }
  Tensor y(k.shape()), lse(k.shape());
  count_flops(core.flops());
  parallel_for(segments * heads, 1, [&](int64_t b, int64_t e) {
    Pooled<float> row(static_cast<size_t>(core.pairs() ? window : 0));
    const auto forward = [&](const kernels::AftTask& task) {
      const int64_t at = task.far_value - core.far_value.data();
      kernels::aft().forward(task, y.data() + at, lse.data() + at);
    };
    for (int64_t i = b; i < e; ++i)
      if (core.pairs())
        core.for_tokens(i / heads, i % heads, row.data(), [&](const auto& task, int64_t) { forward(task); });
      else
        forward(core.task(i / heads, i % heads));
  });
  return record(y, inputs, [saved = AftSaved{core, y, lse}](std::span<const Tensor> dy, Gradients& into) {
    const kernels::Aft::Gradients to{into.sum(0).data(), into.sum(1).data(), into.sum(2).data(), into.sum(3).data(),
                                     into.sum(4).data()};
    float* of_read = saved.core.pairs() ? into.sum(5).data() : nullptr;
    count_flops(2 * saved.core.flops());
    // A head's weights gather from all segments: one thread, in order.
    parallel_for(saved.core.heads, 1, [&](int64_t b, int64_t e) {
      for (int64_t head = b; head < e; ++head)
        for (int64_t i = 0; i < std::ssize(saved.core.segments); ++i)
          if (saved.core.pairs())
            saved.backward_pairs(i, head, dy[0], to, of_read);
          else
            saved.backward(i, head, dy[0], to);
    });
  });
}

}  // namespace sennit
