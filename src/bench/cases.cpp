#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "bench/case.h"
#include "model/model.h"
#include "optimizers/optimizer.h"
#include "products/product.h"
#include "sequence/attention.h"

namespace sennit::bench {
namespace {

Tensor random_rows(int64_t rows, int64_t columns, std::string_view name) {
  Tensor x({rows, columns});
  Rng rng = Rng(1).fork(name);
  for (float& v : x.span()) v = static_cast<float>(rng.uniform() - 0.5);
  return x;
}

MatrixView view(const Tensor& x) { return {x.data(), x.rows(), x.row_size(), x.row_size()}; }

void add_products(std::vector<Case>& cases) {
  struct Size {
    int64_t m, k, n;
  };
  for (const Precision p : {Precision::f32, Precision::bf16})
    for (const Size s : {Size{2048, 2048, 2048}, Size{512, 4096, 4096}, Size{1, 4096, 16384}}) {
      const bool few = s.m == 1;
      cases.push_back({.name = fmt::format("product {} {}x{}x{} packed", to_string(p), s.m, s.k, s.n),
                       .flops = 2.0 * static_cast<double>(s.m * s.k * s.n),
                       .bytes = few ? static_cast<double>(s.k * s.n * (p == Precision::f32 ? 4 : 2)) : 0,
                       .precision = p,
                       .tokens = 0,
                       .peer = fmt::format("product {} {} {} {}", to_string(p), s.m, s.k, s.n),
                       .prepare = [s, p] {
                         const Tensor a = random_rows(s.m, s.k, "a"), b = random_rows(s.k, s.n, "b");
                         const auto packed = std::make_shared<PackedMatrix>(view(b), p);
                         Tensor c({s.m, s.n});
                         return [=]() mutable { multiply(view(a), *packed, c.data(), c.row_size()); };
                       }});
    }
}

void add_attention(std::vector<Case>& cases) {
  constexpr int64_t kHeads = 8, kDim = 64;
  struct Kind {
    int64_t queries, keys;
    bool backward;
  };
  for (const Kind kind : {Kind{4096, 4096, false}, Kind{16384, 16384, false}, Kind{4096, 4096, true}, Kind{1, 16384, false}}) {
    const AttentionSegment segment{0, kind.queries, 0, 0, kind.keys, kind.keys - kind.queries};
    const double forward = 4.0 * static_cast<double>(visible_pairs(segment, true, 0) * kHeads * kDim);
    const bool decode = kind.queries == 1;
    cases.push_back({.name = fmt::format("attention {} n={} 8x64", decode ? "decode" : kind.backward ? "forward+backward" : "forward", kind.keys),
                     .flops = forward * (kind.backward ? 3.5 : 1),
                     .bytes = decode ? static_cast<double>(2 * kind.keys * kHeads * kDim * 4) : 0,
                     .tokens = static_cast<double>(kind.queries),
                     .peer = fmt::format("attention {} {} {}", kind.queries, kind.keys, kind.backward ? 1 : 0),
                     .prepare = [kind, segment]() -> std::function<void()> {
                       const Var q = Var::leaf(random_rows(kind.queries, kHeads * kDim, "q")), k = Var::leaf(random_rows(kind.keys, kHeads * kDim, "k"));
                       const Var v = Var::leaf(random_rows(kind.keys, kHeads * kDim, "v"));
                       return [=] {
                         Recording on(kind.backward);
                         const Var y = attention(q, {&k, 1}, {&v, 1}, {&segment, 1}, {.heads = kHeads, .kv_heads = kHeads, .scale = 0.125f});
                         if (kind.backward) backward(y, y.value());
                       };
                     }});
  }
}

// A whole mixer over one sequence, and its step at a position.
void add_mixers(std::vector<Case>& cases) {
  for (const auto& entry : mixers::registry().entries()) {
    const auto make = [name = entry.name] {
      return std::shared_ptr<Mixer>(mixers::registry().make(Json(name), {.d_model = 256}, Rng(1), "bench"));
    };
    struct Kind {
      int64_t n;
      bool exact;
    };
    for (const auto [n, exact] : {Kind{4096, false}, Kind{4096, true}, Kind{65536, false}}) {
      if (entry.name == "softmax" && n > 4096) continue;  // quadratic: see the attention cases
      cases.push_back({.name = fmt::format("mixer {} forward n={}{}", entry.name, n, exact ? " exact" : ""),
                       .flops = static_cast<double>(make()->flops(n)),
                       .tokens = static_cast<double>(n),
                       .peer = {},
                       .prepare = [make, n = n, exact = exact]() -> std::function<void()> {
                         const auto mixer = make();
                         const Var x(random_rows(n, 256, "x"));
                         return [mixer, x, n, exact] {
                           NoGrad off;
                           const Segment whole[] = {{0, n, 0, nullptr}};
                           const Context context{.exact = exact};
                           mixer->forward(x, {whole, &context});
                         };
                       }});
    }
    for (const int64_t position : {1024, 16384})
      cases.push_back({.name = fmt::format("mixer {} 64 steps at {}", entry.name, position),
                       .flops = 64.0 * static_cast<double>(make()->flops(1)),
                       .tokens = 64,
                       .peer = {},
                       .prepare = [make, position]() -> std::function<void()> {
                         const auto mixer = make();
                         const auto state = std::make_shared<SequenceState>();
                         const Var x(random_rows(position, 256, "x")), one(random_rows(1, 256, "one"));
                         NoGrad off;
                         const Context context;
                         const Segment past[] = {{0, position, 0, state.get()}};
                         mixer->forward(x, {past, &context});
                         return [mixer, state, one, position] {
                           NoGrad quiet;
                           const Context c;
                           for (int64_t i = 0; i < 64; ++i) {
                             const Segment step[] = {{0, 1, position + i, state.get()}};
                             mixer->forward(one, {step, &c});
                           }
                           if (mixer->rewinds())
                             for (size_t f = 0; f < mixer->state_spec().size(); ++f) state->layer(0).truncate(f, position);
                         };
                       }});
  }
}

// One optimizer step of a GPT-2-like model: 29.7 M parameters, 4 sequences of 512 tokens.
void add_training(std::vector<Case>& cases) {
  const Json file = Json::parse(R"({"vocab": 8192, "d_model": 512, "norm": "layernorm",
    "blocks": [{"repeat": 8, "mixer": {"name": "softmax", "heads": 8, "bias": true}, "channel": "mlp", "norm": "layernorm"}]})");
  for (const Precision p : {Precision::f32, Precision::bf16}) {
    constexpr int64_t kRows = 4, kLength = 512;
    cases.push_back({.name = fmt::format("training step GPT-2-like {}", to_string(p)),
                     .flops = 3.0 * kRows * static_cast<double>(Model(read_model_spec(file, "bench"), Rng(1)).flops(kLength)),
                     .precision = p,
                     .tokens = kRows * kLength,
                     .peer = fmt::format("train {}", to_string(p)),
                     .prepare = [file, p]() -> std::function<void()> {
                       const auto model = std::make_shared<Model>(read_model_spec(file, "bench"), Rng(1));
                       const std::shared_ptr<Optimizer> optimizer = optimizers::registry().make("adamw", {}, Rng(), "bench");
                       std::vector<NamedParameter> parameters;
                       model->parameters([&](const std::string& name, Parameter& q) { parameters.push_back({name, &q}); });
                       std::vector<int32_t> tokens(kRows * kLength), targets(kRows * kLength);
                       Rng rng(2);
                       for (auto* ids : {&tokens, &targets})
                         for (int32_t& t : *ids) t = static_cast<int32_t>(rng.below(8192));
                       return [=, step = int64_t{0}]() mutable {
                         std::vector<Segment> segments;
                         for (int64_t i = 0; i < kRows; ++i) segments.push_back({i * kLength, kLength, 0, nullptr});
                         Context context;
                         context.precision = p;
                         for (const auto& q : parameters) q.parameter->var.clear_grad();
                         backward(model->loss(model->hidden(tokens, {segments, &context}), targets, context));
                         optimizer->step(parameters, {.step = ++step, .rate = 1e-4, .gradient_scale = 1});
                       };
                     }});
  }
}

}  // namespace

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  add_products(cases);
  add_attention(cases);
  add_mixers(cases);
  add_training(cases);
  return cases;
}

}  // namespace sennit::bench
