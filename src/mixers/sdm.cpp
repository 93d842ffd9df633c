// Attention Approximates Sparse Distributed Memory (Bricken & Pehlevan, arXiv:2111.05498), equations 7 and 8: a read of
// a sparse distributed memory weighs each pattern by how many addresses lie near both it and the query, which falls
// with their angle as an exponential does. So it is attention between unit vectors, with the inverse temperature of the
// memory's size:
//   y_t = W_o concat_h sum_s softmax_s(beta cos(q_t, k_s)) v_s,   beta of `bits` and `radius`
#include "mixers/distributed_memory.h"
#include "mixers/heads.h"
#include "nn/naive_sequence.h"
#include "ops/norms.h"
#include "sequence/attention.h"
#include "sequence/seen.h"

namespace sennit::mixers {
namespace {

struct Sdm : Heads {
  static constexpr double kUnitEpsilon = 1e-6;

  struct Options {
    int64_t heads = 4, bits = 64, radius = 24;
    Fields fields() {
      return {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
              {"bits", &bits, "bits of an address of the memory", {.min = 4, .max = 4096}},
              {"radius",
               &radius,
               "Hamming distance up to which an address is written to and read: less is a sharper read",
               {.min = 1, .max = 2048}}};
    }
  };
  static Info info() {
    return {.title = "Sparse distributed memory",
            .paper = "arXiv:2111.05498",
            .equation = "y_t = sum_s softmax_s(beta cos(q_t, k_s)) v_s",
            .cost = "O(n^2 d)",
            .patterns = {Pattern::causal, Pattern::bidirectional, Pattern::cross},
            .settings = {{"sharper", R"({"radius": 18})"}}};
  }

  Sdm(const Dims& d, const Options& o, Rng rng) : Heads("sdm", d, o.heads, rng) {
    if (2 * o.radius > o.bits)
      fail({"sdm", fmt::format("a radius of at most half of bits = {}", o.bits), fmt::format("{}", o.radius)});
    beta = fit_intersection(o.bits, o.radius).beta;
  }
  StateSpec state_spec() const override {
    return {{.name = "k", .shape = {1, width()}, .growth = Growth::per_token, .heads = heads},
            {.name = "v", .shape = {1, width()}, .growth = Growth::per_token, .heads = heads}};
  }

  Var unit(const Var& x) const { return l2norm(x, {.groups = heads, .epsilon = static_cast<float>(kUnitEpsilon)}); }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Sdm>("sdm", batch);
    const Context& c = *batch.context;
    const SeenRows seen = seen_rows({unit(k(looked_at(x, batch), c)), v(looked_at(x, batch), c)}, batch, 0, 0, heads);
    const AttentionOptions options{.heads = heads,
                                   .kv_heads = heads,
                                   .scale = static_cast<float>(beta),
                                   .causal = batch.pattern == Pattern::causal};
    return output(x, attention(unit(q(x, c)), seen.part(0), seen.part(1), seen.segments, options), c);
  }
  int64_t flops(int64_t n) const override { return pattern_flops(Pattern::causal, n, 0); }
  int64_t pattern_flops(Pattern pattern, int64_t n, int64_t memory) const override {
    const int64_t seen = pattern == Pattern::cross ? memory : n;
    return map_flops(n, seen) + 4 * (pattern == Pattern::causal ? n * (n + 1) / 2 : n * seen) * width();
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const bool cross = run.pattern == Pattern::cross;
    const naive::Matrix& source = cross ? *run.memory : run.x;
    naive::Matrix keys = naive::l2norm(naive::linear(source, run.w, "k"), heads, kUnitEpsilon),
                  values = naive::linear(source, run.w, "v");
    if (!cross) keys = naive::with_kept(run.state["k"], keys), values = naive::with_kept(run.state["v"], values);
    const naive::AttentionView view{heads, beta, run.pattern == Pattern::causal, keys.rows - run.x.rows};
    const naive::Matrix queries = naive::l2norm(naive::linear(run.x, run.w, "q"), heads, kUnitEpsilon);
    return naive::linear(naive::attention(queries, keys, values, view), run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    return softmax_weights(unit(q(x, c)).value(), unit(k(x, c)).value(), v(x, c).value(), beta);
  }

  double beta;
};

}  // namespace

void register_sdm(Registry<Mixer>& r) {
  r.add<Sdm>("sdm");
}

}  // namespace sennit::mixers
