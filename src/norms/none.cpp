// No normalisation: rows as they are, such as after the last block of an encoder whose blocks end with a norm.
#include "norms/norm.h"

namespace sennit::norms {
namespace {

struct None : Norm {
  struct Options {
    Fields fields() { return {}; }
  };
  static Info info() { return {"No norm", ""}; }
  None(const Dims&, const Options&, Rng) {}
  Var forward(const Var& x) const override { return x; }
  naive::Matrix naive(const naive::Weights&, const naive::Matrix& x) const override { return x; }
  void visit(const ParameterVisitor&) override {}
};

}  // namespace

void register_none(Registry<Norm>& r) {
  r.add<None>("none");
}

}  // namespace sennit::norms
