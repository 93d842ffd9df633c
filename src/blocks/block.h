#pragma once
#include "base/registry.h"
#include "channels/channel.h"
#include "mixers/mixer.h"
#include "norms/norm.h"

namespace sennit {

struct BlockInfo {
  std::string title, paper, equation;
};


// How a token mixer and a channel mixer meet: [N, d] -> [N, d].
class Block : public Module {
 public:
  using Info = BlockInfo;
  struct Dims {
    int64_t d_model;
    int64_t depth = 0;     // how many blocks stand below
    double out_scale = 1;  // see Mixer::Dims
    // Each a name or an object with "name" and options; a channel of "none" leaves it out.
    const Json *mixer, *channel, *norm;
    std::string where;  // for errors: "model.json: blocks[2]"
    Mixer::Shared* shared = nullptr;
  };
  // `batch.slot` is the block's first; it uses state_specs().size() of them.
  virtual Var forward(const Var& x, const Batch& batch) = 0;
  virtual std::vector<StateSpec> state_specs() const = 0;
  virtual int64_t flops(int64_t n) const = 0;  // as Mixer::flops, with the channel mixer
  virtual std::vector<Mixer*> mixers() = 0;
};

namespace blocks {
Registry<Block>& registry();
}

}  // namespace sennit
