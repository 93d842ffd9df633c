#pragma once
#include "blocks/block.h"

namespace sennit::blocks {

// What blocks of one mixer and one channel mixer share: their parts, a norm for each; only where the norms stand
// differs.
struct Pair : Block {
  struct Options {
    Fields fields() { return {}; }
  };
  Pair(const Dims& d, Rng rng);

  std::vector<StateSpec> state_specs() const override { return {mixer->state_spec()}; }
  int64_t flops(int64_t n) const override { return mixer->flops(n) + (channel ? channel->flops(n) : 0); }
  std::vector<Mixer*> mixers() override { return {mixer.get()}; }
  void visit(const ParameterVisitor& v) override;

  std::unique_ptr<Mixer> mixer;
  std::unique_ptr<Norm> mixer_norm, channel_norm;
  std::unique_ptr<Channel> channel;  // null where there is none, and its norm too
};

}  // namespace sennit::blocks
