#pragma once
#include "base/registry.h"
#include "nn/module.h"
#include "nn/naive.h"

namespace sennit {

struct NormInfo {
  std::string title, paper;
};

// A normalisation of rows [N, d] -> [N, d], each row by itself.
class Norm : public Module {
 public:
  using Info = NormInfo;
  struct Dims {
    int64_t d_model;
  };
  virtual Var forward(const Var& x) const = 0;
  virtual naive::Matrix naive(const naive::Weights& w, const naive::Matrix& x) const = 0;
};

namespace norms {
Registry<Norm>& registry();
}

}  // namespace sennit
