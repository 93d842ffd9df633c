#include "nn/module.h"

#include "base/error.h"
#include "products/weight_form.h"

namespace sennit {
namespace {

std::string join(const std::string& prefix, std::string_view name) {
  if (prefix.empty()) return std::string(name);
  return name.empty() ? prefix : prefix + "." + std::string(name);
}

}  // namespace

void Parameter::quantize(std::shared_ptr<const WeightForm> matrix) {
  SENNIT_CHECK(quantizable && value().rows() == matrix->out() && value().row_size() == matrix->in(), "{} as [{}, {}]", value().shape().str(),
               matrix->out(), matrix->in());
  quantized = std::move(matrix);
  var = Var();
  ++version;
}

void ParameterVisitor::operator()(std::string_view name, Parameter& p) const {
  if (p.var.defined()) action_(join(prefix_, name), p);
}

void ParameterVisitor::operator()(std::string_view name, Module& m) const {
  m.visit(ParameterVisitor(action_, join(prefix_, name)));
}

int64_t Module::parameter_count() {
  int64_t n = 0;
  parameters([&](const std::string&, Parameter& p) { n += p.value().elements(); });
  return n;
}

}  // namespace sennit
