// Padding-free batches (Zhai et al., "ByteTransformer", arXiv:2210.03052): an encoder over sequences of many lengths.
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "model/model.h"
#include "support/timing.h"

namespace sennit::systems_p022_test {

constexpr int64_t kMost = 512, kSequences = 16;

Model encoder() {
  const Json file = json_of(R"({"vocab": 64, "d_model": 128, "blocks": [{"repeat": 2, "mixer": "softmax"}]})");
  return Model(read_model_spec(file, "encoder"), Rng(1));
}

std::vector<int64_t> ragged() {  // 32 to 512 tokens, about half of the room filled
  Rng rng(2);
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < kSequences; ++i) lengths.push_back(i ? 32 + rng.below(kMost - 31) : kMost);
  return lengths;
}

// Sequence i in rows [begin, begin + length); with `room` each begins at a multiple of it and what is left is padding,
// in segments of its own when `masked`.
struct Layout {
  std::vector<Segment> segments;
  std::vector<int64_t> begins;
  int64_t rows = 0;

  Layout(const std::vector<int64_t>& lengths, int64_t room = 0, bool masked = false) {
    for (const int64_t length : lengths) {
      const int64_t rest = room ? room - length : 0;
      begins.push_back(rows);
      segments.push_back({.begin = rows, .length = masked ? length : length + rest});
      if (masked && rest) segments.push_back({.begin = rows + length, .length = rest});
      rows += length + rest;
    }
  }
};

Tensor run(Model& model, const Layout& layout, const std::vector<int64_t>& lengths) {
  NoGrad off;
  const Context context;
  std::vector<int32_t> tokens(static_cast<size_t>(layout.rows), 0);
  for (size_t i = 0; i < lengths.size(); ++i)
    for (int64_t t = 0; t < lengths[i]; ++t)
      tokens[static_cast<size_t>(layout.begins[i] + t)] =
          static_cast<int32_t>((7 * t + 13 * static_cast<int64_t>(i)) % 63 + 1);
  return model.hidden(tokens, {layout.segments, &context, Pattern::bidirectional}).value();
}

TEST(SystemsP022, PackedIsPadded) {
  Model model = encoder();
  const auto lengths = ragged();
  const Layout packed(lengths), padded(lengths, kMost, true), roomier(lengths, 2 * kMost, true);
  const Tensor y = run(model, packed, lengths);
  for (const Layout* other : {&padded, &roomier}) {
    const Tensor z = run(model, *other, lengths);
    for (size_t i = 0; i < lengths.size(); ++i)
      EXPECT_EQ(std::memcmp(y.slice(packed.begins[i], lengths[i]).raw(), z.slice(other->begins[i], lengths[i]).raw(),
                            static_cast<size_t>(lengths[i] * y.row_size()) * sizeof(float)),
                0)
          << "sequence " << i;
  }
}

// Sequences of one length are the same batch either way.
TEST(SpeedP022, PackedIsFaster) {
  Model model = encoder();
  const auto lengths = ragged();
  const Layout packed(lengths), padded(lengths, kMost);
  double fast = 1e30, slow = 1e30;
  for (int round = 0; round < 4; ++round) {
    fast = std::min(fast, seconds_of(1, [&] { run(model, packed, lengths); }));
    slow = std::min(slow, seconds_of(1, [&] { run(model, padded, lengths); }));
  }
  EXPECT_GE(slow / fast, 1.6) << slow << " s padded, " << fast << " s packed, filled "
                              << static_cast<double>(packed.rows) / static_cast<double>(padded.rows);
}

TEST(SystemsP022, MemoryFollowsTheRowsAlone) {
  Model model = encoder();
  const auto peak = [&](const std::vector<int64_t>& lengths) {
    const Layout packed(lengths);
    run(model, packed, lengths);
    reset_memory_peak();
    const int64_t base = memory_counters().live;
    run(model, packed, lengths);
    return static_cast<double>(memory_counters().peak - base);
  };
  std::vector<int64_t> uneven(kSequences, 1);
  uneven[3] = 2048 - (kSequences - 1);
  EXPECT_LE(peak(uneven), 1.1 * peak(std::vector<int64_t>(kSequences, 2048 / kSequences)));
}

}  // namespace sennit::systems_p022_test
