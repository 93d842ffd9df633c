#include "sequence/corrected_attention.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/corrected_attention.h"
#include "ops/count.h"
#include "sequence/per_head.h"
#include "tensor/pooled.h"

namespace sennit {
namespace {

constexpr int64_t kQueries = 256;  // of a job

// Of a row, the numbers of a head.
template <class T>
auto head_of(T& t, int64_t row, int64_t head, int64_t heads) {
  return t.data() + row * t.row_size() + head * (t.row_size() / heads);
}

struct Plan {
  CorrectedOptions o;
  KeySource source;
  Pooled<AttentionSegment> segments;
  Tensor q, b, mean, log_sum;
  Pooled<Tensor> k, v, a;
  int64_t features = 0;

  kernels::CorrectedTask task(const AttentionSegment& s, int64_t head) const {
    const Tensor &ks = k[s.source], &vs = v[s.source];
    return {.k = head_of(ks, s.key_begin, head, o.heads),
            .v = head_of(vs, s.key_begin, head, o.heads),
            .a = features ? head_of(a[s.source], s.key_begin, head, o.heads) : nullptr,
            .k_stride = ks.row_size(),
            .v_stride = vs.row_size(),
            .a_stride = features * o.heads,
            .key_dim = ks.row_size() / o.heads,
            .value_dim = vs.row_size() / o.heads,
            .features = features,
            .scale = o.scale};
  }
  kernels::CorrectedRow row(int64_t at, int64_t head, const int32_t* keys, int64_t count) const {
    return {.q = head_of(q, at, head, o.heads),
            .b = features ? head_of(b, at, head, o.heads) : nullptr,
            .mean = head_of(mean, at, head, o.heads),
            .log_sum = *head_of(log_sum, at, head, o.heads),
            .keys = keys,
            .count = count};
  }
  int64_t query(size_t segment, int64_t head, int64_t n) const { return o.order ? o.order(segment, head, n) : n; }
  int64_t pair_flops() const {
    return corrected_pair_flops(q.row_size() / o.heads, mean.row_size() / o.heads, features);
  }
};

struct Made {
  Tensor y, top, total;  // [N, H V], [N, H], [N, H]
};
struct Job {
  size_t segment;
  int64_t head, begin, end;
};

int64_t forward(const Plan& p, Made& made) {  // returns the pairs
  Pooled<Job> jobs;
  for (size_t i = 0; i < p.segments.size(); ++i)
    for (int64_t h = 0; h < p.o.heads; ++h)
      for (int64_t b = 0; b < p.segments[i].queries; b += kQueries)
        jobs.push_back({i, h, b, std::min(b + kQueries, p.segments[i].queries)});
  Pooled<int64_t> pairs(jobs.size());
  each_with_scratch(std::ssize(jobs), p.o.most, [&](int64_t j, float* scratch) {
    const Job& job = jobs[j];
    const AttentionSegment& s = p.segments[job.segment];
    const auto task = p.task(s, job.head);
    Pooled<int32_t> keys(p.o.most);
    for (int64_t n = job.begin; n < job.end; ++n) {
      const int64_t i = p.query(job.segment, job.head, n), at = s.query_begin + i, count = p.source(job.segment, job.head, i, keys.data());
      pairs[j] += count;
      kernels::corrected_attention().forward(
          task, p.row(at, job.head, keys.data(), count), head_of(made.y, at, job.head, p.o.heads),
          head_of(made.top, at, job.head, p.o.heads), head_of(made.total, at, job.head, p.o.heads), scratch);
    }
  });
  int64_t all = 0;
  for (const int64_t n : pairs) all += n;
  return all;
}

struct Sums {
  Tensor &q, &mean, &log_sum, &b;
  std::span<Tensor*const> k, v, a;
};

// A head's keys gather from all queries of its segment: one thread, in order.
void backward(const Plan& p, const Made& made, const Tensor& dy, const Sums& into) {
  const int64_t heads = p.o.heads;
  const auto job = [&](size_t segment, int64_t head) {
    const AttentionSegment& s = p.segments[segment];
    const auto task = p.task(s, head);
    Pooled<int32_t> keys(p.o.most);
    for (int64_t n = 0; n < s.queries; ++n) {
      const int64_t i = p.query(segment, head, n), at = s.query_begin + i, count = p.source(segment, head, i, keys.data());
      kernels::corrected_attention().backward(
          task, p.row(at, head, keys.data(), count), head_of(made.y, at, head, heads), head_of(dy, at, head, heads),
          *head_of(made.top, at, head, heads), *head_of(made.total, at, head, heads),
          {.q = head_of(into.q, at, head, heads),
           .b = p.features ? head_of(into.b, at, head, heads) : nullptr,
           .mean = head_of(into.mean, at, head, heads),
           .log_sum = head_of(into.log_sum, at, head, heads),
           .k = head_of(*into.k[s.source], s.key_begin, head, heads),
           .v = head_of(*into.v[s.source], s.key_begin, head, heads),
           .a = p.features ? head_of(*into.a[s.source], s.key_begin, head, heads) : nullptr});
    }
  };
  parallel_for(std::ssize(p.segments) * heads, 1, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) job(static_cast<size_t>(i / heads), i % heads);
  });
}

Var recorded(Plan plan, Made made, const CorrectedInputs& in, int64_t flops) {
  std::vector<Var> inputs = {in.q, in.mean, in.log_sum};
  for (const auto part : {in.k, in.v, in.a}) inputs.insert(inputs.end(), part.begin(), part.end());
  if (plan.features) inputs.push_back(in.b);
  const Tensor y = made.y;
  return record(y, inputs,
                [plan = std::move(plan), made = std::move(made), flops](std::span<const Tensor> dys, Gradients& into) {
                  count_flops(3 * flops);
                  const int sources = static_cast<int>(plan.k.size());
                  int next = 3;
                  const auto sums = [&](size_t count) {
                    std::vector<Tensor*> all;
                    for (size_t i = 0; i < count; ++i) all.push_back(&into.sum(next++));
                    return all;
                  };
                  const auto dk = sums(plan.k.size()), dv = sums(plan.v.size()), da = sums(plan.a.size());
                  Tensor db = plan.features ? into.sum(3 + 3 * sources) : Tensor();
                  backward(plan, made, dys[0], {into.sum(0), into.sum(1), into.sum(2), db, dk, dv, da});
                });
}

}  // namespace

Var attend_listed(const ListedInputs& in, std::span<const AttentionSegment> segments, const CorrectedOptions& options,
                  KeySource source) {
  const int64_t n = in.q.rows(), width = in.v.empty() ? 0 : in.v[0].columns();
  const Var none, nothing(Tensor::zeros({n, width})), never(Tensor::full({n, options.heads}, -INFINITY));
  return corrected_attention({in.q, none, in.k, in.v, {}, nothing, never}, segments, options, std::move(source));
}

int64_t corrected_pair_flops(int64_t key_dim, int64_t value_dim, int64_t features) {
  return 2 * (key_dim + value_dim) + 4 * features;
}

Var corrected_attention(const CorrectedInputs& in, std::span<const AttentionSegment> segments,
                        const CorrectedOptions& options, KeySource source, Tensor* log_totals) {
  Plan plan{options,
            std::move(source),
            {segments.begin(), segments.end()},
            in.q.value(),
            {},
            in.mean.value(),
            in.log_sum.value(),
            {},
            {},
            {}};
  if (in.b) plan.b = in.b.value(), plan.features = in.b.columns() / options.heads;
  SENNIT_CHECK(in.k.size() == in.v.size() && in.a.size() == (plan.features ? in.k.size() : 0));
  for (const Var& x : in.k) plan.k.push_back(x.value());
  for (const Var& x : in.v) plan.v.push_back(x.value());
  for (const Var& x : in.a) plan.a.push_back(x.value());
  Made made{Tensor(in.mean.shape()), Tensor(in.log_sum.shape()), Tensor(in.log_sum.shape())};
  const int64_t flops = forward(plan, made) * plan.pair_flops();
  count_flops(flops);
  if (log_totals) {
    *log_totals = Tensor(in.log_sum.shape());
    for (int64_t i = 0; i < made.top.elements(); ++i)
      log_totals->data()[i] = made.top.data()[i] + std::log(made.total.data()[i]);
  }
  return recording() ? recorded(std::move(plan), made, in, flops) : Var(made.y);
}

}  // namespace sennit
