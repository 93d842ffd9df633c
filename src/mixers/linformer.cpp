// Linformer: Self-Attention with Linear Complexity (Wang et al., arXiv:2006.04768), equation 7:
//   y = W_o concat_h softmax(Q_h (E_h K_h)^T / sqrt(K)) (F_h V_h)
// E and F [k, n] mix the rows of keys and values to k summaries, so that every token sees all others: it cannot be
// causal. Their columns are learned for up to `length` tokens.
#include <cmath>

#include "mixers/heads.h"
#include "nn/init.h"
#include "nn/naive_sequence.h"
#include "ops/layout.h"
#include "ops/products.h"
#include "sequence/seen.h"

namespace sennit::mixers {
namespace {

struct Linformer : Heads {
  struct Options {
    int64_t heads = 4, summaries = 32, length = 2048;
    std::string share = "heads";
    Fields fields() {
      return {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
              {"summaries", &summaries, "rows that keys and values are mixed to", {.min = 1, .max = 65536}},
              {"length", &length, "the longest sequence", {.min = 1, .max = 1e7}},
              {"share",
               &share,
               "what shares a mixing matrix: nothing, heads, keys, values and heads, or those of all blocks too",
               {.choices = {"none", "heads", "all", "layers"}}}};
    }
  };
  static Info info() {
    return {.title = "Linformer",
            .paper = "arXiv:2006.04768",
            .equation = "y = softmax(Q (E K)^T / sqrt(K)) (F V)",
            .cost = "O(n d summaries)",
            .patterns = {Pattern::bidirectional, Pattern::cross},
            .no_state = "summaries mix all tokens",
            .settings = {{"a matrix a head", R"({"summaries": 5, "share": "none"})"},
                         {"one matrix", R"({"summaries": 8, "share": "all"})"},
                         {"one for all blocks", R"({"summaries": 6, "share": "layers"})"}}};
  }

  Linformer(const Dims& d, const Options& o, Rng rng) : Heads("linformer", d, o.heads, rng), options(o) {
    // A mean of about 1 / summaries of the tokens.
    const Shape shape{o.summaries * (o.share == "none" ? o.heads : 1), o.length};
    const double deviation = 1 / std::sqrt(static_cast<double>(o.summaries));
    std::shared_ptr<Parameter>& of_all = d.shared && o.share == "layers" ? (*d.shared)["linformer.e"] : e;
    owns = !of_all;
    if (owns) of_all = std::make_shared<Parameter>(), of_all->init(normal_init(shape, deviation, rng.fork("e")));
    e = of_all;
    if (e->value().shape() != shape)
      fail({"linformer", "the same summaries and length in all blocks that share a matrix",
            fmt::format("{} after {}", shape.str(), e->value().shape().str())});
    if (separate()) f.init(normal_init(shape, deviation, rng.fork("f")));
  }
  bool separate() const { return options.share == "none" || options.share == "heads"; }
  void visit(const ParameterVisitor& p) override {
    Heads::visit(p);
    if (owns) p("e", *e);
    p("f", f);
  }
  StateSpec state_spec() const override { return {}; }
  int64_t longest() const override { return options.length; }

  const Parameter& value_mix() const { return separate() ? f : *e; }
  void check_length(int64_t n) const {
    if (n > options.length)
      fail({"linformer", fmt::format("at most length = {} tokens", options.length), fmt::format("{}", n)});
  }
  // The summaries of one sequence's rows [summaries, heads dim].
  Var summarised(const Var& mix, const Var& x, const Segment& s, const Context& c) const {
    if (s.length == 0) return Var(Tensor::zeros({options.summaries, width()}));
    const Var weights = columns(mix, 0, s.length), all = rows(x, s.begin, s.length);
    const MatmulOptions product{.precision = c.precision};
    if (options.share != "none") return matmul(weights, all, product);
    std::vector<Var> parts;
    for (int64_t h = 0; h < heads; ++h)
      parts.push_back(
          matmul(rows(weights, h * options.summaries, options.summaries), columns(all, h * dim, dim), product));
    return concat_columns(parts);
  }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Linformer>("linformer", batch);
    const Context& c = *batch.context;
    const Var &source = looked_at(x, batch), ks = k(source, c), vs = v(source, c);
    Pooled<Var> keys, values;
    Pooled<AttentionSegment> plan;
    for (size_t i = 0; i < batch.segments.size(); ++i) {
      const Segment &s = batch.segments[i], &seen = looked_at_segments(batch)[i];
      check_length(seen.length);
      keys.push_back(summarised(*e, ks, seen, c));
      values.push_back(summarised(value_mix(), vs, seen, c));
      plan.push_back({s.begin, s.length, i, 0, options.summaries, 0});
    }
    return output(
        x,
        attention(q(x, c), keys, values, plan, {.heads = heads, .kv_heads = heads, .scale = scale(), .causal = false}),
        c);
  }
  float scale() const { return 1 / std::sqrt(static_cast<float>(dim)); }
  int64_t flops(int64_t n) const override { return pattern_flops(Pattern::bidirectional, n, 0); }
  int64_t pattern_flops(Pattern pattern, int64_t n, int64_t memory) const override {
    const int64_t seen = pattern == Pattern::cross ? memory : n;
    return map_flops(n, seen) + 4 * options.summaries * width() * (n + seen);
  }

  naive::Matrix naive_summaries(const naive::Matrix& mix, const naive::Matrix& x) const {
    naive::Matrix y(options.summaries, width());
    for (int64_t i = 0; i < y.rows; ++i)
      for (int64_t c = 0; c < y.cols; ++c)
        for (int64_t t = 0; t < x.rows; ++t)
          y(i, c) += mix(i + (options.share == "none" ? c / dim * options.summaries : 0), t) * x(t, c);
    return y;
  }
  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix& source = run.pattern == Pattern::cross ? *run.memory : run.x;
    const naive::Matrix keys = naive_summaries(run.w.at("e"), naive::linear(source, run.w, "k"));
    const naive::Matrix values = naive_summaries(run.w.at(separate() ? "f" : "e"), naive::linear(source, run.w, "v"));
    const naive::Matrix core =
        naive::attention(naive::linear(run.x, run.w, "q"), keys, values,
                         {.heads = heads, .scale = 1 / std::sqrt(static_cast<double>(dim)), .causal = false});
    return naive::linear(core, run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const int64_t n = x.rows(), m = options.summaries;
    const Segment whole{0, n, 0, nullptr};
    const Tensor qs = q(x, c).value(), keys = summarised(*e, k(x, c), whole, c).value(), mix = value_mix().value();
    ImplicitMatrix matrix{Tensor::zeros({heads, n, n}), v(x, c).value()};
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < n; ++i) {
        std::vector<double> weights(static_cast<size_t>(m));
        for (int64_t j = 0; j < m; ++j) {
          for (int64_t p = h * dim; p < (h + 1) * dim; ++p)
            weights[j] += double{qs.data()[i * width() + p]} * keys.data()[j * width() + p];
          weights[j] *= scale();
        }
        naive::softmax(weights);
        for (int64_t j = 0; j < m; ++j)
          for (int64_t t = 0; t < n; ++t)
            matrix.weights.data()[(h * n + i) * n + t] +=
                static_cast<float>(weights[j]) *
                mix.data()[(j + (options.share == "none" ? h * m : 0)) * options.length + t];
      }
    return matrix;
  }

  Options options;
  std::shared_ptr<Parameter> e;  // perhaps another block's
  bool owns;
  Parameter f;
};

}  // namespace

void register_linformer(Registry<Mixer>& r) {
  r.add<Linformer>("linformer");
}

}  // namespace sennit::mixers
