// What the papers on linear attention promise: TransNormer (P060) and the scaling study (P256).
#include <gtest/gtest.h>

#include "support/mixers.h"

namespace sennit::systems_linear_mixers_test {

// Chunked, stepwise and as the square of weights, for the scaling study's three linear mixers and for TransNormer's
// own.
void expect_three_forms(const Json& part) {
  auto mixer = make_mixer(part, 32);
  const Tensor x = normal_rows(150, 32, 14), whole = run_alone(*mixer, x);
  SequenceState state;
  EXPECT_LE(most_apart(run_stepwise(*mixer, x, state), whole), 1e-4);
  EXPECT_LE(most_apart(run_square(*mixer, x), whole), 1e-4);
}
const Json kTransNormer{{"name", "gla"}, {"decay", "fixed"}, {"feature", "silu"}};
TEST(SystemsP256, ChunksStepsAndTheSquareAgree) {
  expect_three_forms(kTransNormer);
  expect_three_forms("hgrn2");
  expect_three_forms({{"name", "gla"}, {"decay", "none"}, {"feature", "silu"}, {"rotary", true}});
}
TEST(SystemsP060, LinearAndQuadraticOrdersAgree) {
  expect_three_forms(kTransNormer);
}

}  // namespace sennit::systems_linear_mixers_test
