// Attention Is All You Need (Vaswani et al., arXiv:1706.03762), section 3.1, the post-norm block:
//   x = norm(x + mixer(x));  x = norm(x + channel(x))
#include "blocks/pair.h"
#include "ops/arithmetic.h"

namespace sennit::blocks {
namespace {

struct PostNorm : Pair {
  static Info info() {
    return {"Post-norm block", "arXiv:1706.03762", "x = norm(x + mixer(x)); x = norm(x + channel(x))"};
  }
  PostNorm(const Dims& d, const Options&, Rng rng) : Pair(d, rng) {}

  Var forward(const Var& x, const Batch& batch) override {
    const Var mixed = mixer_norm->forward(add(x, mixer->forward(x, batch)));
    return channel ? channel_norm->forward(add(mixed, channel->forward(mixed, *batch.context))) : mixed;
  }
};

}  // namespace

void register_postnorm(Registry<Block>& r) {
  r.add<PostNorm>("postnorm");
}

}  // namespace sennit::blocks
