#pragma once
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/model.h"

namespace sennit {

// A block of every mixer, with different channels and norms.
inline Json hybrid_file(int64_t vocab = 60) {
  return Json{{"vocab", vocab},
              {"d_model", 32},
              {"blocks",
               {{{"mixer", "gla"}, {"heads", 2}, {"conv", 3}, {"channel", "swiglu"}},
                {{"mixer", "softmax"}, {"heads", 4}, {"kv_heads", 2}, {"channel", "mlp"}, {"norm", "layernorm"}},
                {{"mixer", "gated_delta"}, {"heads", 2}, {"channel", "none"}},
                {{"mixer", "softmax"}, {"window", 9}, {"position", "alibi"}, {"channel", "swiglu"}},
                {{"mixer", "mamba"}, {"state", 5}, {"channel", "swiglu"}}}}};
}

inline Model hybrid(uint64_t seed = 1, int64_t vocab = 60) {
  return Model(read_model_spec(hybrid_file(vocab), "test"), Rng(seed), "test");
}

inline std::vector<int32_t> some_tokens(int64_t n, int64_t vocab = 60, uint64_t seed = 5) {
  Rng rng(seed);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(rng.below(vocab)));
  return tokens;
}

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

// Every parameter (or its gradient), one after another.
inline std::vector<float> all_of(Model& model, bool gradients) {
  std::vector<float> all;
  model.parameters([&](const std::string&, Parameter& p) {
    const Tensor& t = gradients ? p.var.grad() : p.value();
    if (t) all.insert(all.end(), t.span().begin(), t.span().end());
  });
  return all;
}
inline void clear_gradients(Model& model) {
  model.parameters([](const std::string&, Parameter& p) { p.var.clear_grad(); });
}

// |a - b| / |b|
inline double relative_distance(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return INFINITY;
  double off = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i)
    off += (double{a[i]} - b[i]) * (double{a[i]} - b[i]), size += double{b[i]} * b[i];
  return std::sqrt(off / size);
}

}  // namespace sennit
