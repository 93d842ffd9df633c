#include "laws/optimizer_laws.h"

#include <nlohmann/json.hpp>

#include "base/parallel.h"
#include "laws/harness.h"

namespace sennit::laws {
namespace {

// Three parameters: a matrix that decays, a vector that does not, and one that never gets a gradient.
struct Problem {
  Parameter matrix, vector, still;
  std::vector<NamedParameter> all = {{"matrix", &matrix}, {"vector", &vector}, {"still", &still}};

  explicit Problem(int64_t rows = 37) {
    matrix.init(random_rows(rows, 19, Rng(1)));
    vector.init(random_rows(1, 23, Rng(2)).reshape({23}));
    still.init(random_rows(2, 3, Rng(3)));
    vector.decays = false;
  }
  static Tensor gradient(const Parameter& p, int64_t step, uint64_t which) {
    return random_rows(1, p.value().elements(), Rng(4).fork(which).fork(static_cast<uint64_t>(step)), 0.1)
        .reshape(p.value().shape());
  }
  void step(Optimizer& o, int64_t i, double scale = 0.5) {
    matrix.var.grad() = gradient(matrix, i, 0);
    vector.var.grad() = gradient(vector, i, 1);
    o.step(all, {.step = i, .rate = rate(i), .gradient_scale = scale});
  }
  static double rate(int64_t i) { return 0.01 / (1 + 0.1 * static_cast<double>(i)); }
};

// The rules in double, a parameter's number by itself. A new optimizer adds its own here.
using Rule =
    std::function<double(double p, double g, bool decays, int64_t step, double rate, std::vector<double>& kept)>;
std::map<std::string, Rule> rules() {
  return {{"adamw", [](double p, double g, bool decays, int64_t step, double rate, std::vector<double>& kept) {
             kept.resize(2);
             kept[0] = 0.9 * kept[0] + 0.1 * g;
             kept[1] = 0.95 * kept[1] + 0.05 * g * g;
             const double m = kept[0] / (1 - std::pow(0.9, static_cast<double>(step))),
                          v = kept[1] / (1 - std::pow(0.95, static_cast<double>(step)));
             return p - rate * (m / (std::sqrt(v) + 1e-8) + (decays ? 0.1 * p : 0));
           }}};
}

std::string equals_its_rule(const OptimizerCase& c) {
  const auto all = rules();
  const auto rule = all.find(c.name);
  if (rule == all.end()) return "no rule in double to hold it against";
  auto optimizer = c.make();
  Problem problem;
  for (const uint64_t which : {0, 1}) {
    const Problem fresh;
    const Parameter& p = *problem.all[which].parameter;
    const auto start = fresh.all[which].parameter->value().span();
    std::vector<double> values(start.begin(), start.end());
    std::vector<std::vector<double>> kept(values.size());
    for (int64_t i = 1; i <= 50; ++i) {
      const Tensor g = Problem::gradient(p, i, which);
      for (size_t j = 0; j < values.size(); ++j)
        values[j] = rule->second(values[j], 0.5 * g.data()[j], p.decays, i, Problem::rate(i), kept[j]);
    }
    if (which == 0)
      for (int64_t i = 1; i <= 50; ++i) problem.step(*optimizer, i);
    naive::Matrix expected(1, std::ssize(values));
    expected.a = values;
    const Distance d = distance(p.value(), expected);
    if (d.relative > 1e-5) return fmt::format("{} after 50 steps: {:.3g} off", problem.all[which].name, d.relative);
  }
  return "";
}

std::string state_continues(const OptimizerCase& c) {
  auto whole = c.make(), first = c.make(), second = c.make();
  Problem a, b, after;
  for (int64_t i = 1; i <= 8; ++i) a.step(*whole, i);
  for (int64_t i = 1; i <= 5; ++i) b.step(*first, i);
  std::map<std::string, Tensor> saved;
  std::string broken;
  first->visit_state(b.all, [&](const std::string& name, Tensor& t) {
    if (!saved.emplace(name, t.clone()).second) broken = "two tensors named " + name;
  });
  for (size_t i = 0; i < b.all.size(); ++i) after.all[i].parameter->var.value().copy_from(b.all[i].parameter->value());
  second->visit_state(after.all, [&](const std::string& name, Tensor& t) {
    if (!saved.count(name))
      broken = "no saved tensor " + name;
    else
      t.copy_from(saved.at(name));
  });
  if (!broken.empty()) return broken;
  for (int64_t i = 6; i <= 8; ++i) after.step(*second, i);
  for (size_t i = 0; i < a.all.size(); ++i) {
    const std::string differ = bits_differ(a.all[i].parameter->value(), after.all[i].parameter->value());
    if (!differ.empty()) return "continued from saved state, " + a.all[i].name + ": " + differ;
  }
  return "";
}

std::string without_gradient_untouched(const OptimizerCase& c) {
  auto optimizer = c.make();
  Problem problem;
  const Tensor before = problem.still.value().clone();
  const uint64_t version = problem.still.version, moved = problem.matrix.version;
  for (int64_t i = 1; i <= 3; ++i) problem.step(*optimizer, i);
  if (!same_bits(before, problem.still.value()) || problem.still.version != version)
    return "a parameter without a gradient changed";
  return problem.matrix.version > moved ? "" : "a changed parameter has its old version";
}

std::string converges(const OptimizerCase& c) {
  auto optimizer = c.make();
  Parameter p;
  p.init(random_rows(4, 8, Rng(9)));
  p.decays = false;
  const Tensor goal = random_rows(4, 8, Rng(10));
  const NamedParameter all[] = {{"p", &p}};
  double loss = 0;
  for (int64_t i = 1; i <= 400; ++i) {
    Tensor g(p.value().shape());
    loss = 0;
    for (int64_t j = 0; j < g.elements(); ++j) {
      const float off = p.value().data()[j] - goal.data()[j], weight = j % 2 ? 1.0f : 30.0f;
      g.data()[j] = weight * off;
      loss += 0.5 * weight * off * off;
    }
    p.var.grad() = g;
    optimizer->step(all, {.step = i, .rate = 0.05 * (1 - static_cast<double>(i) / 400), .gradient_scale = 1});
  }
  return loss < 1e-3 ? "" : fmt::format("a quadratic stands at {} after 400 steps", loss);
}

std::string threads_change_nothing(const OptimizerCase& c) {
  const int before = thread_count();
  Tensor reference;
  std::string broken;
  for (const int threads : {1, 2, 3, 8}) {
    set_thread_count(threads);
    auto optimizer = c.make();
    Problem problem(5000);
    for (int64_t i = 1; i <= 3; ++i) problem.step(*optimizer, i);
    if (!reference) reference = problem.matrix.value();
    if (broken.empty() && !same_bits(reference, problem.matrix.value()))
      broken = fmt::format("{} threads: {}", threads, bits_differ(reference, problem.matrix.value()));
  }
  set_thread_count(before);
  return broken;
}

}  // namespace

const std::vector<OptimizerLaw>& optimizer_laws() {
  static const std::vector<OptimizerLaw> laws = {{"EqualsItsRule", equals_its_rule},
                                                 {"StateContinues", state_continues},
                                                 {"WithoutGradientUntouched", without_gradient_untouched},
                                                 {"Converges", converges},
                                                 {"ThreadsChangeNothing", threads_change_nothing}};
  return laws;
}

std::vector<OptimizerCase> registered_optimizers() {
  std::vector<OptimizerCase> cases;
  for (const auto& entry : optimizers::registry().entries())
    cases.push_back(
        {entry.name, [name = entry.name] { return optimizers::registry().make(Json(name), {}, Rng(), "laws"); }});
  return cases;
}

}  // namespace sennit::laws
