#include <fmt/format.h>

#include <functional>
#include <memory>
#include <vector>

#include "bench/cases.h"
#include "nn/naive.h"
#include "sequence/recurrences.h"

// The cores of recurrent mixers at shapes for which other engines' figures are known: one sequence of 512 tokens, or of the n named,
// or token by token.
namespace sennit::bench {
namespace {

constexpr int64_t kScanned = 512;

struct Core {
  std::string name;
  int64_t heads, key_dim, value_dim;
  double flops;  // of a token, state element
  std::function<Var(const std::vector<Var>&, const Batch&)> run;
  std::function<std::vector<Var>()> inputs;
  // Rows of y of one head in double, from a state of zeros.
  std::function<naive::Matrix(const std::vector<Var>&, int64_t head, int64_t rows)> naive;
  bool paired = false;  // by products of bf16 pairs
  int64_t tokens = kScanned;
};

// y_t = S_t^T q_t with S_t = f(S_{t-1}, t): update(S, t) for one head.
naive::Matrix scan(const Var& q, int64_t head, int64_t key_dim, int64_t value_dim, int64_t rows,
                   const std::function<void(naive::Matrix&, int64_t)>& update) {
  naive::Matrix s(key_dim, value_dim), y(rows, value_dim);
  for (int64_t t = 0; t < rows; ++t) {
    update(s, t);
    for (int64_t p = 0; p < key_dim; ++p)
      for (int64_t j = 0; j < value_dim; ++j) y(t, j) += s(p, j) * at(q, t, head * key_dim + p);
  }
  return y;
}

Var leaf(int64_t rows, int64_t columns, const char* name, double from = -0.5, double to = 0.5) {
  return Var::leaf(random_rows(rows, columns, name, from, to));
}

// Queries or keys of length 1.
Var keys(int64_t heads, int64_t dim, const char* name, int64_t tokens = kScanned) {
  Tensor k = random_rows(tokens, heads * dim, name, -1, 1);
  for (int64_t i = 0; i < tokens * heads; ++i) {
    double squares = 0;
    for (int64_t p = 0; p < dim; ++p) squares += double{k.data()[i * dim + p]} * k.data()[i * dim + p];
    for (int64_t p = 0; p < dim; ++p) k.data()[i * dim + p] /= static_cast<float>(std::sqrt(squares));
  }
  return Var::leaf(k);
}

Core gla_core(int64_t heads, int64_t key_dim, int64_t value_dim, bool vector, bool paired = false) {
  const int64_t gates = vector ? key_dim : 1;
  return {.name = fmt::format("gla {} gates {}x{}x{}", vector ? "vector" : "scalar", heads, key_dim, value_dim),
          .heads = heads, .key_dim = key_dim, .value_dim = value_dim, .flops = 6,
          .run = [heads, paired](const std::vector<Var>& in, const Batch& b) { return gla(in[0], in[1], in[2], in[3], b, {.heads = heads, .paired = paired}); },
          .inputs = [=] {
            return std::vector<Var>{keys(heads, key_dim, "q"), keys(heads, key_dim, "k"), leaf(kScanned, heads * value_dim, "v"), leaf(kScanned, heads * gates, "g", -0.1, 0)};
          },
          .naive = [=](const std::vector<Var>& in, int64_t head, int64_t rows) {
            return scan(in[0], head, key_dim, value_dim, rows, [&](naive::Matrix& s, int64_t t) {
              for (int64_t p = 0; p < key_dim; ++p)
                for (int64_t j = 0; j < value_dim; ++j)
                  s(p, j) = std::exp(at(in[3], t, head * gates + (vector ? p : 0))) * s(p, j) + at(in[1], t, head * key_dim + p) * at(in[2], t, head * value_dim + j);
            });
          },
          .paired = paired};
}

Core delta_core(int64_t heads, int64_t dim) {
  return {.name = fmt::format("gated_delta {}x{}x{}", heads, dim, dim),
          .heads = heads, .key_dim = dim, .value_dim = dim, .flops = 8,
          .run = [heads](const std::vector<Var>& in, const Batch& b) { return gated_delta(in[0], in[1], in[2], in[3], in[4], b, {.heads = heads}); },
          .inputs = [=] {
            return std::vector<Var>{keys(heads, dim, "q"), keys(heads, dim, "k"), leaf(kScanned, heads * dim, "v"), leaf(kScanned, heads, "beta", 0, 1), leaf(kScanned, heads, "g", -0.1, 0)};
          },
          .naive = [=](const std::vector<Var>& in, int64_t head, int64_t rows) {
            return scan(in[0], head, dim, dim, rows, [&](naive::Matrix& s, int64_t t) {
              const double a = std::exp(at(in[4], t, head)), b = at(in[3], t, head);
              for (int64_t j = 0; j < dim; ++j) {
                double kept = 0;
                for (int64_t p = 0; p < dim; ++p) kept += at(in[1], t, head * dim + p) * s(p, j);
                for (int64_t p = 0; p < dim; ++p)
                  s(p, j) = a * s(p, j) + b * at(in[1], t, head * dim + p) * (at(in[2], t, head * dim + j) - a * kept);
              }
            });
          }};
}

// Mamba-1: each channel is a head with one value, its state `states` numbers.
Core mamba_core(int64_t channels, int64_t states) {
  return {.name = fmt::format("selective scan {} channels, state {}", channels, states),
          .heads = channels, .key_dim = states, .value_dim = 1, .flops = 7,
          .run = [](const std::vector<Var>& in, const Batch& b) {
            return selective_scan({.x = in[0], .dt = in[1], .a = in[2], .b = in[3], .c = in[4], .d = in[5]}, b, 0);
          },
          .inputs = [=] {
            return std::vector<Var>{leaf(kScanned, channels, "x"), leaf(kScanned, channels, "dt", 0.001, 0.1), leaf(channels, states, "a", -16, -1),
                                    leaf(kScanned, states, "b"), leaf(kScanned, states, "c"), Var::leaf(random_rows(1, channels, "d").reshape({channels}))};
          },
          .naive = [=](const std::vector<Var>& in, int64_t c, int64_t rows) {
            naive::Matrix h(1, states), y(rows, 1);
            for (int64_t t = 0; t < rows; ++t) {
              y(t, 0) = double{in[5].value().data()[c]} * at(in[0], t, c);
              for (int64_t n = 0; n < states; ++n) {
                h(0, n) = std::exp(at(in[1], t, c) * at(in[2], c, n)) * h(0, n) + at(in[1], t, c) * at(in[3], t, n) * at(in[0], t, c);
                y(t, 0) += at(in[4], t, n) * h(0, n);
              }
            }
            return y;
          }};
}

// RWKV-7: diagonal decays plus a rank-one part a b^T, as short as its keys.
Core dplr_core(int64_t heads, int64_t dim, int64_t tokens = kScanned) {
  return {.name = fmt::format("rwkv7 {}x{}x{}{}", heads, dim, dim, tokens == kScanned ? "" : fmt::format(" n={}", tokens)),
          .heads = heads, .key_dim = dim, .value_dim = dim, .flops = 9,
          .run = [heads](const std::vector<Var>& in, const Batch& b) {
            return dplr({.q = in[0], .k = in[1], .v = in[2], .a = in[3], .b = in[4], .g = in[5]}, b, {.heads = heads});
          },
          .inputs = [=] {
            return std::vector<Var>{keys(heads, dim, "q", tokens), keys(heads, dim, "k", tokens), leaf(tokens, heads * dim, "v"), keys(heads, dim, "a", tokens),
                                    leaf(tokens, heads * dim, "b", -0.05, 0.05), leaf(tokens, heads * dim, "g", -0.6, 0)};
          },
          .naive = [=](const std::vector<Var>& in, int64_t head, int64_t rows) {
            return scan(in[0], head, dim, dim, rows, [&](naive::Matrix& s, int64_t t) {
              for (int64_t j = 0; j < dim; ++j) {
                double old = 0;
                for (int64_t p = 0; p < dim; ++p) old += at(in[3], t, head * dim + p) * s(p, j);
                for (int64_t p = 0; p < dim; ++p)
                  s(p, j) = std::exp(at(in[5], t, head * dim + p)) * s(p, j) + at(in[4], t, head * dim + p) * old +
                            at(in[1], t, head * dim + p) * at(in[2], t, head * dim + j);
              }
            });
          },
          .tokens = tokens};
}

enum class Pass { forward, backward, steps, decode };

// The inputs' rows that belong to one token.
std::vector<Var> token(const std::vector<Var>& inputs, int64_t t) {
  std::vector<Var> one;
  for (const Var& x : inputs) one.push_back(x.rows() == kScanned ? Var(x.value().slice(t, 1)) : x);
  return one;
}

// Of the first and the last head, by the path that is timed.
double core_error(const Core& core, const std::vector<Var>& inputs, bool by_steps) {
  const int64_t rows = by_steps ? 64 : core.tokens;
  const Context context;
  SequenceState state;
  const Segment whole[] = {{0, core.tokens, 0, nullptr}};
  std::vector<Var> y;
  for (int64_t t = 0; by_steps && t < rows; ++t) {
    const Segment step[] = {{0, 1, t, &state}};
    y.push_back(core.run(token(inputs, t), {step, &context}));
  }
  if (!by_steps) y = {core.run(inputs, {whole, &context})};
  Deviation d;
  for (const int64_t head : {int64_t{0}, core.heads - 1}) {
    const naive::Matrix exact = core.naive(inputs, head, rows);
    for (int64_t t = 0; t < rows; ++t)
      for (int64_t j = 0; j < core.value_dim; ++j)
        d.add(at(y[by_steps ? t : 0], by_steps ? 0 : t, head * core.value_dim + j), exact(t, j));
  }
  return d.relative();
}

// Of states: what leaves any cache between two tokens, as weights make it do in a model.
constexpr int64_t kDecodedBytes = int64_t{256} << 20;

int64_t state_bytes(const Core& core) { return 4 * core.heads * core.key_dim * core.value_dim; }
int64_t decoded_layers(const Core& core) { return (kDecodedBytes + state_bytes(core) - 1) / state_bytes(core); }

void run_whole(const Core& core, const std::vector<Var>& inputs, bool with_backward) {
  const Recording on(with_backward);
  const Context context;
  const Segment whole[] = {{0, core.tokens, 0, nullptr}};
  for (Var x : inputs) x.clear_grad();
  const Var y = core.run(inputs, {whole, &context});
  if (with_backward) backward_of_squares(y);
}

// Steps: tokens of one layer, whose state stays in the caches. Decode: one token of each of many layers.
void run_tokens(const Core& core, const std::vector<Var>& one, Pass kind, SequenceState& state) {
  const NoGrad off;
  const Context context;
  const Segment step[] = {{0, 1, 0, &state}};
  const Batch batch{step, &context};
  const int64_t n = kind == Pass::steps ? kScanned : decoded_layers(core);
  for (int64_t i = 0; i < n; ++i) core.run(one, kind == Pass::steps ? batch : batch.at(static_cast<size_t>(i)));
}

Work work(const Core& core, Pass kind) {
  const std::vector<Var> inputs = core.inputs(), one = token(inputs, 0);
  const bool by_steps = kind == Pass::steps || kind == Pass::decode;
  const auto run = [=, state = std::make_shared<SequenceState>()] {
    by_steps ? run_tokens(core, one, kind, *state) : run_whole(core, inputs, kind == Pass::backward);
  };
  return {run, [=] { return core_error(core, inputs, by_steps); }};
}

Case core_case(const Core& core, Pass kind) {
  const double elements = static_cast<double>(core.heads * core.key_dim * core.value_dim),
               layers = static_cast<double>(decoded_layers(core)), tokens = kind == Pass::decode ? layers : static_cast<double>(core.tokens);
  constexpr std::string_view kNames[] = {"forward", "forward+backward", "steps", "decode"};
  return {.name = fmt::format("{} {}{}", core.name, kNames[static_cast<int>(kind)], core.paired ? " bf16" : ""),
          .flops = core.flops * elements * tokens * (kind == Pass::backward ? 3 : 1),
          .updated = kind == Pass::decode ? 2 * layers * static_cast<double>(state_bytes(core)) : 0,
          .precision = core.paired ? Precision::bf16 : Precision::f32,
          .tokens = tokens,
          .allowed = core.paired ? 2e-2 : 1e-4,
          .prepare = [core, kind] { return work(core, kind); }};
}

}  // namespace

void add_recurrences(std::vector<Case>& cases) {
  for (const Core& core : {gla_core(32, 64, 64, true), gla_core(48, 128, 64, false), gla_core(32, 64, 64, true, true), gla_core(48, 128, 64, false, true),
                           delta_core(16, 64), delta_core(32, 128), dplr_core(32, 64), dplr_core(32, 64, 2048), mamba_core(4096, 16)})
    for (const Pass kind : {Pass::forward, Pass::backward, Pass::steps, Pass::decode})
      if ((!core.paired && core.tokens == kScanned) || kind == Pass::forward || kind == Pass::backward) cases.push_back(core_case(core, kind));
}

}  // namespace sennit::bench
