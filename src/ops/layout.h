#pragma once
#include <span>

#include "autograd/var.h"

namespace sennit {

Var reshape(const Var& x, Shape shape);
Var rows(const Var& x, int64_t begin, int64_t count);     // a run of rows; shares memory with x
Var columns(const Var& x, int64_t begin, int64_t count);  // of x [N, D]; a copy
Var concat_rows(std::span<const Var> parts);
Var concat_columns(std::span<const Var> parts);
Var gather_rows(const Var& x, std::span<const int64_t> indices);  // indices may repeat
Var transpose(const Var& x);                                      // [N, D] -> [D, N]
Var repeat_groups(const Var& x, int64_t groups, int64_t times);   // [N, G d] -> [N, G times d], each group `times` times

// Rows of the table [V, D] at the given ids; throws Error for an id outside [0, V).
Var embedding(const Var& table, std::span<const int32_t> ids);

}  // namespace sennit
