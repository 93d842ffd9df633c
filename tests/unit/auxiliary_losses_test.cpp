// Auxiliary losses on their way from a mixer to the optimizer.
#include <gtest/gtest.h>

#include "support/models.h"
#include "train/losses.h"

namespace sennit::auxiliary_losses_test {

Model gated() {
  return Model(read_model_spec(json_of(R"({"vocab": 60, "d_model": 32, "blocks": [
    {"repeat": 2, "mixer": {"name": "seer_attention", "block": 8, "top": 3}}, {"mixer": "softmax"}]})"),
                               "test"),
               Rng(1), "test");
}

struct Step {
  double auxiliary;
  size_t losses;
  std::vector<float> gradients;
};
Step step(bool checkpointed, bool collect) {
  Model model = gated();
  const auto tokens = some_tokens(100);
  const Segment segments[] = {{0, 60, 0, nullptr}, {60, 40, 0, nullptr}};
  std::vector<Var> losses;
  const Context context{.training = true, .losses = collect ? &losses : nullptr};
  const Var loss = model.loss(model.hidden(tokens, {segments, &context}, checkpointed), tokens, context);
  const size_t count = losses.size();
  const double auxiliary = train::backward_all(loss, losses, 1);
  std::vector<float> gradients;
  model.parameters([&](const std::string& name, Parameter& p) {
    if (const Tensor& g = p.var.grad()) gradients.insert(gradients.end(), g.span().begin(), g.span().end());
    EXPECT_EQ(static_cast<bool>(p.var.grad()), collect || name.find("gate_") == std::string::npos) << name;
  });
  return {auxiliary, count, gradients};
}

TEST(AuxiliaryLosses, CheckpointingChangesNothing) {
  const Step stored = step(false, true), again = step(true, true);
  EXPECT_EQ(stored.losses, 4u);  // of two blocks and two sequences
  EXPECT_EQ(again.losses, 4u);
  EXPECT_GT(stored.auxiliary, 0);
  EXPECT_EQ(stored.auxiliary, again.auxiliary);
  EXPECT_LE(relative_distance(again.gradients, stored.gradients), 1e-6);
}

TEST(AuxiliaryLosses, NobodyCollectsNobodyComputes) {
  const Step quiet = step(false, false);
  EXPECT_EQ(quiet.losses, 0u);
  EXPECT_EQ(quiet.auxiliary, 0);
}

}  // namespace sennit::auxiliary_losses_test
