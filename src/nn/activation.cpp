#include "nn/activation.h"

#include "base/error.h"
#include "ops/arithmetic.h"
#include "ops/maps.h"

namespace sennit {
namespace {

struct Row {
  const char* name;
  Var (*apply)(const Var&);
};
// elu is the positive feature map 1 + elu(x) of linear attention (Katharopoulos et al., arXiv:2006.16236): e^min(x, 0) + max(x, 0).
Var positive_elu(const Var& x) { return add(relu(x), exp(scale(relu(scale(x, -1)), -1))); }
Var same(const Var& x) { return x; }

const Row kRows[] = {{"silu", silu}, {"gelu", gelu},       {"gelu_erf", gelu_erf}, {"relu", relu}, {"relu2", relu2},
                     {"tanh", tanh}, {"sigmoid", sigmoid}, {"elu", positive_elu},  {"none", same}};

}  // namespace

const std::vector<std::string>& activation_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Row& r : kRows) all.push_back(r.name);
    return all;
  }();
  return names;
}

Var activation(const std::string& name, const Var& x) {
  for (const Row& r : kRows)
    if (name == r.name) return r.apply(x);
  fail({"activation", "one of the registered names", name, ""});
}

}  // namespace sennit
