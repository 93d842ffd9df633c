#include "blocks/pair.h"

#include <nlohmann/json.hpp>

namespace sennit::blocks {

Pair::Pair(const Dims& d, Rng rng)
    : mixer(mixers::registry().make(
          *d.mixer, {.d_model = d.d_model, .depth = d.depth, .out_scale = d.out_scale, .shared = d.shared},
          rng.fork("mixer"), d.where)),
      mixer_norm(norms::registry().make(*d.norm, {d.d_model}, rng, d.where)) {
  if (detail::part_name(*d.channel, "channel", d.where) == "none") return;
  channel = channels::registry().make(*d.channel, {.d_model = d.d_model, .out_scale = d.out_scale}, rng.fork("channel"),
                                      d.where);
  channel_norm = norms::registry().make(*d.norm, {d.d_model}, rng, d.where);
}

void Pair::visit(const ParameterVisitor& v) {
  v("mixer_norm", *mixer_norm);
  v("mixer", *mixer);
  if (!channel) return;
  v("channel_norm", *channel_norm);
  v("channel", *channel);
}

}  // namespace sennit::blocks
