#pragma once
#include <span>
#include <vector>

#include "measure/head_cost.h"

// Which head counts to give a model for a length of context: a larger model with fewer heads may reach the same loss at
// a lower cost (Chen et al., arXiv:2503.09579, section 4).
namespace sennit::measure {

// A small model that was trained: all rungs of a ladder alike, on equally many tokens.
struct Rung {
  HeadShape shape;
  int64_t context;  // tokens of its sequences
  double loss;
};

// The loss of shapes that were not trained, a sum of powers:
//   loss = E + A parameters^-a + B heads^-b + C kv_heads^-c + D context^-d,   all of A, ..., E at least 0,
// with the terms of what differs among the rungs; kv_heads has none where they are as many as heads in all of them.
// Least squares; exponents are of 1/4, 1/2, 1 and 2.
class HeadLoss {
 public:
  // Throws Error for fewer rungs than terms.
  explicit HeadLoss(std::span<const Rung> ladder);
  double operator()(const HeadShape& shape, int64_t context) const;
  double residual() const { return residual_; }  // root mean square over the ladder

 private:
  struct Term {
    int64_t (*value)(const HeadShape& shape, int64_t context);
    double exponent, factor;
  };
  double constant_ = 0, residual_ = 0;
  std::vector<Term> terms_;
};

struct HeadPlan {
  ModelSpec model;
  HeadShape shape;
  TokenCost cost;
  double loss;   // expected
  double share;  // of the given model's cost: the mean of the parts that operations and bytes are
};
struct HeadPlanOptions {
  int64_t context = 32768;
  NumberBytes bytes = {};
  double slack = 0;  // nats that the loss may be above the given model's
  double reach = 2;  // parameters, as a multiple of the most of the ladder and the given model
};

// The model with the smallest share of `given`'s cost at a context whose expected loss is no higher and that needs
// neither more operations nor more bytes. It has as many blocks and numbers a head. Searched are head counts, and heads
// a key-value head, between the ladder's fewest and most, and widths in multiples of 16 from the ladder's fewest
// parameters to what `reach` allows. `given` itself when there is none. Throws Error where the ladder's heads have
// other numbers than the model's.
HeadPlan plan_heads(const ModelSpec& given, std::span<const Rung> ladder, const HeadPlanOptions& options,
                    const std::string& where);

}  // namespace sennit::measure
