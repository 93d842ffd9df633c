#include "laws/wrong/careless.h"

#include <nlohmann/json.hpp>

namespace sennit::laws {
namespace {

constexpr int64_t kBlock = 4, kTop = 3, kHeads = 4;

struct Careless : Mixer {
  Careless(int64_t d, Rng rng, Carelessness h) : how(h) {
    const Json part = {{"name", "moba"}, {"heads", kHeads}, {"block", kBlock}, {"top", kTop}};
    inner = mixers::registry().make(part, {.d_model = d}, rng, "careless");
  }
  void visit(const ParameterVisitor& v) override { inner->visit(v); }
  StateSpec state_spec() const override { return inner->state_spec(); }
  int64_t flops(int64_t n) const override { return inner->flops(n); }
  bool chooses() const override { return true; }
  naive::Matrix naive(NaiveRun& run) const override {
    inner->choices = choices;
    return inner->naive(run);
  }

  Var forward(const Var& x, const Batch& batch) override {
    Choices made;
    Choices& taken = choices ? *choices : made;
    for (size_t s = 0; how != Carelessness::none && s < batch.segments.size(); ++s)
      for (int64_t h = 0; h < kHeads; ++h)
        for (int64_t t = 0; t < batch.segments[s].length; ++t) {
          const int64_t place = batch.segments[s].position + t, own = place / kBlock;
          if (own < kTop) continue;  // all blocks are taken
          std::vector<int32_t> blocks;
          for (int32_t b = 0; b < kTop - (how == Carelessness::takes_fewer ? 2 : 1); ++b) blocks.push_back(b);
          blocks.push_back(static_cast<int32_t>(own));
          taken.blocks.try_emplace({static_cast<int64_t>(s), h, place}, blocks);
        }
    inner->choices = &taken;
    return inner->forward(x, batch);
  }

  Carelessness how;
  std::unique_ptr<Mixer> inner;
};

}  // namespace

MixerCase careless(Carelessness how) {
  return {"careless", [how](Rng rng) { return std::make_unique<Careless>(32, rng, how); }, 32};
}

}  // namespace sennit::laws
