#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "support/temp_folder.h"
#include "tensor/tensor.h"

namespace sennit::memory_test {

class Limit {
 public:
  explicit Limit(int64_t bytes) : before_(memory_limit()) { set_memory_limit(bytes); }
  ~Limit() { set_memory_limit(before_); }

 private:
  int64_t before_;
};

TEST(Memory, LimitIsOfThisMachine) { EXPECT_GT(memory_limit(), int64_t{1} << 26); }

TEST(Memory, PastTheLimitIsAnErrorAndNothingIsLost) {
  release_cached_memory();
  const Tensor kept = Tensor::full({1 << 20}, 1);
  const auto before = memory_counters();
  const Limit limit(before.reserved + (8 << 20));
  EXPECT_NE(error_of([] { Tensor({1 << 24}); }).find("0.1 GB asked for"), std::string::npos);
  EXPECT_EQ(memory_counters().live, before.live);
  EXPECT_EQ(memory_counters().reserved, before.reserved);
  EXPECT_EQ(kept.data()[12345], 1);
  EXPECT_EQ(Tensor({1 << 20}).elements(), 1 << 20);
}

TEST(Memory, UnusedBlocksMakeRoomBeforeTheLimitIsReached) {
  release_cached_memory();
  const Limit limit(memory_counters().reserved + (48 << 20));
  { const Tensor first({8 << 20}); }
  EXPECT_EQ(Tensor({9 << 20}).elements(), 9 << 20);
}

// Rows at the same place of several tensors would else share one set of a cache.
TEST(Memory, LargeTensorsBeginAtDifferentPlacesOfAPage) {
  constexpr size_t kPage = 4096;
  release_cached_memory();
  std::vector<Tensor> tensors;
  std::set<size_t> places;
  for (int i = 0; i < 8; ++i) {
    tensors.emplace_back(Shape{1 << 20});
    places.insert(reinterpret_cast<size_t>(tensors.back().data()) % kPage);
  }
  EXPECT_EQ(places.size(), tensors.size());
}

}  // namespace sennit::memory_test
