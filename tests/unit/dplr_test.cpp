#include <gtest/gtest.h>

#include <array>

#include "base/parallel.h"
#include "sequence/recurrences.h"

namespace sennit::dplr_test {

constexpr int64_t kHeads = 4, kDim = 12, kWidth = kHeads * kDim;
using Inputs = std::array<Tensor, 6>;  // q, k, v, a, b, g

Tensor normal(Rng& rng, int64_t rows) {
  Tensor x({rows, kWidth});
  for (int64_t i = 0; i < rows * kWidth; ++i) x.data()[i] = static_cast<float>(0.3 * rng.normal());
  return x;
}

Inputs inputs(Rng& rng, int64_t rows) {
  Inputs in;
  for (Tensor& x : in) x = normal(rng, rows);
  for (int64_t i = 0; i < rows * kWidth; ++i) in[5].data()[i] = -std::abs(in[5].data()[i]);
  return in;
}

// y and the gradients of the inputs, where that of y is dy.
std::vector<Tensor> passes(const Inputs& in, const Tensor& dy, std::span<const Segment> segments) {
  const Recording on(true);
  const Context context;
  std::array<Var, 6> x;
  for (size_t i = 0; i < x.size(); ++i) x[i] = Var::leaf(in[i]);
  const Var y = dplr({x[0], x[1], x[2], x[3], x[4], x[5]}, {segments, &context}, {.heads = kHeads});
  backward(y, dy);
  std::vector<Tensor> all{y.value()};
  for (const Var& v : x) all.push_back(v.grad());
  return all;
}

void expect_same(const Tensor& a, const Tensor& b, size_t which) {
  for (int64_t i = 0; i < a.rows() * kWidth; ++i) ASSERT_EQ(a.data()[i], b.data()[i]) << which << " at " << i;
}

// Long enough that each segment keeps states for its backward pass, and that runs of tokens begin inside others.
constexpr std::array<int64_t, 5> kLengths = {70, 1, 130, 64, 65};

TEST(Dplr, SegmentsOfABatchHaveTheBitsOfEachAlone) {
  Rng rng(1);
  std::vector<Segment> segments;
  int64_t rows = 0;
  for (int64_t length : kLengths) segments.push_back({rows, length, 0, nullptr}), rows += length;
  const Inputs in = inputs(rng, rows);
  const Tensor dy = normal(rng, rows);
  const std::vector<Tensor> together = passes(in, dy, segments);
  for (const Segment& s : segments) {
    Inputs own;
    for (size_t i = 0; i < in.size(); ++i) own[i] = in[i].slice(s.begin, s.length);
    const Segment whole[] = {{0, s.length, 0, nullptr}};
    const std::vector<Tensor> alone = passes(own, dy.slice(s.begin, s.length), whole);
    for (size_t i = 0; i < alone.size(); ++i) expect_same(alone[i], together[i].slice(s.begin, s.length), i);
  }
}

TEST(Dplr, BitsDoNotDependOnTheNumberOfThreads) {
  Rng rng(2);
  const Inputs in = inputs(rng, 200);
  const Tensor dy = normal(rng, 200);
  const Segment segments[] = {{0, 131, 0, nullptr}, {131, 69, 0, nullptr}};
  const int before = thread_count();
  set_thread_count(1);
  const std::vector<Tensor> one = passes(in, dy, segments);
  for (int threads : {2, 3}) {
    set_thread_count(threads);
    const std::vector<Tensor> more = passes(in, dy, segments);
    for (size_t i = 0; i < one.size(); ++i) expect_same(one[i], more[i], i);
  }
  set_thread_count(before);
}

}  // namespace sennit::dplr_test
