#pragma once
#include "mixers/mixer.h"
#include "nn/kept.h"

namespace sennit::mixers {

// What a recurrent cell feeds back, of low rank and with few entries (Leveraging Low-Rank and Sparse Recurrent
// Connectivity, Tumma et al., arXiv:2310.03915, section 3): for each head and gate
//   R = (A B^T) * M, A and B [dim, rank],   or R = F * M with rank 0
// M is a fixed draw of zeros and ones, the same for a seed and depth whatever the weights. Entries of A and B start
// with the deviation that at full rank gives R the norm of F, so that it is the smaller the lower the rank.
class MaskedFeedback : public Module {
 public:
  struct Options {
    int64_t rank = 0, seed = 0;
    double sparsity = 0;
    Fields fields();
  };
  MaskedFeedback() = default;
  // `deviation` of F's entries. Throws Error for a rank above dim.
  MaskedFeedback(const char* name, const Options& o, const Mixer::Dims& d, int64_t heads, int64_t gates,
                 double deviation, Rng rng);
  void visit(const ParameterVisitor& p) override;  // feedback, or left and right

  const Var& matrix();  // R of all heads below each other, of a head's gates side by side [heads dim, gates dim]
  naive::Matrix naive(const naive::Weights& w) const;
  int64_t flops() const;

 private:
  Var made() const;
  int64_t block(int64_t head, int64_t gate) const { return (head * gates_ + gate) * dim_; }  // its rows of A and B
  Options options_;
  int64_t heads_ = 0, dim_ = 0, gates_ = 0;
  Parameter full_, left_, right_;
  Var mask_;  // undefined where nothing is masked
  Kept<Var> kept_;
};

}  // namespace sennit::mixers
