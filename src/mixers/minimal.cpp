// Reducing the Transformer Architecture to a Minimum (Bermeitinger et al., arXiv:2410.13732), sections 3 to 5: one
// matrix in the place of queries' and keys', a symmetric one, and no maps of values and outputs, or one for both:
//   s_ij = x_i^T W_h x_j / sqrt(K)   separate: W_h = Q_h^T K_h,   collapsed: W_h itself,   symmetric: W_h = B_h^T B_h
//   y_i = W_o concat_h softmax_j(s_ij) V_h x_j,   or without values the mean over heads of softmax_j(s_ij) x_j
#include <cmath>

#include "mixers/heads.h"
#include "nn/init.h"
#include "nn/naive_sequence.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "sequence/seen.h"

namespace sennit::mixers {
namespace {

struct Minimal : Mixer {
  struct Options {
    int64_t heads = 4;
    std::string scores = "collapsed";
    bool values = false, outputs = true;
    Fields fields() {
      return {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
              {"scores", &scores, "what scores are made from", {.choices = {"separate", "collapsed", "symmetric"}}},
              {"values", &values, "map values and outputs; false: tokens themselves are averaged"},
              {"outputs", &outputs, "where values are mapped, outputs too; false: one matrix does for both"}};
    }
  };
  static Info info() {
    return {.title = "Minimal attention",
            .paper = "arXiv:2410.13732",
            .equation = "y_i = mean_h softmax_j(x_i^T W_h x_j / sqrt(K)) x_j",
            .cost = "O(n^2 d heads)",
            .patterns = {Pattern::causal, Pattern::bidirectional, Pattern::cross},
            .settings = {{"symmetric", R"({"scores": "symmetric"})"},
                         {"collapsed with values", R"({"values": true})"},
                         {"collapsed values and outputs", R"({"values": true, "outputs": false, "heads": 1})"},
                         {"separate", R"({"scores": "separate", "heads": 2})"}}};
  }
  Minimal(const Dims& d, const Options& o, Rng rng)
      : options(o), width(d.d_model), dim(head_dim("minimal", width, o.heads)) {
    const bool whole = o.scores == "collapsed";
    q = Linear(width, o.heads * key_dim(), rng.fork("q"),
               {.scale = whole ? std::sqrt(static_cast<double>(dim) / static_cast<double>(width)) : 1});
    if (o.scores == "separate") k = Linear(width, width, rng.fork("k"));
    if (!o.values) return;
    v = Linear(width, width, rng.fork("v"));
    if (o.outputs) out = Linear(width, width, rng.fork("out"), {.scale = d.out_scale});
  }
  void visit(const ParameterVisitor& p) override {
    p("q", q);
    p("k", k);
    p("v", v);
    p("out", out);
  }
  int64_t key_dim() const { return options.scores == "collapsed" ? width : dim; }
  bool tokens_alone() const { return options.scores == "collapsed" && !options.values; }
  StateSpec state_spec() const override {
    StateSpec s = {{"k", {1, options.scores == "collapsed" ? width : options.heads * dim}, Growth::per_token}};
    if (!tokens_alone()) s.push_back({"v", {1, width}, Growth::per_token});
    return s;
  }
  float scale_of_scores() const { return 1 / std::sqrt(static_cast<float>(dim)); }

  Var keys(const Var& x, const Context& c) {
    if (options.scores == "collapsed") return x;
    return options.scores == "separate" ? k(x, c) : q(x, c);
  }
  // Rows of a part, each head's copy side by side.
  Pooled<Var> for_heads(std::span<const Var> rows, bool shared) const {
    Pooled<Var> all;
    for (const Var& r : rows) all.push_back(shared ? repeat_groups(r, 1, options.heads) : r);
    return all;
  }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Minimal>("minimal", batch);
    const Context& c = *batch.context;
    const Var& source = looked_at(x, batch);
    const Var ks = keys(source, c), vs = options.values ? v(source, c) : source;
    const SeenRows seen = tokens_alone() ? seen_rows({ks}, batch, 0) : seen_rows({ks, vs}, batch, 0);
    const auto values = seen.part(tokens_alone() ? 0 : 1);
    const AttentionOptions view{.heads = options.heads,
                                .kv_heads = tokens_alone() ? 1 : options.heads,
                                .scale = scale_of_scores(),
                                .causal = batch.pattern == Pattern::causal};
    if (tokens_alone()) return output(x, attention(q(x, c), values, values, seen.segments, view), c);
    return output(x,
                  attention(q(x, c), for_heads(seen.part(0), options.scores == "collapsed"),
                            for_heads(values, !options.values), seen.segments, view),
                  c);
  }
  Var output(const Var&, const Var& core, const Context& c) override {
    if (options.values) return options.outputs ? out(core, c) : core;
    Var sum = columns(core, 0, width);
    for (int64_t h = 1; h < options.heads; ++h) sum = sum + columns(core, h * width, width);
    return scale(sum, 1 / static_cast<float>(options.heads));
  }
  int64_t flops(int64_t n) const override { return pattern_flops(Pattern::causal, n, 0); }
  int64_t pattern_flops(Pattern pattern, int64_t n, int64_t memory) const override {
    const int64_t seen = pattern == Pattern::cross ? memory : n,
                  pairs = pattern == Pattern::causal ? n * (n + 1) / 2 : n * seen;
    const int64_t maps = n * q.out() + (options.scores == "collapsed" ? 0 : seen * width) +
                         (options.values ? (seen + (options.outputs ? n : 0)) * width : 0);
    return 2 * width * maps + 2 * pairs * options.heads * (key_dim() + (options.values ? dim : width)) +
           (options.values ? 0 : n * width * options.heads);
  }

  naive::Matrix naive_keys(const naive::Matrix& x, const naive::Weights& w) const {
    return options.scores == "collapsed" ? x : naive::linear(x, w, options.scores == "separate" ? "k" : "q");
  }
  naive::Matrix naive(NaiveRun& run) const override {
    const bool cross = run.pattern == Pattern::cross;
    const naive::Matrix& source = cross ? *run.memory : run.x;
    naive::Matrix ks = naive_keys(source, run.w), vs = options.values ? naive::linear(source, run.w, "v") : source;
    if (!cross) {
      ks = naive::with_kept(run.state["k"], ks);
      if (tokens_alone())
        vs = ks;
      else
        vs = naive::with_kept(run.state["v"], vs);
    }
    const naive::Matrix qs = naive::linear(run.x, run.w, "q");
    const int64_t offset = ks.rows - run.x.rows, f = key_dim();
    naive::Matrix core(run.x.rows, width);
    for (int64_t i = 0; i < core.rows; ++i)
      for (int64_t h = 0; h < options.heads; ++h) {
        std::vector<double> weights(ks.rows);
        for (int64_t j = 0; j < ks.rows; ++j) {
          for (int64_t p = 0; p < f; ++p)
            weights[j] += qs(i, h * f + p) * ks(j, options.scores == "collapsed" ? p : h * f + p) /
                          std::sqrt(static_cast<double>(dim));
          if (run.pattern == Pattern::causal && j > i + offset) weights[j] = -INFINITY;
        }
        naive::softmax(weights);
        const double share = options.values ? 1 : 1 / static_cast<double>(options.heads);
        const int64_t first = options.values ? h * dim : 0, end = options.values ? first + dim : width;
        for (int64_t j = 0; j < ks.rows; ++j)
          for (int64_t c = first; c < end; ++c) core(i, c) += share * weights[j] * vs(j, c);
      }
    return options.values && options.outputs ? naive::linear(core, run.w, "out") : core;
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const int64_t n = x.rows(), f = key_dim();
    const Tensor qs = q(x, c).value(), ks = keys(x, c).value();
    ImplicitMatrix m{Tensor::zeros({options.heads, n, n}),
                     options.values ? v(x, c).value() : repeat_groups(x, 1, options.heads).value()};
    for (int64_t h = 0; h < options.heads; ++h)
      for (int64_t i = 0; i < n; ++i) {
        std::vector<double> weights(i + 1);
        for (int64_t j = 0; j <= i; ++j)
          for (int64_t p = 0; p < f; ++p)
            weights[j] += double{qs.data()[i * options.heads * f + h * f + p]} *
                          ks.data()[j * ks.row_size() + (options.scores == "collapsed" ? p : h * f + p)] *
                          scale_of_scores();
        naive::softmax(weights);
        for (int64_t j = 0; j <= i; ++j) m.weights.data()[(h * n + i) * n + j] = static_cast<float>(weights[j]);
      }
    return m;
  }

  Options options;
  int64_t width, dim;
  Linear q, k, v, out;
};

}  // namespace

void register_minimal(Registry<Mixer>& r) {
  r.add<Minimal>("minimal");
}

}  // namespace sennit::mixers
