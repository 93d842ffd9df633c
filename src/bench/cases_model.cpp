#include <fmt/format.h>

#include <memory>
#include <vector>

#include "base/cpu.h"
#include "bench/cases.h"
#include "decoding/generate.h"
#include "model/stored_model.h"

// A whole model: reading a prompt, and choosing tokens one by one after it.
namespace sennit::bench {
namespace {

struct Loaded {
  std::unique_ptr<Model> model;
  Context context;
  bool quantized = false;  // any of its matrices
  double read_bytes = 0;   // of weights, for each token: all but the embedding's other rows

  explicit Loaded(const ModelBench& bench) : context(bench.context) {
    const StoredModel stored = read_stored_model(bench.path);
    model = make_model(stored, bench.loading);
    for (const auto& [name, t] : stored.tensors) {
      const bool output = name == "head.weight" || model->spec().tie_embeddings;
      if (name == "embedding.weight" && !output) continue;
      const bool matrix = t.shape.rank() == 2, small = matrix && context.precision == Precision::bf16;
      const bool kept = io::is_quantized(t.format) || (matrix && !bench.loading.weights.empty());
      quantized = quantized || kept;
      read_bytes += static_cast<double>(kept ? kept_bytes(t, bench.loading.weights, output)
                                             : t.shape.elements() * (small ? 2 : 4));
    }
  }

  std::vector<int32_t> tokens(int64_t n) const {
    std::vector<int32_t> ids;
    Rng rng(3);
    for (int64_t i = 0; i < n; ++i) ids.push_back(static_cast<int32_t>(rng.below(model->spec().vocab)));
    return ids;
  }

  Session session(int64_t prompt) const {
    Session s(*model, context);
    if (prompt > 0) s.feed(tokens(prompt));
    return s;
  }

  // Of the logits after a few tokens, against the scalar level.
  double error() const {
    constexpr int64_t kTokens = 2;
    Session here = session(kTokens);
    const IsaLevel level = isa_level();
    set_isa_level(IsaLevel::scalar);
    Session there = session(kTokens);
    set_isa_level(level);
    Deviation d;
    for (size_t i = 0; i < here.logits().size(); ++i) d.add(here.logits()[i], there.logits()[i]);
    return d.relative();
  }
};

}  // namespace

std::vector<Case> model_cases(const ModelBench& bench) {
  const NoGrad off;
  const auto loaded = std::make_shared<Loaded>(bench);
  const double allowed = bench.context.precision == Precision::f32 ? 1e-4 : 5e-2;
  const auto flops = [&](int64_t n) { return static_cast<double>(loaded->model->flops(n)); };
  // Only the last row of a prompt goes through the output map.
  const double head = 2.0 * static_cast<double>(bench.prompt - 1) *
                      static_cast<double>(loaded->model->spec().vocab * loaded->model->spec().d_model);
  const int64_t at = bench.prompt + bench.generate / 2;  // the middle one of the tokens chosen
  const double bytes =
      (loaded->read_bytes + static_cast<double>(loaded->model->state_bytes(at, bench.context.cache))) * static_cast<double>(bench.generate);
  return {{.name = fmt::format("prompt of {} tokens", bench.prompt),
           .flops = flops(bench.prompt) - head,
           .precision = bench.context.precision,
           .int8 = loaded->quantized,
           .tokens = static_cast<double>(bench.prompt),
           .peer = fmt::format("prompt {}", bench.prompt),
           .allowed = allowed,
           .prepare =
               [=, n = bench.prompt] {
                 return Work{[=] {
                               const NoGrad none;
                               loaded->session(n);
                             },
                             [=] { return loaded->error(); }};
               }},
          {.name = fmt::format("{} tokens one by one after {}", bench.generate, bench.prompt),
           .bytes = bytes,
           .tokens = static_cast<double>(bench.generate),
           .peer = fmt::format("decode {} {}", bench.prompt, bench.generate),
           .allowed = allowed,
           .prepare = [=, prompt = bench.prompt, n = bench.generate] {
             const auto start = std::make_shared<Session>(loaded->session(prompt));
             return Work{[=] {
                           const NoGrad none;
                           Session s = start->snapshot();
                           const int32_t token = 0;
                           for (int64_t i = 0; i < n; ++i) s.feed({&token, 1});
                         },
                         [=] { return loaded->error(); }};
           }}};
}

}  // namespace sennit::bench
