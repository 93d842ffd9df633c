// No position at all (NoPE; Kazemnejad et al., arXiv:2305.19466): a causal stack can infer order by itself.
#include "positions/position.h"

namespace sennit::positions {
namespace {

struct None : Position {
  struct Options {
    Fields fields() { return {}; }
  };
  static Info info() { return {"No position", "arXiv:2305.19466"}; }
  None(const Dims&, const Options&, Rng) {}
};

}  // namespace

void register_none(Registry<Position>& r) { r.add<None>("none"); }

}  // namespace sennit::positions
