// On Layer Normalization in the Transformer Architecture (Xiong et al., arXiv:2002.04745), the pre-norm block:
//   x = x + mixer(norm(x));  x = x + channel(norm(x))
#include <nlohmann/json.hpp>

#include "blocks/block.h"
#include "ops/arithmetic.h"

namespace sennit::blocks {
namespace {

struct PreNorm : Block {
  struct Options {
    Fields fields() { return {}; }
  };
  static Info info() { return {"Pre-norm block", "arXiv:2002.04745", "x += mixer(norm(x)); x += channel(norm(x))"}; }

  PreNorm(const Dims& d, const Options&, Rng rng)
      : mixer(mixers::registry().make(*d.mixer, {.d_model = d.d_model, .depth = d.depth, .out_scale = d.out_scale}, rng.fork("mixer"), d.where)),
        mixer_norm(norms::registry().make(*d.norm, {d.d_model}, rng, d.where)) {
    if (detail::part_name(*d.channel, "channel", d.where) == "none") return;
    channel = channels::registry().make(*d.channel, {.d_model = d.d_model, .out_scale = d.out_scale}, rng.fork("channel"), d.where);
    channel_norm = norms::registry().make(*d.norm, {d.d_model}, rng, d.where);
  }

  Var forward(const Var& x, const Batch& batch) override {
    const Var mixed = add(x, mixer->forward(mixer_norm->forward(x), batch));
    return channel ? add(mixed, channel->forward(channel_norm->forward(mixed), *batch.context)) : mixed;
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

void register_prenorm(Registry<Block>& r) { r.add<PreNorm>("prenorm"); }

}  // namespace sennit::blocks
