// Mamba (Gu & Dao, arXiv:2312.00752): decoding costs the same at any position, and the states of all tokens are never
// stored at once.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "decoding/generate.h"
#include "sequence/recurrences.h"
#include "support/timing.h"

namespace sennit::systems_p026_test {

Tensor draw(Shape shape, uint64_t seed, double scale = 1) {
  Tensor t(shape);
  Rng rng(seed);
  for (float& x : t.span()) x = static_cast<float>(scale * rng.normal());
  return t;
}

// The time of a token after `position` others.
double decode_seconds(const std::string& mixer, int64_t position) {
  NoGrad off;
  const Json file{{"vocab", 64}, {"d_model", 128}, {"blocks", {{{"mixer", mixer}, {"channel", "none"}}}}};
  Model model(read_model_spec(file, "test"), Rng(1));
  Session session(model, Context{});
  std::vector<int32_t> tokens(static_cast<size_t>(position), 3);
  session.feed(tokens);
  const int32_t next[] = {5};
  session.feed(next);
  return seconds_of(50, [&] { session.feed(next); });
}

TEST(SpeedP026, DecodingDoesNotSlowDown) {
  const double early = decode_seconds("mamba", 1024), late = decode_seconds("mamba", 16384);
  EXPECT_LE(late / early, 1.1) << early << " s early, " << late << " s late";
  const double attention = decode_seconds("softmax", 16384) / decode_seconds("softmax", 1024);
  EXPECT_GE(attention, 3);
}

TEST(SystemsP026, StatesOfAllTokensAreNeverStored) {
  NoGrad off;
  const int64_t n = 4096, channels = 64, states = 16;
  const Var x(draw({n, channels}, 1)), dt(Tensor::full({n, channels}, 0.05f)), b(draw({n, states}, 2)),
      c(draw({n, states}, 3));
  const Var a(Tensor::full({channels, states}, -1)), d(Tensor::full({channels}, 1));
  const Context context;
  const Segment whole[] = {{0, n, 0, nullptr}};
  const Batch batch{whole, &context};
  reset_memory_peak();
  const int64_t base = memory_counters().live;
  selective_scan({x, dt, a, b, c, d}, batch, 0);
  const int64_t output = n * channels * 4;
  EXPECT_LE(memory_counters().peak - base, output + output / 4);  // the states would be 16 times the output
}

}  // namespace sennit::systems_p026_test
