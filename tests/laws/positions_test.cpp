// Every registered position under the laws, and ones that break them.
#include <gtest/gtest.h>

#include <cmath>

#include "laws/position_laws.h"
#include "sequence/rotary.h"

namespace sennit::laws::positions_test {

enum class Fault { none, off_by_one, halves_for_neighbours, ignores_segments, grows, absolute };

// Rotary embedding of all numbers, with one mistake.
struct Turning : Position {
  explicit Turning(Fault f) : fault(f) {}
  Var turn(const Var& x, std::span<const Segment> segments, int64_t heads) const override {
    std::vector<Segment> moved(segments.begin(), segments.end());
    for (Segment& s : moved) {
      if (fault == Fault::off_by_one && s.position > 0) ++s.position;
      if (fault == Fault::ignores_segments) s.position = s.begin;
    }
    return rotary(x, moved,
                  {.heads = heads, .dims = kPositionDim, .interleaved = fault == Fault::halves_for_neighbours});
  }
  void naive_turn(double* row, int64_t position, int64_t, int64_t) const override {
    for (int64_t i = 0; i < kPositionDim / 2; ++i) {
      const double at = static_cast<double>(position), power = fault == Fault::absolute ? at * at / 100 : at;
      const double angle = power * std::pow(10000, -2.0 * static_cast<double>(i) / kPositionDim),
                   growth = fault == Fault::grows ? 1.001 : 1;
      const double a = growth * row[i], b = row[i + kPositionDim / 2];
      row[i] = a * std::cos(angle) - b * std::sin(angle);
      row[i + kPositionDim / 2] = a * std::sin(angle) + b * std::cos(angle);
    }
  }
  Fault fault;
};

PositionCase turning(Fault fault) {
  return {"turning", [fault] { return std::make_unique<Turning>(fault); }};
}

TEST(PositionLaws, Hold) {
  for (const PositionCase& c : registered_positions())
    for (const PositionLaw& law : position_laws()) EXPECT_EQ(law.check(c), "") << c.name << " breaks " << law.name;
}

TEST(PositionLaws, HoldWithoutAMistake) {
  for (const PositionLaw& law : position_laws()) EXPECT_EQ(law.check(turning(Fault::none)), "") << law.name;
}

TEST(PositionLaws, AreBrokenByMistakes) {
  const std::pair<Fault, std::string> mistakes[] = {
      {Fault::off_by_one, "TurnIsNaiveTurn"},         {Fault::halves_for_neighbours, "TurnIsNaiveTurn"},
      {Fault::ignores_segments, "RowsAreAlone"},      {Fault::grows, "NormsAreKept"},
      {Fault::absolute, "ScoresDependOnTheDistance"}, {Fault::halves_for_neighbours, "Gradients"}};
  for (const auto& [fault, name] : mistakes)
    for (const PositionLaw& law : position_laws()) {
      if (law.name == name) {
        EXPECT_NE(law.check(turning(fault)), "") << name << " holds for mistake " << static_cast<int>(fault);
      }
    }
}

}  // namespace sennit::laws::positions_test
