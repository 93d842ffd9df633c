// The loop of recurrent cells over tokens: whatever is shared among threads, packed or carried on, the bits are those
// of one sequence taken token by token.
#include <gtest/gtest.h>

#include "base/parallel.h"
#include "sequence/rnn.h"
#include "support/mixers.h"

namespace sennit::cells_test {

struct Shape {
  int64_t heads, dim;
};
// A matrix that a core keeps near, and one so large that threads share its channels; dims that end within a vector.
constexpr Shape kShapes[] = {{3, 21}, {2, 185}};
constexpr int64_t kLengths[] = {13, 0, 1, 9, 13, 30, 2};
constexpr size_t kContinued[] = {1, 2, 4, 5};  // those that go on from a state; the first of them is empty

struct Any {
  std::string name;
  CellKind kind;
};
std::vector<Any> all_cells() {
  return {{"elman", cell_kind(RnnCell::elman)},      {"lstm", cell_kind(RnnCell::lstm)},
          {"gru", cell_kind(RnnCell::gru)},          {"slstm", cell_kind(RnnCell::slstm)},
          {"lem", cell_kind(StagedCell::lem, 0.7f)}, {"cfc", cell_kind(StagedCell::cfc, 0.7f)},
          {"elm", cell_kind(StagedCell::elm, 0.7f)}};
}

struct Operands {
  Var x, r;
  Operands(const CellKind& kind, Shape shape, int64_t rows)
      : x(Var::leaf(normal_rows(rows, shape.heads * kind.gates * shape.dim, 1))),
        r(Var::leaf(normal_rows(shape.heads * shape.dim, kind.gates * shape.dim, 2))) {
    for (float& w : r.value().span()) w *= 0.5f / std::sqrt(static_cast<float>(shape.dim));
  }
};

std::vector<Segment> packed(std::vector<SequenceState>* states) {
  std::vector<Segment> segments;
  int64_t begin = 0;
  for (const int64_t length : kLengths) {
    segments.push_back({begin, length, 0, states ? &(*states)[segments.size()] : nullptr});
    begin += length;
  }
  return segments;
}

void expect_same_bits(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.elements(), b.elements());
  for (int64_t i = 0; i < a.elements(); ++i) ASSERT_EQ(a.data()[i], b.data()[i]) << "at " << i;
}

TEST(Cells, ABatchOfSequencesIsEachTokenByToken) {
  NoGrad off;
  const Context context;
  const int before = thread_count();
  for (const Any& cell : all_cells())
    for (const Shape shape : kShapes) {
      SCOPED_TRACE(cell.name);
      std::vector<SequenceState> together(std::size(kLengths));
      const std::vector<Segment> segments = packed(&together);
      const int64_t rows = segments.back().begin + segments.back().length;
      const Operands in(cell.kind, shape, rows);
      set_thread_count(3);
      const Tensor y = run_cells(cell.kind, in.x, in.r, shape.heads, {segments, &context}, 0).value();
      set_thread_count(1);
      for (size_t i = 0; i < segments.size(); ++i) {
        SequenceState state;
        for (int64_t t = 0; t <= segments[i].length; ++t) {
          const int64_t length = t < segments[i].length;  // at the end, nothing: it changes nothing
          const Segment one[] = {{0, length, t, &state}};
          const Var x(in.x.value().slice(segments[i].begin + t, length).clone());
          const Tensor token = run_cells(cell.kind, x, in.r, shape.heads, {one, &context}, 0).value();
          expect_same_bits(token, y.slice(segments[i].begin + t, length));
        }
        expect_same_bits(state.layer(0).get(0).value(), together[i].layer(0).get(0).value());
      }
    }
  set_thread_count(before);
}

// Of x, r and a state that the sequences go on from, by threads.
std::vector<Tensor> gradients(const Any& cell, Shape shape, int threads) {
  set_thread_count(threads);
  const Context context;
  std::vector<SequenceState> states(std::size(kLengths));
  std::vector<Segment> segments = packed(&states);
  const int64_t rows = segments.back().begin + segments.back().length, size = cell.kind.states * shape.dim;
  const Operands in(cell.kind, shape, rows);
  std::vector<Var> first;
  for (const size_t i : kContinued) {
    Tensor s = normal_rows(shape.heads, size, 10 + i);
    for (float& v : s.span()) v = 1 + std::fabs(v);
    first.push_back(Var::leaf(s.reshape({shape.heads, cell.kind.states, shape.dim})));
    states[i].layer(0).set(0, first.back());
  }
  const Var y = run_cells(cell.kind, in.x, in.r, shape.heads, {segments, &context}, 0);
  std::vector<std::pair<Var, Tensor>> roots = {{y, normal_rows(rows, y.columns(), 3)}};
  for (SequenceState& state : states) {
    const Var& last = state.layer(0).get(0);
    roots.emplace_back(last, normal_rows(shape.heads, size, 4).reshape(last.shape()));
  }
  backward(roots);
  std::vector<Tensor> all = {in.x.grad(), in.r.grad()};
  for (const Var& s : first) all.push_back(s.grad());
  return all;
}

TEST(Cells, GradientsDoNotHangOnThreads) {
  const int before = thread_count();
  for (const Any& cell : all_cells())
    for (const Shape shape : kShapes) {
      const std::vector<Tensor> one = gradients(cell, shape, 1);
      expect_same_bits(one[2], normal_rows(shape.heads, cell.kind.states * shape.dim, 4));
      for (const int threads : {2, 5}) {
        SCOPED_TRACE(testing::Message() << cell.name << ", " << threads << " threads");
        const std::vector<Tensor> many = gradients(cell, shape, threads);
        for (size_t i = 0; i < one.size(); ++i) expect_same_bits(one[i], many[i]);
      }
    }
  set_thread_count(before);
}

// A sequence's gradients are those it has alone, but for the order in which those of the matrix are summed.
TEST(Cells, GradientsOfABatchAreThoseOfItsSequences) {
  const Context context;
  for (const Any& cell : all_cells()) {
    SCOPED_TRACE(cell.name);
    const Shape shape = kShapes[0];
    const std::vector<Segment> segments = packed(nullptr);
    const int64_t rows = segments.back().begin + segments.back().length;
    const Operands in(cell.kind, shape, rows);
    const Tensor dy = normal_rows(rows, shape.heads * shape.dim, 3);
    backward(run_cells(cell.kind, in.x, in.r, shape.heads, {segments, &context}, 0), dy.clone());
    const Var r = Var::leaf(in.r.value().clone());
    for (const Segment& s : segments) {
      const Var x = Var::leaf(in.x.value().slice(s.begin, s.length).clone());
      const Segment alone[] = {{0, s.length, 0, nullptr}};
      backward(run_cells(cell.kind, x, r, shape.heads, {alone, &context}, 0), dy.slice(s.begin, s.length).clone());
      if (s.length) expect_same_bits(x.grad(), in.x.grad().slice(s.begin, s.length));
    }
    EXPECT_LE(most_apart(in.r.grad(), r.grad()), 1e-5);
  }
}

}  // namespace sennit::cells_test
