// The difference of two models as low-rank matrices: B = D V and A = V^T, where V [in, r] spans the directions in which
// D is longest, found by subspace iteration (Halko et al., arXiv:0909.4061, algorithm 4.4, without oversampling).
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "model/adapter.h"
#include "model/tensor_rules.h"
#include "nn/init.h"
#include "ops/layout.h"
#include "ops/products.h"

namespace sennit {
namespace {

constexpr int kRounds = 6;

// Makes the rows of v [r, n] orthonormal, each twice against those before it; a row that depends on them becomes zeros.
void orthonormalize(Tensor& v) {
  const int64_t n = v.row_size();
  for (int64_t i = 0; i < v.rows(); ++i) {
    float* row = v.data() + i * n;
    double start = 0;
    for (int64_t c = 0; c < n; ++c) start += double{row[c]} * row[c];
    for (int pass = 0; pass < 2; ++pass)
      for (int64_t j = 0; j < i; ++j) {
        const float* other = v.data() + j * n;
        double dot = 0;
        for (int64_t c = 0; c < n; ++c) dot += double{row[c]} * other[c];
        for (int64_t c = 0; c < n; ++c) row[c] -= static_cast<float>(dot * other[c]);
      }
    double squares = 0;
    for (int64_t c = 0; c < n; ++c) squares += double{row[c]} * row[c];
    const double scale = squares > 1e-10 * start ? 1 / std::sqrt(squares) : 0;
    for (int64_t c = 0; c < n; ++c) row[c] = static_cast<float>(row[c] * scale);
  }
}

double length(const Tensor& t) {
  double squares = 0;
  for (const float x : t.span()) squares += double{x} * x;
  return std::sqrt(squares);
}

struct LowRank {
  Tensor a, b;
  double left_out;
};

LowRank factors(const Tensor& d, int64_t rank, Rng rng) {
  const NoGrad off;
  const Var D(d);
  Tensor v = normal_init({std::min({rank, d.rows(), d.row_size()}), d.row_size()}, 1, rng);
  orthonormalize(v);
  for (int round = 0; round < kRounds; ++round) {
    Tensor u = matmul(Var(v), D, {.transpose_b = true}).value();  // [r, out]
    orthonormalize(u);
    v = matmul(Var(u), D).value();
    orthonormalize(v);
  }
  const Var b = matmul(D, Var(v), {.transpose_b = true});
  const Tensor made = matmul(b, Var(v)).value();
  Tensor rest = d.clone();
  for (int64_t i = 0; i < d.elements(); ++i) rest.data()[i] -= made.data()[i];
  return {v, b.value(), length(rest) / length(d)};
}

Tensor theirs_of(const TensorRule& rule, const StoredModel& model) {
  std::vector<io::StoredTensor> parts;
  for (const std::string& ours : rule.ours) parts.push_back(model.tensors.at(ours));
  return io::decoded(to_theirs(rule, parts));
}

}  // namespace

ExtractedAdapter extract_adapter(const StoredModel& base, const StoredModel& tuned, int64_t rank,
                                 const std::string& folder) {
  if (base.model_file != tuned.model_file) fail({"adapter", "two models of one model file", "others", tuned.path});
  ExtractedAdapter found;
  std::vector<io::NamedTensor> tensors;
  std::set<std::string> modules;
  bool turned = false;
  for (const TensorRule& rule : portable_rules(base)) {
    Tensor before = theirs_of(rule, base), after = theirs_of(rule, tuned);
    bool same = true;
    for (int64_t i = 0; i < before.elements(); ++i) {
      same = same && before.data()[i] == after.data()[i];
      after.data()[i] -= before.data()[i];
    }
    if (same) continue;
    const bool matrix = rule.theirs.ends_with(".weight") && after.shape().rank() == 2;
    if (!matrix)
      fail({"adapter", "models that differ in matrices only", fmt::format("a difference in `{}`", rule.theirs),
            tuned.path});
    const NoGrad off;
    const bool transposed = rule.change == TensorRule::Change::transposed;
    const LowRank low = factors(transposed ? transpose(Var(after)).value() : after, rank, Rng(1).fork(rule.theirs));
    const std::string module = rule.theirs.substr(0, rule.theirs.rfind('.'));
    tensors.push_back({"base_model.model." + module + ".lora_A.weight", low.a});
    tensors.push_back({"base_model.model." + module + ".lora_B.weight", low.b});
    modules.insert(module.substr(module.rfind('.') + 1));
    turned |= transposed;
    found.left_out = std::max(found.left_out, low.left_out);
    ++found.matrices;
  }
  if (tensors.empty()) fail({"adapter", "models that differ", "the same numbers", tuned.path});
  io::write_safetensors(folder + "/adapter_model.safetensors", tensors);
  io::write_json_file(folder + "/adapter_config.json", Json{{"peft_type", "LORA"},
                                                            {"task_type", "CAUSAL_LM"},
                                                            {"base_model_name_or_path", base.path},
                                                            {"r", rank},
                                                            {"lora_alpha", rank},
                                                            {"lora_dropout", 0.0},
                                                            {"bias", "none"},
                                                            {"fan_in_fan_out", turned},
                                                            {"target_modules", modules},
                                                            {"inference_mode", true}});
  return found;
}

}  // namespace sennit
