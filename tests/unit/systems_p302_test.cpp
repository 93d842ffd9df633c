// Grouped queries with free head counts (Chen et al., "Cost-Optimal Grouped-Query Attention", arXiv:2503.09579).
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "mixers/mixer.h"

namespace sennit::systems_p302_test {

std::unique_ptr<Mixer> attention_of(int64_t kv_heads) {
  return mixers::registry().make({{"name", "softmax"}, {"heads", 4}, {"kv_heads", kv_heads}, {"head_dim", 24}},
                                 {.d_model = 32}, Rng(1), "test");
}

// Fewer key heads are all key heads with equal weights.
TEST(SystemsP302, SharedKeysAreEqualKeys) {
  for (const int64_t shared : {1, 2, 4}) {
    auto few = attention_of(shared), all = attention_of(4);
    std::map<std::string, Tensor> weights;
    few->parameters([&](const std::string& name, Parameter& p) { weights[name] = p.value(); });
    all->parameters([&](const std::string& name, Parameter& p) {
      const Tensor& w = weights.at(name);
      Tensor spread(p.value().shape());
      const int64_t head = w.shape() == p.value().shape() ? w.elements() : w.elements() / shared;
      for (int64_t h = 0; h * head < spread.elements(); ++h)
        std::memcpy(spread.data() + h * head,
                    w.data() + (w.elements() == spread.elements() ? h : h * shared / 4) * head,
                    static_cast<size_t>(head) * sizeof(float));
      p.init(spread);
    });
    Tensor x({50, 32});
    Rng rng(2);
    for (float& v : x.span()) v = static_cast<float>(rng.normal());
    const Context context;
    const Segment whole[] = {{0, 50, 0, nullptr}};
    NoGrad off;
    const Tensor a = few->forward(Var(x), {whole, &context}).value(),
                 b = all->forward(Var(x), {whole, &context}).value();
    for (int64_t i = 0; i < a.elements(); ++i) ASSERT_NEAR(a.data()[i], b.data()[i], 1e-6) << shared << " at " << i;
    int64_t bytes = 0;
    for (const StateField& f : few->state_spec()) bytes += f.bytes(100);
    EXPECT_EQ(bytes, 2 * shared * 24 * 4 * 100);
  }
}

}  // namespace sennit::systems_p302_test
