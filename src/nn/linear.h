#pragma once
#include "base/rng.h"
#include "nn/module.h"
#include "products/product.h"
#include "sequence/batch.h"

namespace sennit {

// y = x W^T + b: x [N, in], W [out, in], b [out]. Outside recording and training, where it
// changes with every step, the weight is packed once, at the first call. A quantized weight (products/weight_form.h) is
// used as it is; no gradient flows through it.
class Linear : public Module {
 public:
  struct Init {
    bool bias = false;
    double deviation = -1;  // of a normal draw; negative: scale / sqrt(in)
    double scale = 1;
  };
  Linear() = default;
  Linear(int64_t in, int64_t out, Rng rng, Init init);
  Linear(int64_t in, int64_t out, Rng rng) : Linear(in, out, rng, Init()) {}

  Var operator()(const Var& x, const Context& context);
  void visit(const ParameterVisitor& v) override;
  int64_t in() const { return in_; }
  int64_t out() const { return out_; }

  Parameter weight, bias;

 private:
  int64_t in_ = 0, out_ = 0;
  PackedMatrix packed_;
  uint64_t packed_version_ = 0;
};

}  // namespace sennit
