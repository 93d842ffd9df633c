#include "sequence/rnn.h"

namespace sennit {

CellKind cell_kind(RnnCell cell) {
  const int64_t gates = kernels::rnn_gates(cell);
  return {.functions = kernels::rnn().cells[static_cast<int>(cell)],
          .gates = gates,
          .states = kernels::rnn_states(cell),
          .kept = kernels::rnn_kept(cell),
          .layers = 1,
          .layer = {{0, gates}},
          .lowest = cell == RnnCell::slstm ? 3 : -1};
}

CellKind cell_kind(StagedCell cell, float limit) {
  const int64_t first = kernels::staged_first(cell);
  return {.functions = kernels::staged_rnn().cells[static_cast<int>(cell)],
          .gates = kernels::kStagedGates,
          .states = kernels::staged_states(cell),
          .kept = kernels::kStagedKept,
          .layers = 2,
          .layer = {{0, first}, {first, kernels::staged_second(cell)}},
          .middle = kernels::kStagedKept - 1,
          .limit = limit};
}

Var rnn(RnnCell cell, const Var& x, const Var& r, int64_t heads, const Batch& batch, size_t field) {
  return run_cells(cell_kind(cell), x, r, heads, batch, field);
}

Var staged_rnn(StagedCell cell, const Var& x, const Var& r, int64_t heads, float limit, const Batch& batch,
               size_t field) {
  return run_cells(cell_kind(cell, limit), x, r, heads, batch, field);
}

}  // namespace sennit
