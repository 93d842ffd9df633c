#include "sequence/rnn.h"

#include "sequence/cells.h"

namespace sennit {
namespace {

struct Plain {
  RnnCell cell;
  int64_t gates() const { return kernels::rnn_gates(cell); }
  int64_t states() const { return kernels::rnn_states(cell); }
  static const kernels::Rnn& table() { return kernels::rnn(); }
  kernels::RnnTask task(const float* x, int64_t x_stride, const float* r, int64_t length, int64_t dim) const {
    return {.cell = cell, .x = x, .r = r, .x_stride = x_stride, .length = length, .dim = dim};
  }
};

struct Staged {
  StagedCell cell;
  float limit;
  static int64_t gates() { return kernels::kStagedGates; }
  int64_t states() const { return kernels::staged_states(cell); }
  static const kernels::StagedRnn& table() { return kernels::staged_rnn(); }
  kernels::StagedRnnTask task(const float* x, int64_t x_stride, const float* r, int64_t length, int64_t dim) const {
    return {.cell = cell, .limit = limit, .x = x, .r = r, .x_stride = x_stride, .length = length, .dim = dim};
  }
};

}  // namespace

Var rnn(RnnCell cell, const Var& x, const Var& r, int64_t heads, const Batch& batch, size_t field) {
  return run_cells(Plain{cell}, x, r, heads, batch, field);
}

Var staged_rnn(StagedCell cell, const Var& x, const Var& r, int64_t heads, float limit, const Batch& batch,
               size_t field) {
  return run_cells(Staged{cell, limit}, x, r, heads, batch, field);
}

}  // namespace sennit
