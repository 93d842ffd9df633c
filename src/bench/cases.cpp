#include "bench/cases.h"

namespace sennit::bench {

Tensor random_rows(int64_t rows, int64_t columns, std::string_view name, double from, double to) {
  Tensor x({rows, columns});
  Rng rng = Rng(1).fork(name);
  for (float& v : x.span()) v = static_cast<float>(from + (to - from) * rng.uniform());
  return x;
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const auto add : {add_products, add_attention, add_recurrences, add_rnn, add_parts, add_mixers, add_training})
    add(cases);
  return cases;
}

}  // namespace sennit::bench
