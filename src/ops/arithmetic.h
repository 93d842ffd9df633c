#pragma once
#include "autograd/var.h"

namespace sennit {

// Element by element; shapes must be equal.
Var add(const Var& a, const Var& b);
Var subtract(const Var& a, const Var& b);
Var multiply(const Var& a, const Var& b);
Var affine(const Var& x, float scale, float shift);  // scale x + shift
inline Var scale(const Var& x, float s) { return affine(x, s, 0); }
inline Var operator+(const Var& a, const Var& b) { return add(a, b); }
inline Var operator-(const Var& a, const Var& b) { return subtract(a, b); }
inline Var operator*(const Var& a, const Var& b) { return multiply(a, b); }

// Broadcasts over the rows of x [N, D].
Var add_row(const Var& x, const Var& row);       // row [D]
Var multiply_row(const Var& x, const Var& row);  // row [D]
// x [N, G d] times s [N, G]: each row's group of d numbers by its own factor.
Var multiply_groups(const Var& x, const Var& s);

Var sum(const Var& x);            // [1]
Var mean(const Var& x);           // [1]
Var sum_rows(const Var& x);       // [N, D] -> [D]
Var sum_groups(const Var& x, int64_t groups);  // [N, G d] -> [N, G]

// Zeroes elements with probability p and scales the rest by 1 / (1 - p); the draw is a function of the seed and the
// position alone.
Var dropout(const Var& x, float p, uint64_t seed);

}  // namespace sennit
