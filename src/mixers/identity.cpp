// No mixing at all, y = x: what MetaFormer (Yu et al., arXiv:2111.11418, table 5) puts in the place of a token mixer to
// see what the rest of a block does alone.
#include "mixers/mixer.h"

namespace sennit::mixers {
namespace {

struct Identity : Mixer {
  struct Options {
    Fields fields() { return {}; }
  };
  static Info info() {
    return {.title = "Identity",
            .paper = "arXiv:2111.11418",
            .equation = "y_t = x_t",
            .cost = "nothing",
            .patterns = {Pattern::causal, Pattern::bidirectional}};
  }
  Identity(const Dims&, const Options&, Rng) {}

  void visit(const ParameterVisitor&) override {}
  StateSpec state_spec() const override { return {}; }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Identity>("identity", batch);
    return x;
  }
  naive::Matrix naive(NaiveRun& run) const override { return run.x; }
  int64_t flops(int64_t) const override { return 0; }
  std::optional<ImplicitMatrix> implicit(const Var& x, const Context&) override {
    ImplicitMatrix m{Tensor::zeros({1, x.rows(), x.rows()}), x.value()};
    for (int64_t t = 0; t < x.rows(); ++t) m.weights.data()[t * x.rows() + t] = 1;
    return m;
  }
};

}  // namespace

void register_identity(Registry<Mixer>& r) {
  r.add<Identity>("identity");
}

}  // namespace sennit::mixers
