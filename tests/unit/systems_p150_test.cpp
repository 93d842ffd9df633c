// Decoding by equal spans of keys: Sanovar et al., "Lean Attention: Hardware-Aware Scalable Attention Mechanism for the
// Decode-Phase of Transformers" (arXiv:2405.10480).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <numeric>

#include "base/parallel.h"
#include "kernels/attention.h"
#include "ops/layout.h"
#include "sequence/attention.h"
#include "support/levels.h"
#include "support/mixers.h"
#include "support/models.h"
#include "support/timing.h"
#include "tensor/scratch.h"

namespace sennit::systems_p150_test {

using kernels::AttentionTask;
using kernels::kAttentionSpan;

constexpr int64_t kDim = 16;

AttentionTask one_query(const Tensor& q, const Tensor& k, const Tensor& v, int64_t begin, int64_t keys) {
  return {.q = q.data(),
          .k = k.data() + begin * kDim,
          .v = v.data() + begin * kDim,
          .q_stride = kDim,
          .k_stride = kDim,
          .v_stride = kDim,
          .queries = 1,
          .keys = keys,
          .key_dim = kDim,
          .value_dim = kDim,
          .scale = 1};
}

using Sums = std::vector<float>;  // of one row: o, then m and l

Sums sums_of_span(const AttentionTask& task) {
  Sums sums(kDim + 2);
  std::vector<float> scratch(kernels::attention().scratch_floats(task));
  kernels::attention().forward_span(&task, 1, 0, 1, 0, sums.data(), 0, scratch.data());
  return sums;
}

// Of all parts, as sums again: o divided by l has l = 1 and m = ln Z.
Sums folded(AttentionTask task, const std::vector<Sums>& parts) {
  Sums flat, out(kDim + 2);
  for (const Sums& part : parts) flat.insert(flat.end(), part.begin(), part.end());
  task.keys = std::ssize(parts) * kAttentionSpan;
  kernels::attention().fold_spans(task, 0, 1, flat.data(), out.data(), kDim, &out[kDim]);
  out[kDim + 1] = 1;
  return out;
}

std::vector<double> naive(const Tensor& q, const Tensor& k, const Tensor& v) {
  std::vector<double> s(k.rows()), o(kDim);
  for (int64_t j = 0; j < k.rows(); ++j)
    for (int64_t c = 0; c < kDim; ++c) s[j] += double{q.data()[c]} * k.data()[j * kDim + c];
  const double top = *std::max_element(s.begin(), s.end());
  double total = 0;
  for (int64_t j = 0; j < k.rows(); ++j) {
    const double p = std::exp(s[j] - top);
    total += p;
    for (int64_t c = 0; c < kDim; ++c) o[c] += p * v.data()[j * kDim + c];
  }
  for (double& x : o) x /= total;
  return o;
}

TEST(SystemsP150, AnyPartitionInAnyOrderAndTreeGivesTheSoftmax) {
  for_each_level([](IsaLevel) {
    const int64_t n = 4000;
    const Tensor q = normal_rows(1, kDim, 1), k = normal_rows(n, kDim, 2), v = normal_rows(n, kDim, 3);
    const auto want = naive(q, k, v);
    Rng rng(4);
    for (int trial = 0; trial < 20; ++trial) {
      std::vector<Sums> parts;
      for (int64_t begin = 0, keys; begin < n; begin += keys) {
        keys = std::min<int64_t>(n - begin, 1 + rng.below(kAttentionSpan));
        parts.push_back(sums_of_span(one_query(q, k, v, begin, keys)));
      }
      while (parts.size() > 1) {  // some of them, wherever they stand, become one
        for (size_t i = parts.size() - 1; i > 0; --i)
          std::swap(parts[i], parts[rng.below(static_cast<int64_t>(i) + 1)]);
        const int64_t some = 2 + rng.below(std::ssize(parts) - 1);
        const Sums one = folded(one_query(q, k, v, 0, n), {parts.end() - some, parts.end()});
        parts.resize(parts.size() - some);
        parts.push_back(one);
      }
      for (int64_t c = 0; c < kDim; ++c) ASSERT_NEAR(parts[0][c], want[c], 1e-5) << trial;
    }
  });
}

// One query each on contexts of these lengths.
struct Decoding {
  int64_t heads, kv_heads, dim;
  std::vector<AttentionSegment> segments;
  Var q, k, v;
  Decoding(int64_t heads_, int64_t kv_heads_, int64_t dim_, const std::vector<int64_t>& contexts)
      : heads(heads_), kv_heads(kv_heads_), dim(dim_) {
    int64_t keys = 0;
    for (const int64_t n : contexts) {
      segments.push_back({std::ssize(segments), 1, 0, keys, n, n - 1});
      keys += n;
    }
    q = Var(normal_rows(std::ssize(contexts), heads * dim, 1));
    k = Var(normal_rows(keys, kv_heads * dim, 2));
    v = Var(normal_rows(keys, kv_heads * dim, 3));
  }
  AttentionOptions options() const {
    return {.heads = heads, .kv_heads = kv_heads, .scale = 1 / std::sqrt(static_cast<float>(dim))};
  }
  Tensor run() const { return attention(q, {&k, 1}, {&v, 1}, segments, options()).value(); }
  // The old schedule: a head of a sequence is the piece of work.
  Tensor by_heads() const {
    Tensor o({std::ssize(segments), heads * dim}), unused({heads, std::ssize(segments)});
    const auto task = [&](int64_t i, int64_t h) {
      const AttentionSegment& a = segments[i];
      const int64_t kv = h / (heads / kv_heads);
      return AttentionTask{.q = q.value().data() + i * heads * dim + h * dim,
                           .k = k.value().data() + a.key_begin * kv_heads * dim + kv * dim,
                           .v = v.value().data() + a.key_begin * kv_heads * dim + kv * dim,
                           .q_stride = heads * dim,
                           .k_stride = kv_heads * dim,
                           .v_stride = kv_heads * dim,
                           .queries = 1,
                           .keys = a.keys,
                           .key_dim = dim,
                           .value_dim = dim,
                           .offset = a.offset,
                           .causal = true,
                           .scale = options().scale};
    };
    int64_t need = 0;
    for (int64_t i = 0; i < std::ssize(segments); ++i)
      need = std::max(need, kernels::attention().scratch_floats(task(i, 0)));
    each_with_scratch(std::ssize(segments) * heads, need, [&](int64_t at, float* scratch) {
      const int64_t i = at / heads, h = at % heads;
      kernels::attention().forward(task(i, h), 0, 1, o.data() + i * heads * dim + h * dim, dim, unused.data() + i,
                                   scratch);
    });
    return o;
  }
};

TEST(SystemsP150, ThreadsAndTheCutOfTheWorkChangeNoBit) {
  const int threads = thread_count();
  for (const auto& [heads, kv_heads] : {std::pair{1, 1}, {3, 3}, {6, 2}, {4, 1}}) {
    const Decoding x(heads, kv_heads, kDim, {5000, 1000, 1025, 1024, 1});
    const Tensor whole = x.by_heads();
    for (const int n : {1, 2, 3, 16}) {
      set_thread_count(n);
      EXPECT_TRUE(same_bits(x.run().span(), whole.span())) << heads << " heads, " << n << " threads";
    }
  }
  set_thread_count(threads);
}

TEST(SystemsP150, ATokenGivesTheBitsOfItsRowInAWholePrompt) {
  const int64_t n = 2500;
  const Var q(normal_rows(n, 2 * kDim, 1)), k(normal_rows(n, kDim, 2)), v(normal_rows(n, kDim, 3));
  const AttentionOptions options{.heads = 2, .kv_heads = 1, .scale = 0.25f};
  const auto of = [&](int64_t begin, int64_t queries) {
    const AttentionSegment a{0, queries, 0, 0, begin + queries, begin};
    return attention(rows(q, begin, queries), {&k, 1}, {&v, 1}, {&a, 1}, options).value();
  };
  const Tensor whole = of(0, n);
  for (const auto& [begin, queries] :
       {std::pair<int64_t, int64_t>{2499, 1}, {1023, 1}, {1024, 1}, {2048, 5}, {1020, 16}, {2040, 17}})
    EXPECT_TRUE(same_bits(of(begin, queries).span(), rows(Var(whole), begin, queries).value().span()))
        << begin << ", " << queries;
}

TEST(SystemsP150, WorkersGetEqualCountsOfSpansOfRaggedContexts) {
  Rng rng(7);
  for (int trial = 0; trial < 50; ++trial) {
    const int64_t items = 1 + rng.below(300);
    std::map<const float*, int64_t> of_worker;
    std::mutex mutex;
    equal_runs_with_scratch(items, 16, [&](int64_t, const float* scratch) {
      const std::lock_guard lock(mutex);
      ++of_worker[scratch];
    });
    const auto [least, most] = std::minmax_element(of_worker.begin(), of_worker.end(),
                                                   [](const auto& a, const auto& b) { return a.second < b.second; });
    ASSERT_LE(most->second - least->second, 1) << items;
    ASSERT_EQ(std::ssize(of_worker), std::min<int64_t>(items, thread_count()));
  }
  const Tensor none({1, kDim});
  for (const auto& [keys, spans] : {std::pair<int64_t, int64_t>{0, 1}, {1, 1}, {1024, 1}, {1025, 2}, {65536, 64}})
    EXPECT_EQ(kernels::attention().spans(one_query(none, none, none, 0, keys)), spans);
}

// Whole heads on two threads: of contexts of 64, 1 and 1 thousand keys with one head the busier thread has 65 of 66
// units, spans leave it 33. With three heads it has 131 of 198, spans leave it 99.
TEST(SpeedP150, EqualSpansAgainstWholeHeads) {
  if (thread_count() < 2) GTEST_SKIP() << "wants two threads";
  const auto gain = [](int64_t heads, const std::vector<int64_t>& contexts) {
    const Decoding x(heads, heads, 64, contexts);
    const Seconds time = least_in_turn(
        31, [&] { x.by_heads(); }, [&] { x.run(); });
    return time.first / time.second;
  };
  const double one = gain(1, {65536, 1024, 1024}), three = gain(3, {65536, 1024, 1024}), even = gain(4, {32768}),
               many = gain(8, {8192, 8192});
  RecordProperty("one_head", std::to_string(one));
  RecordProperty("three_heads", std::to_string(three));
  RecordProperty("even_heads", std::to_string(even));
  RecordProperty("many_heads", std::to_string(many));
  EXPECT_GE(one, 1.5);
  EXPECT_GE(three, 1.2);
  EXPECT_GE(even, 0.97);
  EXPECT_GE(many, 0.97);
}

}  // namespace sennit::systems_p150_test
