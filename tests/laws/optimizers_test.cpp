// Every registered optimizer under the laws, and ones that break them.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "laws/optimizer_laws.h"

namespace sennit::laws::optimizers_test {

enum class Fault { none, first_moment_lost, decays_everything, touches_all, stale_version, late_correction };

// AdamW once more, number by number, with one mistake.
struct Slow : Optimizer {
  explicit Slow(Fault f) : fault(f) {}
  struct Moments {
    Tensor m, v;
  };
  Moments& of(const NamedParameter& p) {
    Moments& s = state[p.name];
    if (!s.m) s = {Tensor::zeros(p.parameter->value().shape()), Tensor::zeros(p.parameter->value().shape())};
    return s;
  }
  void step(std::span<const NamedParameter> parameters, const OptimizerStep& s) override {
    const double t = static_cast<double>(s.step + (fault == Fault::late_correction));
    for (const NamedParameter& p : parameters) {
      const Tensor& g = p.parameter->var.grad();
      if (!g && fault != Fault::touches_all) continue;
      Moments& k = of(p);
      for (int64_t i = 0; i < k.m.elements(); ++i) {
        float &m = k.m.data()[i], &v = k.v.data()[i], &x = p.parameter->var.value().data()[i];
        const double d = g ? s.gradient_scale * g.data()[i] : 0;
        m = static_cast<float>(0.9 * m + 0.1 * d);
        v = static_cast<float>(0.95 * v + 0.05 * d * d);
        const double decay = p.parameter->decays || fault == Fault::decays_everything ? 0.1 : 0;
        x -= static_cast<float>(
            s.rate * (m / (1 - std::pow(0.9, t)) / (std::sqrt(v / (1 - std::pow(0.95, t))) + 1e-8) + decay * x));
      }
      if (fault != Fault::stale_version) ++p.parameter->version;
    }
  }
  void visit_state(std::span<const NamedParameter> parameters,
                   const std::function<void(const std::string&, Tensor&)>& visit) override {
    for (const NamedParameter& p : parameters) {
      if (fault != Fault::first_moment_lost) visit(p.name + ".m", of(p).m);
      visit(p.name + ".v", of(p).v);
    }
  }
  Fault fault;
  std::map<std::string, Moments> state;
};

OptimizerCase slow(Fault fault) {
  return {"adamw", [fault] { return std::make_unique<Slow>(fault); }};
}

TEST(OptimizerLaws, Hold) {
  for (const OptimizerCase& c : registered_optimizers())
    for (const OptimizerLaw& law : optimizer_laws()) EXPECT_EQ(law.check(c), "") << c.name << " breaks " << law.name;
}

TEST(OptimizerLaws, HoldWithoutAMistake) {
  for (const OptimizerLaw& law : optimizer_laws()) EXPECT_EQ(law.check(slow(Fault::none)), "") << law.name;
}

TEST(OptimizerLaws, AreBrokenByMistakes) {
  const std::pair<Fault, std::string> mistakes[] = {{Fault::first_moment_lost, "StateContinues"},
                                                    {Fault::decays_everything, "EqualsItsRule"},
                                                    {Fault::touches_all, "WithoutGradientUntouched"},
                                                    {Fault::stale_version, "WithoutGradientUntouched"},
                                                    {Fault::late_correction, "EqualsItsRule"}};
  for (const auto& [fault, name] : mistakes)
    for (const OptimizerLaw& law : optimizer_laws()) {
      if (law.name == name) {
        EXPECT_NE(law.check(slow(fault)), "") << name << " holds for mistake " << static_cast<int>(fault);
      }
    }
}

}  // namespace sennit::laws::optimizers_test
