// Attention Is All You Need (Vaswani et al., arXiv:1706.03762), section 3.1, the post-norm block:
//   x = norm(x + mixer(x));  x = norm(x + channel(x))
#include <nlohmann/json.hpp>

#include "blocks/block.h"
#include "ops/arithmetic.h"

namespace sennit::blocks {
namespace {

struct PostNorm : Block {
  struct Options {
    Fields fields() { return {}; }
  };
  static Info info() {
    return {"Post-norm block", "arXiv:1706.03762", "x = norm(x + mixer(x)); x = norm(x + channel(x))"};
  }

  PostNorm(const Dims& d, const Options&, Rng rng)
      : mixer(mixers::registry().make(*d.mixer, {.d_model = d.d_model, .depth = d.depth, .out_scale = d.out_scale},
                                      rng.fork("mixer"), d.where)),
        mixer_norm(norms::registry().make(*d.norm, {d.d_model}, rng, d.where)) {
    if (detail::part_name(*d.channel, "channel", d.where) == "none") return;
    channel = channels::registry().make(*d.channel, {.d_model = d.d_model, .out_scale = d.out_scale},
                                        rng.fork("channel"), d.where);
    channel_norm = norms::registry().make(*d.norm, {d.d_model}, rng, d.where);
  }

  Var forward(const Var& x, const Batch& batch) override {
    const Var mixed = mixer_norm->forward(add(x, mixer->forward(x, batch)));
    return channel ? channel_norm->forward(add(mixed, channel->forward(mixed, *batch.context))) : mixed;
  }
  std::vector<StateSpec> state_specs() const override { return {mixer->state_spec()}; }
  int64_t flops(int64_t n) const override { return mixer->flops(n) + (channel ? channel->flops(n) : 0); }
  std::vector<Mixer*> mixers() override { return {mixer.get()}; }

  void visit(const ParameterVisitor& v) override {
    v("mixer_norm", *mixer_norm);
    v("mixer", *mixer);
    if (!channel) return;
    v("channel_norm", *channel_norm);
    v("channel", *channel);
  }

  std::unique_ptr<Mixer> mixer;
  std::unique_ptr<Norm> mixer_norm, channel_norm;
  std::unique_ptr<Channel> channel;
};

}  // namespace

void register_postnorm(Registry<Block>& r) {
  r.add<PostNorm>("postnorm");
}

}  // namespace sennit::blocks
