#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "autograd/var.h"

namespace sennit {

class WeightForm;

// A learned tensor. `version` rises with every change of the value: whoever keeps something derived from it (a packed
// copy) holds it against that.
struct Parameter {
  Var var;
  uint64_t version = 0;
  bool decays = true;  // whether weight decay applies
  // A matrix that only multiplies rows or is looked up by rows may be kept quantized instead: it has no value then, and
  // visitors pass it by.
  bool quantizable = false;
  // Whether it learns by gradients. What does not is moved by its module alone, in a forward pass of training that is
  // recorded, and no gradient reaches it: a mean that runs along.
  bool learned = true;
  std::shared_ptr<const WeightForm> quantized = nullptr;

  void quantize(std::shared_ptr<const WeightForm> matrix);  // in place of the value
  void init(Tensor value) {
    var = Var::leaf(std::move(value));
    ++version;
  }
  const Tensor& value() const { return var.value(); }
  operator const Var&() const { return var; }
};

class Module;

// Walks the parameters of a module under dotted names: "blocks.0.mixer.q.weight".
class ParameterVisitor {
 public:
  using Action = std::function<void(const std::string& name, Parameter&)>;
  explicit ParameterVisitor(const Action& action, std::string prefix = {}) : action_(action), prefix_(std::move(prefix)) {}
  void operator()(std::string_view name, Parameter& p) const;  // skips a parameter that was never initialised
  void operator()(std::string_view name, Module& m) const;

 private:
  const Action& action_;
  std::string prefix_;
};

class Module {
 public:
  virtual ~Module() = default;
  virtual void visit(const ParameterVisitor& v) = 0;

  void parameters(const ParameterVisitor::Action& action) { visit(ParameterVisitor(action)); }
  int64_t parameter_count();
};

}  // namespace sennit
