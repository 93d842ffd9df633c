#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/cpu.h"
#include "bench/cases.h"
#include "model/model.h"
#include "optimizers/optimizer.h"

// One optimizer step of a GPT-2-like model: 29.7 M parameters, 4 sequences of 512 tokens.
namespace sennit::bench {
namespace {

constexpr int64_t kBatch = 4, kContext = 512, kCheckedTokens = 32, kVocab = 8192;

Json model_file() {
  return json_of(R"({"vocab": 8192, "d_model": 512, "norm": "layernorm",
    "blocks": [{"repeat": 8, "mixer": {"name": "softmax", "heads": 8, "bias": true}, "channel": "mlp", "norm": "layernorm"}]})");
}

struct Run {
  Model model{read_model_spec(model_file(), "bench"), Rng(1)};
  std::unique_ptr<Optimizer> optimizer = optimizers::registry().make("adamw", {}, Rng(), "bench");
  std::vector<NamedParameter> parameters = named_parameters(model);
  std::vector<int32_t> tokens, targets;
  int64_t step = 0;

  Run() {
    Rng rng(2);
    for (auto* ids : {&tokens, &targets})
      for (int64_t i = 0; i < kBatch * kContext; ++i) ids->push_back(static_cast<int32_t>(rng.below(kVocab)));
  }

  Var loss(Precision precision, int64_t rows, int64_t length) {
    std::vector<Segment> segments;
    for (int64_t i = 0; i < rows; ++i) segments.push_back({i * length, length, 0, nullptr});
    Context context;
    context.precision = precision;
    const size_t n = static_cast<size_t>(rows * length);
    return model.loss(model.hidden({tokens.data(), n}, {segments, &context}), {targets.data(), n}, context);
  }

  void train(Precision precision) {
    for (const auto& p : parameters) p.parameter->var.clear_grad();
    backward(loss(precision, kBatch, kContext));
    optimizer->step(parameters, {.step = ++step, .rate = 1e-4, .gradient_scale = 1});
  }

  // Of the loss of a short sequence, against the scalar level in f32.
  double error(Precision precision) {
    NoGrad off;
    const double here = loss(precision, 1, kCheckedTokens).value().data()[0];
    const IsaLevel level = isa_level();
    set_isa_level(IsaLevel::scalar);
    const double there = Run().loss(Precision::f32, 1, kCheckedTokens).value().data()[0];
    set_isa_level(level);
    return std::fabs(here - there) / there;
  }
};

}  // namespace

void add_training(std::vector<Case>& cases) {
  const double flops = 3.0 * kBatch * static_cast<double>(Model(read_model_spec(model_file(), "bench"), Rng(1)).flops(kContext));
  for (const Precision p : {Precision::f32, Precision::bf16})
    cases.push_back({.name = fmt::format("training step GPT-2-like {}", to_string(p)),
                     .flops = flops,
                     .precision = p,
                     .tokens = kBatch * kContext,
                     .peer = fmt::format("train {}", to_string(p)),
                     .allowed = p == Precision::f32 ? 1e-5 : 1e-2,
                     .prepare = [p] {
                       const auto run = std::make_shared<Run>();
                       return Work{[run, p] { run->train(p); }, [run, p] { return run->error(p); }};
                     }});
}

}  // namespace sennit::bench
