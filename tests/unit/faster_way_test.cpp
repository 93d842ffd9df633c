#include "kernels/faster_way.h"

#include <gtest/gtest.h>

#include "base/rng.h"

namespace sennit::faster_way_test {

// Work of which the two ways take `first` and `second` ticks a unit.
struct Work {
  kernels::FasterWay way{1000};
  uint64_t now = 5;
  int64_t pieces[2] = {0, 0};  // that went each way

  void run(int64_t size, uint64_t first, uint64_t second) {
    const bool to_first = way.first(now, size);
    ++pieces[to_first ? 0 : 1];
    now += static_cast<uint64_t>(size) * (to_first ? first : second);
    if (way.on_trial()) way.done(now);
  }
};

TEST(FasterWay, TheFasterOneDoesMostOfTheWork) {
  for (const bool first_is_faster : {true, false}) {
    Work w;
    for (int i = 0; i < 1000; ++i) w.run(10, first_is_faster ? 2 : 3, first_is_faster ? 3 : 2);
    EXPECT_GT(w.pieces[first_is_faster ? 0 : 1], 900);
    EXPECT_GT(w.pieces[first_is_faster ? 1 : 0], 10) << "the other is tried again";
  }
}

TEST(FasterWay, AChangeIsSeenInTime) {
  Work w;
  for (int i = 0; i < 1000; ++i) w.run(10, 2, 3);
  w.pieces[0] = 0;
  for (int i = 0; i < 1000; ++i) w.run(10, 9, 3);
  EXPECT_LT(w.pieces[0], 100);
}

TEST(FasterWay, OnlyPiecesOfOneSizeAreCompared) {
  // Compared with a small piece a large one would seem slow, whichever way it went.
  Work w;
  Rng rng(1);
  for (int i = 0; i < 3000; ++i) w.run(rng.below(2) == 0 ? 10 : 1, 2, 3);
  EXPECT_GT(w.pieces[0], 2800);
}

TEST(FasterWay, ASizeThatNeverComesAgainIsGivenUp) {
  Work w;
  w.run(77, 3, 2);
  for (int i = 0; i < 1000; ++i) w.run(10, 3, 2);
  EXPECT_GT(w.pieces[1], 700);
}

}  // namespace sennit::faster_way_test
