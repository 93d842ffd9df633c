#include "sequence/reverse.h"

#include "ops/layout.h"
#include "tensor/pooled.h"

namespace sennit {

Var reversed(const Var& x, std::span<const Segment> segments) {
  Pooled<int64_t> order(static_cast<size_t>(x.rows()));
  for (const Segment& s : segments)
    for (int64_t t = 0; t < s.length; ++t) order[s.begin + t] = s.begin + s.length - 1 - t;
  return gather_rows(x, order);
}

}  // namespace sennit
