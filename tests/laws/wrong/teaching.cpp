#include "laws/wrong/teaching.h"

#include "ops/arithmetic.h"

namespace sennit::laws {
namespace {

struct Pupil : Mixer {
  Pupil(int64_t d, Rng rng, Teaching t) : how(t), map(d, d, rng.fork("map")), pupil(d, d, rng.fork("pupil")) {}
  void visit(const ParameterVisitor& v) override {
    v("map", map);
    v("pupil", pupil);
  }
  StateSpec state_spec() const override { return {}; }
  int64_t flops(int64_t n) const override { return 2 * n * map.in() * map.out(); }
  bool taught(const std::string& name) const override { return name == "pupil.weight"; }

  Var forward(const Var& x, const Batch& batch) override {
    const Context& c = *batch.context;
    const Var y = map(x, c);
    if (!c.losses || how == Teaching::silent) return y;
    const bool leaks = how == Teaching::leaks;
    const Var off = subtract(pupil(leaks ? x : x.detach(), c), leaks ? y : y.detach()), loss = mean(multiply(off, off));
    c.losses->push_back(how == Teaching::halved ? add(scale(loss, 0.5f), scale(loss.detach(), 0.5f)) : loss);
    return y;
  }
  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix y = naive::linear(run.x, run.w, "map"), p = naive::linear(run.x, run.w, "pupil");
    for (size_t i = 0; run.auxiliary && i < y.a.size(); ++i)
      *run.auxiliary += (p.a[i] - y.a[i]) * (p.a[i] - y.a[i]) / static_cast<double>(y.a.size());
    return y;
  }

  Teaching how;
  Linear map, pupil;
};

}  // namespace

MixerCase teaching(Teaching how) {
  return {"teaching", [how](Rng rng) { return std::make_unique<Pupil>(32, rng, how); }, 32};
}

}  // namespace sennit::laws
