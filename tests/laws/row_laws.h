#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nn/linear.h"
#include "nn/naive.h"

// The laws of what maps rows to rows, each by itself: channel mixers and norms. A law returns "" when it holds and what
// broke when it does not.
namespace sennit::laws {

class RowMap : public Module {
 public:
  virtual Var forward(const Var& x, const Context& context) = 0;
  virtual naive::Matrix naive(const naive::Weights& w, const naive::Matrix& x) const = 0;
  virtual int64_t flops(int64_t /*rows*/) const { return 0; }  // 0: none declared
};

struct RowCase {
  std::string name;
  std::function<std::unique_ptr<RowMap>(Rng)> make;  // at `width`
  int64_t width = 32;
};

struct RowLaw {
  const char* name;
  std::string (*check)(const RowCase&);
};
const std::vector<RowLaw>& row_laws();

// Every registered channel mixer and norm, with its default options and with each choice and flag it has.
std::vector<RowCase> registered_channels();
std::vector<RowCase> registered_norms();

}  // namespace sennit::laws
