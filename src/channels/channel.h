#pragma once
#include "base/registry.h"
#include "nn/linear.h"
#include "nn/naive.h"

namespace sennit {

struct ChannelInfo {
  std::string title, paper;
};

// A channel mixer: [N, d] -> [N, d], each row by itself.
class Channel : public Module {
 public:
  using Info = ChannelInfo;
  struct Dims {
    int64_t d_model;
    double out_scale = 1;  // of the last map's initial weights
  };
  virtual Var forward(const Var& x, const Context& context) = 0;
  virtual naive::Matrix naive(const naive::Weights& w, const naive::Matrix& x) const = 0;
  virtual int64_t flops(int64_t rows) const = 0;  // of a forward pass
};

namespace channels {
Registry<Channel>& registry();
}

}  // namespace sennit
