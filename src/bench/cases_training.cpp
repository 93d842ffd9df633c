#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/cpu.h"
#include "bench/cases.h"
#include "model/model.h"
#include "optimizers/optimizer.h"

// One optimizer step.
namespace sennit::bench {
namespace {

constexpr int64_t kCheckedTokens = 32;

struct Training {
  std::string name;
  std::string model;  // a model file
  int64_t rows, length;
  Precision precision = Precision::f32;
  std::string peer = {};

  ModelSpec spec() const { return read_model_spec(json_of(model), "bench"); }
};

// 29.7 M parameters, 4 sequences of 512 tokens.
Training gpt2_like(Precision p) {
  return {.name = fmt::format("GPT-2-like {}", to_string(p)),
          .model = R"({"vocab": 8192, "d_model": 512, "norm": "layernorm",
            "blocks": [{"repeat": 8, "mixer": {"name": "softmax", "heads": 8, "bias": true}, "channel": "mlp", "norm": "layernorm"}]})",
          .rows = 4, .length = 512, .precision = p, .peer = fmt::format("train {}", to_string(p))};
}

// What a token costs should not hang on how long its sequence is.
Training linear_attention(int64_t length) {
  return {.name = fmt::format("gla, one sequence of {}", length),
          .model = R"({"vocab": 1024, "d_model": 256, "blocks": [{"repeat": 2, "mixer": {"name": "gla", "heads": 4}, "channel": "swiglu"}]})",
          .rows = 1, .length = length};
}

struct Run {
  Training training;
  Model model;
  std::unique_ptr<Optimizer> optimizer = optimizers::registry().make("adamw", {}, Rng(), "bench");
  std::vector<NamedParameter> parameters = named_parameters(model);
  std::vector<int32_t> tokens, targets;
  int64_t step = 0;

  explicit Run(const Training& t) : training(t), model(t.spec(), Rng(1)) {
    Rng rng(2);
    for (auto* ids : {&tokens, &targets})
      for (int64_t i = 0; i < t.rows * t.length; ++i) ids->push_back(static_cast<int32_t>(rng.below(t.spec().vocab)));
  }

  Var loss(Precision precision, int64_t rows, int64_t length) {
    std::vector<Segment> segments;
    for (int64_t i = 0; i < rows; ++i) segments.push_back({i * length, length, 0, nullptr});
    Context context;
    context.precision = precision;
    const size_t n = static_cast<size_t>(rows * length);
    return model.loss(model.hidden({tokens.data(), n}, {segments, &context}), {targets.data(), n}, context);
  }

  void train() {
    for (const auto& p : parameters) p.parameter->var.clear_grad();
    backward(loss(training.precision, training.rows, training.length));
    optimizer->step(parameters, {.step = ++step, .rate = 1e-4, .gradient_scale = 1});
  }

  // Of the loss of a short sequence, against the scalar level in f32.
  double error() {
    NoGrad off;
    const double here = loss(training.precision, 1, kCheckedTokens).value().data()[0];
    const IsaLevel level = isa_level();
    set_isa_level(IsaLevel::scalar);
    const double there = Run(training).loss(Precision::f32, 1, kCheckedTokens).value().data()[0];
    set_isa_level(level);
    return std::fabs(here - there) / there;
  }
};

}  // namespace

void add_training(std::vector<Case>& cases) {
  for (const Training& t : {gpt2_like(Precision::f32), gpt2_like(Precision::bf16), linear_attention(2048), linear_attention(65536)})
    cases.push_back({.name = "training step " + t.name,
                     .flops = 3.0 * static_cast<double>(t.rows * Model(t.spec(), Rng(1)).flops(t.length)),
                     .precision = t.precision,
                     .tokens = static_cast<double>(t.rows * t.length),
                     .peer = t.peer,
                     .allowed = t.precision == Precision::f32 ? 1e-5 : 1e-2,
                     .prepare = [t] {
                       const auto run = std::make_shared<Run>(t);
                       return Work{[run] { run->train(); }, [run] { return run->error(); }};
                     }});
}

}  // namespace sennit::bench
