#include "train/descent.h"

#include "train/gradient_norm.h"
#include "train/losses.h"

namespace sennit::train {

Descent::Descent(std::vector<NamedParameter> parameters, const Options& options, const Json& optimizer)
    : parameters_(std::move(parameters)),
      options_(options),
      optimizer_(optimizers::registry().make(optimizer, {}, Rng(), "optimizer")) {}

void Descent::step(const Var& loss, std::span<const Var> auxiliary, int64_t at) {
  backward_all(loss, auxiliary, 1);
  const double norm = gradient_norm(parameters_);
  const double scale = options_.clip > 0 && norm > options_.clip ? options_.clip / norm : 1;
  optimizer_->step(parameters_, {.step = at, .rate = rate_at(options_, at), .gradient_scale = scale});
  for (const auto& p : parameters_) p.parameter->var.clear_grad();
}

}  // namespace sennit::train
