#pragma once
#include <cmath>
#include <memory>
#include <string>

#include "autograd/var.h"
#include "base/rng.h"
#include "bench/case.h"
#include "mixers/mixer.h"
#include "products/product.h"

// What the files of cases share.
namespace sennit::bench {

void add_products(std::vector<Case>& cases);
void add_attention(std::vector<Case>& cases);
void add_recurrences(std::vector<Case>& cases);
void add_rnn(std::vector<Case>& cases);
void add_parts(std::vector<Case>& cases);
void add_mixers(std::vector<Case>& cases);
void add_training(std::vector<Case>& cases);

Tensor random_rows(int64_t rows, int64_t columns, std::string_view name, double from = -0.5, double to = 0.5);
inline MatrixView view(const Tensor& x) {
  return {x.data(), x.rows(), x.row_size(), x.row_size()};
}

// backward() as from half the sum of y's squares: y's gradient is y itself, handed on as a model hands it on.
void backward_of_squares(const Var& y);

// A mixer with its default options, ready for sequences of so many tokens.
std::unique_ptr<Mixer> mixer_for(const std::string& name, int64_t d_model, int64_t tokens);

// Gathers |got - definition| against |definition|.
class Deviation {
 public:
  void add(double got, double definition) {
    const double off = std::fabs(got - definition);
    if (!(off <= worst_)) worst_ = off;  // keeps a NaN
    if (std::fabs(definition) > largest_) largest_ = std::fabs(definition);
  }
  double relative() const { return largest_ > 0 ? worst_ / largest_ : worst_; }

 private:
  double worst_ = 0, largest_ = 0;
};

}  // namespace sennit::bench
