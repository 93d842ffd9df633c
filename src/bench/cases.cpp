#include "bench/cases.h"

#include <nlohmann/json.hpp>

namespace sennit::bench {

void backward_of_squares(const Var& y) {
  backward(record(Tensor::of({1}, {0}), {y}, [dy = y.value()](std::span<const Tensor>, Gradients& into) { into.add(0, dy); }));
}

Tensor random_rows(int64_t rows, int64_t columns, std::string_view name, double from, double to) {
  Tensor x({rows, columns});
  Rng rng = Rng(1).fork(name);
  for (float& v : x.span()) v = static_cast<float>(from + (to - from) * rng.uniform());
  return x;
}

std::unique_ptr<Mixer> mixer_for(const std::string& name, int64_t d_model, int64_t tokens) {
  const auto make = [&](const Json& part) {
    return mixers::registry().make(part, {.d_model = d_model}, Rng(1), "bench");
  };
  auto mixer = make(name);
  const int64_t longest = mixer->longest();
  return longest == 0 || longest >= tokens ? std::move(mixer) : make({{"name", name}, {"length", tokens}});
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const auto add : {add_products, add_attention, add_recurrences, add_rnn, add_parts, add_mixers, add_training})
    add(cases);
  return cases;
}

}  // namespace sennit::bench
