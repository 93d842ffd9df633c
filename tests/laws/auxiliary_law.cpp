#include "laws/auxiliary_law.h"

#include <algorithm>

#include "laws/differences.h"
#include "laws/harness.h"
#include "ops/arithmetic.h"

namespace sennit::laws {
namespace {

bool flowed(const Var& v) {
  const Tensor& g = v.grad();
  return g && std::any_of(g.span().begin(), g.span().end(), [](float x) { return x != 0; });
}

std::string check(Mixer& mixer, const Tensor& rows, Rng rng) {
  Choices choices;
  mixer.choices = &choices;
  const Var x = Var::leaf(rows);
  std::vector<Var> losses;
  const Context context{.training = true, .losses = &losses};
  const Segment whole[] = {{0, rows.rows(), 0, nullptr}};
  mixer.parameters([](const std::string&, Parameter& p) { p.var.clear_grad(); });
  mixer.forward(x, {whole, &context});

  naive::Weights w = weights_of(mixer);
  const naive::Matrix definition_rows = to_matrix(rows);
  const auto defined = [&] {
    double sum = 0;
    NaiveRun run{.w = w, .x = definition_rows};
    run.auxiliary = &sum;
    mixer.naive(run);
    return sum;
  };
  Var total(Tensor::full({1}, 0));
  for (const Var& loss : losses) total = add(total, loss);
  const double got = total.value().data()[0], want = defined();
  if (!(std::fabs(got - want) <= 1e-4 * (1 + std::fabs(want))))
    return fmt::format("auxiliary loss {}, {} by the definition", got, want);
  if (total.needs_grad()) backward(total);

  std::string broken = flowed(x) ? "an auxiliary loss reaches the input" : "";
  mixer.parameters([&](const std::string& name, Parameter& p) {
    if (!broken.empty()) return;
    if (!mixer.taught(name))
      broken = flowed(p.var) ? "an auxiliary loss reaches " + name : "";
    else if (!p.var.grad())
      broken = "no auxiliary loss reaches " + name;
    else
      broken = compare_gradient(name, p.var.grad(), w[name], defined, rng.fork(name));
  });
  return broken;
}

}  // namespace

std::string auxiliary_losses(const MixerCase& c, Pattern) {
  HostileMemory hostile;
  for (const int64_t n : {9, 40, 150}) {
    const Rng rng = Rng(67).fork(c.name).fork(static_cast<uint64_t>(n));
    auto mixer = c.make(rng.fork("init"));
    shake(*mixer, rng.fork("shake"), 2);
    const std::string broken = check(*mixer, random_rows(n, c.d_model, rng.fork("x")), rng);
    if (!broken.empty()) return fmt::format("{} tokens: {}", n, broken);
  }
  return "";
}

}  // namespace sennit::laws
