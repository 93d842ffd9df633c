#pragma once
#include "kernels/rnn.h"
#include "kernels/staged_rnn.h"
#include "sequence/cells.h"

namespace sennit {

using kernels::RnnCell;
using kernels::StagedCell;

CellKind cell_kind(RnnCell cell);
CellKind cell_kind(StagedCell cell, float limit);

// A recurrent cell with a feedback matrix for each head, token by token (kernels/rnn.h has the equations): x [N, H
// gates dim] are the inputs of the gates, r [H dim, gates dim]. -> h [N, H dim]; state [H, states, dim].
Var rnn(RnnCell cell, const Var& x, const Var& r, int64_t heads, const Batch& batch, size_t field);

// The same with cells of two layers a step (kernels/staged_rnn.h): x [N, H 4 dim], r [H dim, 4 dim].
Var staged_rnn(StagedCell cell, const Var& x, const Var& r, int64_t heads, float limit, const Batch& batch,
               size_t field);

}  // namespace sennit
