#include "kernels/int8_rows.h"

#include "kernels/halves.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

void round_row(const float* x, int64_t k, int8_t* q, float* scale) {
  vf largest = zero(), spoilt = zero();  // a number that is not finite makes NaN of zero
  for_lanes(k, [&](int64_t i, int64_t n) {
    const vf v = load_n(x + i, n);
    largest = max(largest, abs(v));
    spoilt = fma(v, zero(), spoilt);
  });
  const float most = highest(largest);
  const vf by = set(most > 1e-30f ? 127 / most : 0), limit = set(127);
  for_lanes(k, [&](int64_t i, int64_t n) {
    __builtin_prefetch(x + k + i);                                         // the row that follows
    store_rounded(q + i, min(max(load_n(x + i, n) * by, -limit), limit));  // of NaN, max takes the other
  });
  for (int64_t i = (k + kLanes - 1) / kLanes * kLanes; i % kInt8Multiple != 0; ++i) q[i] = 0;
  *scale = (most > 1e-30f ? most / 127 : 0) + sum(spoilt);
}

}  // namespace

const Int8Rows int8_rows_table = {.round = round_row};

}  // namespace sennit::kernels::SENNIT_LEVEL
