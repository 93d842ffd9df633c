// Every operation against its definition in double: values, and all gradients by central differences; and every fused
// operation against its composition from plain ones.
#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "base/parallel.h"
#include "support/levels.h"
#include "support/ops_cases.h"
#include "support/plane_cases.h"

namespace sennit::operations_test {

std::vector<Operation> all_operations() {
  std::vector<Operation> all;
  for (const auto& table : {cases::maps(), cases::arithmetic(), cases::layout(), cases::products(), cases::norms(),
                            cases::sequence(), cases::plane()})
    all.insert(all.end(), table.begin(), table.end());
  return all;
}

Tensor drawn(const Shape& shape, Rng rng, double low = -1, double high = 1) {
  Tensor t(shape);
  for (float& x : t.span()) x = static_cast<float>(low + (high - low) * rng.uniform());
  return t;
}

std::vector<Tensor> inputs_of(const Operation& op, int64_t n, Rng rng) {
  std::vector<Tensor> inputs;
  for (const Shape& shape : op.shapes(n)) {
    const size_t i = inputs.size();
    const auto [low, high] = i < op.ranges.size() ? op.ranges[i] : std::pair{-2.0, 2.0};
    inputs.push_back(drawn(shape, rng.fork(i), low, high));
  }
  return inputs;
}

struct Outcome {
  std::vector<Tensor> outputs, gradients;
};

// Forward, and backward from a random gradient of every output; inputs[i] takes part when wanted[i].
Outcome run(const std::function<Vars(const Vars&)>& f, const std::vector<Tensor>& inputs,
            const std::vector<bool>& wanted) {
  Vars in;
  for (size_t i = 0; i < inputs.size(); ++i)
    in.push_back(wanted[i] ? Var::leaf(inputs[i].clone()) : Var(inputs[i].clone()));
  const Vars out = f(in);
  Outcome r;
  std::vector<std::pair<Var, Tensor>> roots;
  for (size_t i = 0; i < out.size(); ++i) {
    r.outputs.push_back(out[i].value());
    if (out[i].needs_grad()) roots.emplace_back(out[i], drawn(out[i].shape(), Rng(71).fork(i)));
  }
  backward(roots);
  for (size_t i = 0; i < in.size(); ++i) r.gradients.push_back(wanted[i] ? in[i].grad() : Tensor());
  return r;
}

Outcome run_all(const Operation& op, const std::vector<Tensor>& inputs) {
  return run(op.apply, inputs, std::vector<bool>(inputs.size(), true));
}

double loss_of(const Operation& op, const Matrices& in, const std::vector<Tensor>& outputs) {
  const Matrices ys = op.definition(in);
  double loss = 0;
  for (size_t i = 0; i < ys.size(); ++i) {
    const Tensor a = drawn(outputs[i].shape(), Rng(71).fork(i));
    for (int64_t j = 0; j < a.elements(); ++j) loss += a.data()[j] * ys[i].a[static_cast<size_t>(j)];
  }
  return loss;
}

double size_of(std::span<const float> x) {
  double square = 0;
  for (const float v : x) square += double{v} * v;
  return std::sqrt(square);
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.defined() == b.defined() &&
         (!a || (a.shape() == b.shape() &&
                 (a.elements() == 0 || std::memcmp(a.raw(), b.raw(), static_cast<size_t>(a.bytes())) == 0)));
}

// a is b to within `tolerance` of b's largest number.
void expect_near(const Tensor& a, const std::vector<double>& b, double tolerance, const std::string& what) {
  ASSERT_EQ(a.elements(), std::ssize(b)) << what;
  double most = 0;
  for (const double v : b) most = std::max(most, std::fabs(v));
  for (int64_t i = 0; i < a.elements(); ++i)
    ASSERT_NEAR(a.data()[i], b[static_cast<size_t>(i)], tolerance * (most + 1e-3)) << what << " [" << i << "]";
}

std::vector<double> doubles(const Tensor& t) {
  return {t.span().begin(), t.span().end()};
}

class Operations : public testing::TestWithParam<Operation> {
 protected:
  std::vector<int64_t> row_counts() const {
    std::vector<int64_t> counts;
    for (const int64_t n : {0, 1, 2, 7, 33, 70})
      if (n >= GetParam().fewest) counts.push_back(n);
    return counts;
  }
};

TEST_P(Operations, EqualsItsDefinition) {
  const Operation& op = GetParam();
  for_each_level([&](IsaLevel) {
    for (const int64_t n : row_counts()) {
      HostileMemory hostile;
      const auto inputs = inputs_of(op, n, Rng(3).fork(op.name));
      Vars in;
      Matrices matrices;
      for (const Tensor& t : inputs) in.emplace_back(t), matrices.push_back(to_matrix(t));
      const Vars got = op.apply(in);
      const Matrices expected = op.definition(matrices);
      ASSERT_EQ(got.size(), expected.size());
      for (size_t i = 0; i < got.size(); ++i) {
        EXPECT_FALSE(got[i].needs_grad());
        expect_near(got[i].value(), expected[i].a, 1e-5, fmt::format("{} rows, output {}", n, i));
      }
    }
  });
}

TEST_P(Operations, GradientsAreDifferencesOfTheDefinition) {
  const Operation& op = GetParam();
  for (const int64_t n : row_counts()) {
    HostileMemory hostile;
    const auto inputs = inputs_of(op, n, Rng(5).fork(op.name));
    const Outcome r = run_all(op, inputs);
    Matrices in;
    for (const Tensor& t : inputs) in.push_back(to_matrix(t));
    for (size_t i = 0; i < in.size(); ++i) {
      if (inputs[i].elements() == 0) continue;
      ASSERT_TRUE(r.gradients[i]) << "no gradient reached input " << i;
      const Tensor direction = drawn(inputs[i].shape(), Rng(7).fork(i));
      const std::vector<double> before = in[i].a;
      constexpr double kStep = 1e-5;
      double side[2], along = 0;
      for (const int s : {0, 1}) {
        for (size_t j = 0; j < before.size(); ++j) in[i].a[j] = before[j] + (s ? kStep : -kStep) * direction.data()[j];
        side[s] = loss_of(op, in, r.outputs);
      }
      in[i].a = before;
      for (int64_t j = 0; j < direction.elements(); ++j)
        along += double{direction.data()[j]} * r.gradients[i].data()[j];
      EXPECT_NEAR(along, (side[1] - side[0]) / (2 * kStep), 3e-5 * (size_of(r.gradients[i].span()) + 0.01))
          << n << " rows, input " << i;
    }
  }
}

// An input alone gets the gradient that it gets among others; gradients add up; an input used for two gets both.
TEST_P(Operations, GradientsGoWhereTheyAreWanted) {
  const Operation& op = GetParam();
  const auto inputs = inputs_of(op, 7, Rng(9).fork(op.name));
  const Outcome all = run_all(op, inputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    std::vector<bool> wanted(inputs.size(), false);
    wanted[i] = true;
    const Outcome alone = run(op.apply, inputs, wanted);
    EXPECT_TRUE(same_bits(alone.gradients[i], all.gradients[i])) << "input " << i << " alone";
    if (inputs[i].elements() == 0) continue;
    const Outcome twice = run(
        [&](const Vars& in) {
          Vars out = op.apply(in);
          const Vars again = op.apply(in);
          for (size_t j = 0; j < out.size(); ++j) out[j] = add(out[j], again[j]);
          return out;
        },
        inputs, wanted);
    for (int64_t j = 0; j < inputs[i].elements(); ++j)
      ASSERT_NEAR(twice.gradients[i].data()[j], 2 * all.gradients[i].data()[j], 1e-5 * size_of(all.gradients[i].span()))
          << "input " << i;
  }
  for (size_t i = 1; i < inputs.size(); ++i) {
    if (inputs[i].shape() != inputs[0].shape() || i >= op.ranges.size() + 1) continue;
    std::vector<Tensor> same = inputs;
    same[i] = same[0].clone();
    const Outcome apart = run_all(op, same), together = run(
                                                 [&](Vars in) {
                                                   in[i] = in[0];
                                                   return op.apply(in);
                                                 },
                                                 same, std::vector<bool>(same.size(), true));
    for (int64_t j = 0; j < same[0].elements(); ++j)
      ASSERT_NEAR(together.gradients[0].data()[j], apart.gradients[0].data()[j] + apart.gradients[i].data()[j],
                  1e-5 * (1e-6 + size_of(apart.gradients[0].span()) + size_of(apart.gradients[i].span())))
          << "inputs 0 and " << i;
  }
}

TEST_P(Operations, SameBitsForAnyNumberOfThreads) {
  const Operation& op = GetParam();
  const int before = thread_count();
  const auto inputs = inputs_of(op, 700, Rng(13).fork(op.name));
  Outcome reference;
  for (const int threads : {1, 2, 3, 8}) {
    set_thread_count(threads);
    Outcome r = run_all(op, inputs);
    if (threads == 1)
      reference = std::move(r);
    else {
      for (size_t i = 0; i < r.outputs.size(); ++i)
        EXPECT_TRUE(same_bits(r.outputs[i], reference.outputs[i])) << threads << " threads, output " << i;
      for (size_t i = 0; i < r.gradients.size(); ++i)
        EXPECT_TRUE(same_bits(r.gradients[i], reference.gradients[i])) << threads << " threads, input " << i;
    }
  }
  set_thread_count(before);
}

class FusedOperations : public testing::TestWithParam<Operation> {};

TEST_P(FusedOperations, EqualTheirComposition) {
  const Operation& op = GetParam();
  for (const int64_t n : {4, 9, 40}) {
    const auto inputs = inputs_of(op, n, Rng(11).fork(op.name));
    const Outcome fused = run_all(op, inputs),
                  composed = run(op.composition, inputs, std::vector<bool>(inputs.size(), true));
    ASSERT_EQ(fused.outputs.size(), composed.outputs.size());
    for (size_t i = 0; i < fused.outputs.size(); ++i)
      expect_near(fused.outputs[i], doubles(composed.outputs[i]), 2e-5, fmt::format("{} rows, output {}", n, i));
    for (size_t i = 0; i < inputs.size(); ++i) {
      ASSERT_EQ(fused.gradients[i].defined(), composed.gradients[i].defined()) << "input " << i;
      if (fused.gradients[i])
        expect_near(fused.gradients[i], doubles(composed.gradients[i]), 3e-5,
                    fmt::format("{} rows, gradient of input {}", n, i));
    }
  }
}

std::vector<Operation> fused_operations() {
  std::vector<Operation> fused = all_operations();
  std::erase_if(fused, [](const Operation& op) { return !op.composition; });
  return fused;
}

const auto name_of = [](const testing::TestParamInfo<Operation>& c) { return c.param.name; };
INSTANTIATE_TEST_SUITE_P(All, Operations, testing::ValuesIn(all_operations()), name_of);
INSTANTIATE_TEST_SUITE_P(All, FusedOperations, testing::ValuesIn(fused_operations()), name_of);

TEST(OperationsRefuse, ShapesThatDoNotFit) {
  const Var a(Tensor::zeros({2, 3})), b(Tensor::zeros({3, 2}));
  EXPECT_THROW(add(a, b), InternalError);
  EXPECT_THROW(matmul(a, a), InternalError);
  EXPECT_THROW(multiply_groups(a, Var(Tensor::zeros({2, 2}))), InternalError);
  EXPECT_THROW(columns(a, 1, 3), InternalError);
  EXPECT_THROW(rows(a, 1, 2), InternalError);
  EXPECT_THROW(embedding(a, std::vector<int32_t>{0, 2}), Error);
  EXPECT_THROW(embedding(a, std::vector<int32_t>{-1}), Error);
  EXPECT_THROW(linear_cross_entropy(a, a, std::vector<int32_t>{0, 2}), Error);
}

}  // namespace sennit::operations_test
