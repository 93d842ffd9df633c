#include "nn/init.h"

#include <utility>

namespace sennit {
namespace {

thread_local bool blank = false;

}  // namespace

BlankInit::BlankInit() : before_(std::exchange(blank, true)) {}
BlankInit::~BlankInit() { blank = before_; }

Tensor normal_init(Shape shape, double deviation, Rng rng) {
  Tensor t(shape);
  if (blank) return t;
  for (float& x : t.span()) x = static_cast<float>(deviation * rng.normal());
  return t;
}

Tensor uniform_init(Shape shape, double low, double high, Rng rng) {
  Tensor t(shape);
  if (blank) return t;
  for (float& x : t.span()) x = static_cast<float>(low + (high - low) * rng.uniform());
  return t;
}

}  // namespace sennit
