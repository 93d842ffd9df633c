// Every registered block under the laws of mixers, and blocks that break them.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "laws/block_laws.h"
#include "ops/arithmetic.h"

namespace sennit::laws::blocks_test {

enum class Fault { none, no_residual, channel_reads_input, keeps_a_row, half_cost };

// A mixer between a norm and a sum, with one mistake.
struct Plain : Block {
  Plain(const Dims& d, Rng rng, Fault f)
      : fault(f),
        mixer(mixers::registry().make(*d.mixer, {.d_model = d.d_model}, rng, d.where)),
        norm(norms::registry().make(*d.norm, {d.d_model}, rng, d.where)) {}
  Var forward(const Var& x, const Batch& batch) override {
    const Var y = mixer->forward(norm->forward(x), batch);
    if (fault == Fault::no_residual) return y;
    if (fault == Fault::channel_reads_input) return add(y, norm->forward(x));
    if (fault == Fault::keeps_a_row && x.rows() > 0) {
      Tensor shifted = x.value().clone();
      if (kept)
        for (int64_t j = 0; j < x.columns(); ++j) shifted.data()[j] += 1e-3f * kept.data()[j];
      kept = x.value().slice(0, 1).clone();
      return add(y, Var(shifted));
    }
    return add(x, y);
  }
  std::vector<StateSpec> state_specs() const override { return {mixer->state_spec()}; }
  int64_t flops(int64_t n) const override { return mixer->flops(n) / (fault == Fault::half_cost ? 2 : 1); }
  std::vector<Mixer*> mixers() override { return {mixer.get()}; }
  void visit(const ParameterVisitor& v) override {
    v("mixer_norm", *norm);
    v("mixer", *mixer);
  }
  Fault fault;
  std::unique_ptr<Mixer> mixer;
  std::unique_ptr<Norm> norm;
  Tensor kept;
};

MixerCase plain(Fault fault) {
  return block_case(
      "plain", "gla", "none", [fault](const Block::Dims& d, Rng rng) { return std::make_unique<Plain>(d, rng, fault); },
      [](const BlockParts& p, const naive::Matrix& x) {
        naive::Matrix y = p.mixer(p.mixer_norm(x));
        for (size_t i = 0; i < y.a.size(); ++i) y.a[i] += x.a[i];
        return y;
      });
}

TEST(BlockLaws, Hold) {
  for (const MixerCase& c : registered_blocks())
    for (const MixerLaw& law : mixer_laws()) EXPECT_EQ(law.broken_by(c), "") << c.name << " breaks " << law.name;
}

TEST(BlockLaws, AreBrokenByMistakes) {
  const std::pair<Fault, std::string> mistakes[] = {{Fault::no_residual, "ForwardIsNaive"},
                                                    {Fault::channel_reads_input, "ForwardIsNaive"},
                                                    {Fault::keeps_a_row, "PackedIsAlone"},
                                                    {Fault::half_cost, "CostsAsDeclared"}};
  for (const auto& [fault, name] : mistakes)
    for (const MixerLaw& law : mixer_laws()) {
      if (law.name != name) continue;
      EXPECT_EQ(law.broken_by(plain(Fault::none)), "");
      EXPECT_NE(law.broken_by(plain(fault)), "") << name << " holds for mistake " << static_cast<int>(fault);
    }
}

}  // namespace sennit::laws::blocks_test
