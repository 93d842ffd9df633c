#include <gtest/gtest.h>

#include <cstring>

#include "autograd/var.h"
#include "base/error.h"
#include "base/rng.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "ops/products.h"

namespace sennit::autograd_test {

Tensor normal(Shape shape, uint64_t seed) {
  Tensor t(shape);
  Rng rng(seed);
  for (float& x : t.span()) x = static_cast<float>(rng.normal());
  return t;
}
bool same(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), static_cast<size_t>(a.bytes())) == 0;
}
float number(const Tensor& t) {
  return t.data()[0];
}

// Two outputs, x and 2x, whose backward adds what came to each, with its own factor.
std::vector<Var> once_and_twice(const Var& x, int* runs = nullptr) {
  const Var inputs[] = {x};
  return record_all({x.value(), scale(Var(x.value()), 2).value()}, inputs,
                    [runs](std::span<const Tensor> dys, Gradients& into) {
                      if (runs) ++*runs;
                      if (dys[0]) into.add(0, dys[0]);
                      if (dys[1]) into.add(0, scale(Var(dys[1]), 2).value());
                    });
}

TEST(Autograd, PathsOfADiamondAddUp) {
  const Var x = Var::leaf(Tensor::of({1}, {3}));
  const Var a = multiply(x, x), b = scale(a, 2), c = exp(scale(a, -1));
  backward(add(multiply(b, c), a));  // 2 x^2 e^(-x^2) + x^2
  const double s = 9;
  EXPECT_NEAR(number(x.grad()), 2 * 3 * (2 * std::exp(-s) - 2 * s * std::exp(-s) + 1), 1e-5);
}

TEST(Autograd, EveryNodeRunsOnceAfterAllThatFollowsIt) {
  const Var x = Var::leaf(Tensor::of({1}, {1}));
  int runs = 0;
  const auto both = once_and_twice(x, &runs);
  Var late = both[0];
  for (int i = 0; i < 10; ++i) late = scale(late, 1);
  backward(add(both[1], add(late, both[0])));
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(number(x.grad()), 4);
}

TEST(Autograd, AnOutputThatNothingUsesHasNoGradient) {
  const Var x = Var::leaf(Tensor::of({1}, {1}));
  backward(once_and_twice(x)[1]);
  EXPECT_EQ(number(x.grad()), 2);
}

TEST(Autograd, LeavesKeepAddingUp) {
  const Var x = Var::leaf(Tensor::of({2}, {1, 2}));
  for (int i = 0; i < 3; ++i) backward(sum(scale(x, 2)));
  EXPECT_EQ(x.grad().data()[1], 6);
  Var again = x;
  again.clear_grad();
  EXPECT_FALSE(x.grad());
}

// Of the two gradients of x the first is written to unset memory, the second added; of a second pass both are added.
TEST(Autograd, TheFirstOfASumIsWrittenAndTheRestAdded) {
  const HostileMemory hostile;
  const Var x = Var::leaf(Tensor::of({2, 2}, {1, 2, 3, 4}));
  for (const float passes : {1, 2}) {
    backward(matmul(x, x), Tensor::of({2, 2}, {1, 0, 0, 0}));  // of x_00^2 + x_01 x_10
    EXPECT_TRUE(same(x.grad(), Tensor::of({2, 2}, {2 * passes, 3 * passes, 2 * passes, 0})));
  }
}

TEST(Autograd, SumsAreUnsetOnlyWhereOneInputAloneIsTheirs) {
  const HostileMemory hostile;
  const Var x = Var::leaf(Tensor::of({1}, {0})), y = Var::leaf(Tensor::of({1}, {0}));
  std::vector<bool> holds;
  const auto pass = [&](const Var& constant) {
    holds.clear();
    backward(record(Tensor::of({1}, {0}), {x, y, constant, x}, [&](std::span<const Tensor>, Gradients& into) {
      kernels::Sum sums[3];
      into.sums(sums);
      into.sum(3).data()[0] += 8;  // of x, too
      for (int i = 0; i < 3; ++i) {
        const float own = static_cast<float>(1 << i);
        *sums[i].at = sums[i].holds ? *sums[i].at + own : own;
        holds.push_back(sums[i].holds);
      }
    }));
  };
  pass(Var(Tensor::of({1}, {0})));
  EXPECT_EQ(holds, (std::vector{true, false, false}));
  pass(Var(Tensor::of({1}, {0})));
  EXPECT_EQ(holds, (std::vector{true, true, false}));
  EXPECT_EQ(x.grad().data()[0], 18);
  EXPECT_EQ(y.grad().data()[0], 4);
}

TEST(Autograd, ASeedIsNotChangedAndRootsMayBeSeveral) {
  const Var x = Var::leaf(Tensor::of({2}, {1, 2}));
  const Tensor seed = Tensor::of({2}, {1, 10});
  const Var y = scale(x, 3), z = scale(y, 2);
  const std::pair<Var, Tensor> roots[] = {{y, seed}, {z, seed}};
  backward(roots);
  EXPECT_EQ(x.grad().data()[1], 90);
  EXPECT_EQ(seed.data()[1], 10);
}

TEST(Autograd, AUsedUpTapeIsAnInternalError) {
  const Var x = Var::leaf(Tensor::of({1}, {3}));
  const Var y = multiply(x, x);
  backward(y);
  EXPECT_THROW(backward(y), InternalError);
  const Var again = Var::leaf(Tensor::of({1}, {3}));
  const Var shared = multiply(again, again);
  backward(scale(shared, 2));
  EXPECT_THROW(backward(scale(shared, 3)), InternalError);
}

TEST(Autograd, MisuseIsAnInternalError) {
  const Var x = Var::leaf(Tensor::of({2}, {1, 2}));
  EXPECT_THROW(backward(scale(x, 2)), InternalError);                // no seed for two elements
  EXPECT_THROW(backward(Var(Tensor::of({1}, {1}))), InternalError);  // nothing recorded
  EXPECT_THROW(scale(x, 2).grad(), InternalError);                   // not a leaf
  const Var bad =
      record(Tensor::of({1}, {1}), {x}, [](std::span<const Tensor> dy, Gradients& into) { into.add(0, dy[0]); });
  EXPECT_THROW(backward(bad), InternalError);  // a gradient of another shape
}

TEST(Autograd, NoGradRecordsNothing) {
  const Var x = Var::leaf(Tensor::of({1}, {3}));
  {
    NoGrad off;
    EXPECT_FALSE(multiply(x, x).needs_grad());
    Recording on(true);
    EXPECT_TRUE(multiply(x, x).needs_grad());
  }
  EXPECT_TRUE(multiply(x, x).needs_grad());
  EXPECT_FALSE(multiply(x.detach(), x.detach()).needs_grad());
}

TEST(Autograd, DeepChainsGoWithoutDeepStacks) {
  constexpr int kDeep = 200000;
  using Link = Var (*)(const Var&);
  const Link links[] = {[](const Var& x) { return scale(x, 1); },
                        [](const Var& x) { return affine(add(x, x), 0.5f, 0); },
                        [](const Var& x) {
                          const auto both = once_and_twice(x);
                          return subtract(both[1], both[0]);
                        }};
  for (const Link link : links) {
    const Var x = Var::leaf(Tensor::of({1}, {1}));
    {
      Var unused = x;
      for (int i = 0; i < kDeep; ++i) unused = link(unused);
    }
    Var y = x;
    for (int i = 0; i < kDeep; ++i) y = link(y);
    backward(y);
    EXPECT_EQ(number(x.grad()), 1);
  }
}

// A small network with a parameter that is used inside and an input that goes around.
std::vector<Var> network(const Var& x, const Var& w) {
  return {add(x, tanh(linear(x, w))), silu(linear(x, w))};
}

TEST(Autograd, CheckpointChangesNoBit) {
  const Tensor start = normal({9, 16}, 1), weights = normal({16, 16}, 2), seed = normal({9, 16}, 3);
  struct Result {
    Tensor y, dx, dw;
  };
  auto outcome = [&](bool checkpointed) {
    const Var x = Var::leaf(start), w = Var::leaf(weights);
    Var y = x;
    for (int layer = 0; layer < 3; ++layer) {
      const Var inputs[] = {y};
      const auto f = [&w](std::span<const Var> in) { return network(in[0], w); };
      const std::vector<Var> out = checkpointed ? checkpoint(f, inputs) : f(inputs);
      y = layer == 2 ? out[0] : multiply(out[0], out[1]);
    }
    backward(y, seed);
    return Result{y.value(), x.grad(), w.grad()};
  };
  const Result plain = outcome(false), kept = outcome(true);
  EXPECT_TRUE(same(plain.y, kept.y));
  EXPECT_TRUE(same(plain.dx, kept.dx));
  EXPECT_TRUE(same(plain.dw, kept.dw));
}

TEST(Autograd, CheckpointReachesParametersWhenNoInputNeedsAGradient) {
  const Var x(normal({4, 16}, 1)), w = Var::leaf(normal({16, 16}, 2));
  const Var inputs[] = {x};
  const auto out = checkpoint([&w](std::span<const Var> in) { return network(in[0], w); }, inputs);
  backward(sum(out[1]));
  const Tensor inside = w.grad();
  Var fresh = w;
  fresh.clear_grad();
  backward(sum(network(x, w)[1]));
  EXPECT_TRUE(same(inside, w.grad()));
}

TEST(Autograd, CheckpointWithoutRecordingIsTheFunction) {
  NoGrad off;
  const Var x = Var::leaf(normal({4, 16}, 1)), w = Var::leaf(normal({16, 16}, 2));
  const Var inputs[] = {x};
  int calls = 0;
  const auto out = checkpoint([&](std::span<const Var> in) { return ++calls, network(in[0], w); }, inputs);
  EXPECT_EQ(calls, 1);
  EXPECT_FALSE(out[0].needs_grad());
}

TEST(Autograd, MemoryReturnsToItsLevelAfterAStep) {
  const Var x(normal({64, 16}, 1));
  Var w = Var::leaf(normal({16, 16}, 2));
  int64_t level = 0;
  for (int step = 0; step < 4; ++step) {
    {
      Var y = x;
      for (int i = 0; i < 5; ++i) {
        const Var inputs[] = {y};
        y = i % 2 ? network(y, w)[0]
                  : checkpoint([&w](std::span<const Var> in) { return network(in[0], w); }, inputs)[0];
      }
      backward(mean(y));
    }
    w.clear_grad();
    if (step == 0) level = memory_counters().live;
    EXPECT_EQ(memory_counters().live, level) << "after step " << step;
  }
}

TEST(Autograd, BackwardFreesWhatItHasPassed) {
  const Var x = Var::leaf(normal({256, 256}, 1));
  const int64_t before = memory_counters().live;
  const Var y = [&] {
    Var z = x;
    for (int i = 0; i < 8; ++i) z = exp(scale(z, 0.1f));
    return sum(z);
  }();
  EXPECT_GE(memory_counters().live - before, 8 * x.value().bytes());
  backward(y);
  EXPECT_LE(memory_counters().live - before, x.value().bytes() + 4096);  // the gradient of x
}

}  // namespace sennit::autograd_test
