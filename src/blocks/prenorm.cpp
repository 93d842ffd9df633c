// On Layer Normalization in the Transformer Architecture (Xiong et al., arXiv:2002.04745), the pre-norm block:
//   x = x + mixer(norm(x));  x = x + channel(norm(x))
#include "blocks/pair.h"
#include "ops/arithmetic.h"

namespace sennit::blocks {
namespace {

struct PreNorm : Pair {
  static Info info() { return {"Pre-norm block", "arXiv:2002.04745", "x += mixer(norm(x)); x += channel(norm(x))"}; }
  PreNorm(const Dims& d, const Options&, Rng rng) : Pair(d, rng) {}

  Var forward(const Var& x, const Batch& batch) override {
    const Var mixed = add(x, mixer->forward(mixer_norm->forward(x), batch));
    return channel ? add(mixed, channel->forward(channel_norm->forward(mixed), *batch.context)) : mixed;
  }
};

}  // namespace

void register_prenorm(Registry<Block>& r) {
  r.add<PreNorm>("prenorm");
}

}  // namespace sennit::blocks
