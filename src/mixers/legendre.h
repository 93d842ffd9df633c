#pragma once
#include "tensor/tensor.h"

namespace sennit::mixers {

// m_t = a m_{t-1} + b u_t, which keeps the last `theta` tokens of u as coefficients of shifted Legendre polynomials
// (Voelker et al., "Legendre Memory Units", 2019, equations 1 to 3), its continuous form held over a token's time.
struct LegendreSystem {
  Tensor a, b;  // [order, order], [order]
};
LegendreSystem legendre_system(int64_t order, double theta);

// What u was `delay` theta tokens ago, 0 <= delay <= 1, is about sum_i of these times m_i.
double legendre_weight(int64_t i, double delay);

}  // namespace sennit::mixers
