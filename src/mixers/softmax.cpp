// Attention Is All You Need (Vaswani et al., arXiv:1706.03762), equation 1, with grouped keys and values (Ainslie et al.,
// arXiv:2305.13245) and a sliding window (Beltagy et al., arXiv:2004.05150):
//   y_i = W_o concat_h sum_j softmax_j(q_ih . k_jh / sqrt(K)) v_jh
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include <fmt/ranges.h>

#include "mixers/mixer.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "ops/norms.h"
#include "positions/position.h"
#include "sequence/attention.h"
#include "tensor/pooled.h"

namespace sennit::mixers {
namespace {

struct Softmax : Mixer {
  struct Options {
    int64_t heads = 4, kv_heads = 0, head_dim = 0, window = 0;
    bool qk_norm = false, bias = false, out_bias = false, gate = false;
    double norm_epsilon = 1e-6;
    Json position = "rope";
    Fields fields() {
      return {{"heads", &heads, "query heads", {.min = 1, .max = 1024}},
              {"kv_heads", &kv_heads, "key-value heads, a divisor of heads; 0: as many", {.min = 0, .max = 1024}},
              {"head_dim", &head_dim, "numbers a head; 0: d_model / heads", {.min = 0, .max = 4096}},
              {"window", &window, "a token sees itself and the window - 1 before it; 0: all", {.min = 0, .max = 1e9}},
              {"qk_norm", &qk_norm, "normalise each query and key head by its root mean square"},
              {"norm_epsilon", &norm_epsilon, "added to their mean square", {.min = 0, .max = 1}},
              {"bias", &bias, "shifts in the query, key and value maps"},
              {"out_bias", &out_bias, "a shift in the output map"},
              {"gate", &gate, "multiply each head's output by sigmoid(W_g x), so that a head can say nothing (arXiv:2306.12929)"},
              {"position", &position, "how order is told: " + fmt::format("{}", fmt::join(positions::registry().names(), ", "))}};
    }
  };
  static Info info() {
    return {.title = "Softmax attention",
            .paper = "arXiv:1706.03762",
            .equation = "y_i = sum_j softmax_j(q_i k_j / sqrt(K)) v_j",
            .cost = "O(n^2 d), O(n w d) with a window w",
            .patterns = {Pattern::causal, Pattern::bidirectional, Pattern::cross},
            .settings = {{"grouped queries", R"({"heads": 4, "kv_heads": 2, "qk_norm": true})"},
                         {"sliding window", R"({"window": 7, "bias": true, "out_bias": true})"},
                         {"linear biases", R"({"position": "alibi"})"},
                         {"gated", R"({"gate": true})"},
                         {"no position", R"({"position": "none"})"}}};
  }

  Softmax(const Dims& d, Options o, Rng rng) : options(o) {
    if (!options.kv_heads) options.kv_heads = options.heads;
    if (!options.head_dim) {
      if (d.d_model % options.heads) fail({"softmax", fmt::format("heads that divide d_model = {}", d.d_model), fmt::format("heads = {}", options.heads)});
      options.head_dim = d.d_model / options.heads;
    }
    if (options.heads % options.kv_heads)
      fail({"softmax", fmt::format("kv_heads that divide heads = {}", options.heads), fmt::format("kv_heads = {}", options.kv_heads)});
    position = positions::registry().make(o.position, {options.heads, options.head_dim}, rng, "position");
    slopes = position->slopes();
    const int64_t rows = options.heads * options.head_dim, kv_rows = options.kv_heads * options.head_dim;
    q = Linear(d.d_model, rows, rng.fork("q"), {.bias = o.bias});
    k = Linear(d.d_model, kv_rows, rng.fork("k"), {.bias = o.bias});
    v = Linear(d.d_model, kv_rows, rng.fork("v"), {.bias = o.bias});
    out = Linear(rows, d.d_model, rng.fork("out"), {.bias = o.out_bias, .scale = d.out_scale});
    if (o.gate) gate = Linear(d.d_model, rows, rng.fork("gate"), {.bias = true});
    if (o.qk_norm)
      for (Parameter* norm : {&q_norm, &k_norm}) {
        norm->init(Tensor::full({options.head_dim}, 1));
        norm->decays = false;
      }
  }

  void visit(const ParameterVisitor& p) override {
    p("q", q);
    p("k", k);
    p("v", v);
    p("out", out);
    p("gate", gate);
    p("q_norm", q_norm);
    p("k_norm", k_norm);
  }

  StateSpec state_spec() const override {
    const Shape row{1, options.kv_heads * options.head_dim};
    const Growth growth = options.window ? Growth::window : Growth::per_token;
    return {{"k", row, growth, options.window}, {"v", row, growth, options.window}};
  }

  Var heads_of(Linear& map, const Parameter& norm, int64_t heads, const Var& x, std::span<const Segment> segments, const Context& c) {
    Var y = map(x, c);
    if (norm.var) y = rmsnorm(y, norm, {.groups = heads, .epsilon = static_cast<float>(options.norm_epsilon)});
    return position->turn(y, segments, heads);
  }

  Var forward(const Var& x, const Batch& batch) override {
    check_pattern<Softmax>("softmax", batch.pattern);
    const Context& c = *batch.context;
    const bool cross = batch.pattern == Pattern::cross;
    const Var& source = cross ? *batch.memory : x;
    const auto key_segments = cross ? batch.memory_segments : batch.segments;
    const Var queries = heads_of(q, q_norm, options.heads, x, batch.segments, c);
    Pooled<Var> keys = {heads_of(k, k_norm, options.kv_heads, source, key_segments, c)};
    Pooled<Var> values = {v(source, c)};
    Pooled<AttentionSegment> plan;
    for (size_t i = 0; i < batch.segments.size(); ++i) {
      const Segment& s = batch.segments[i];
      LayerState* state = cross ? nullptr : batch.state(s);
      AttentionSegment a{s.begin, s.length, 0, key_segments[i].begin, key_segments[i].length, s.position - key_segments[i].position};
      if (state) {
        a.source = keys.size();
        keys.push_back(state->append(0, rows(keys[0], s.begin, s.length), options.window));
        values.push_back(state->append(1, rows(values[0], s.begin, s.length), options.window));
        a.key_begin = 0;
        a.keys = keys.back().rows();
        a.offset = a.keys - s.length;
      }
      plan.push_back(a);
    }
    const Var core = attention(queries, keys, values, plan,
                               {.heads = options.heads,
                                .kv_heads = options.kv_heads,
                                .scale = scale(),
                                .causal = batch.pattern == Pattern::causal,
                                .window = batch.pattern == Pattern::causal ? options.window : 0,
                                .slopes = slopes});
    return output(x, core, c);
  }

  float scale() const { return 1 / std::sqrt(static_cast<float>(options.head_dim)); }

  int64_t flops(int64_t n) const override {
    const int64_t d = out.out(), rows = options.heads * options.head_dim, kv_rows = options.kv_heads * options.head_dim;
    const int64_t pairs = visible_pairs({0, n, 0, 0, n, 0}, true, options.window);
    return 2 * n * d * ((options.gate ? 3 : 2) * rows + 2 * kv_rows) + 4 * pairs * rows;
  }

  naive::Matrix naive_heads(const NaiveRun& run, const naive::Matrix& x, const std::string& name, int64_t heads, int64_t first) const {
    naive::Matrix y = naive::linear(x, run.w, name);
    if (options.qk_norm) y = naive::rmsnorm(y, heads, options.norm_epsilon, &run.w.at(name + "_norm"));
    for (int64_t i = 0; i < y.rows; ++i)
      for (int64_t h = 0; h < heads; ++h) position->naive_turn(&y(i, h * options.head_dim), first + i);
    return y;
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const bool cross = run.pattern == Pattern::cross, causal = run.pattern == Pattern::causal;
    const naive::Matrix& source = cross ? *run.memory : run.x;
    const naive::Matrix qs = naive_heads(run, run.x, "q", options.heads, run.position);
    naive::Matrix ks = naive_heads(run, source, "k", options.kv_heads, cross ? 0 : run.position);
    naive::Matrix vs = naive::linear(source, run.w, "v");
    if (!cross) {
      for (auto [name, m] : {std::pair{"k", &ks}, std::pair{"v", &vs}}) {
        naive::Matrix& kept = run.state[name];
        kept.cols = m->cols;
        kept.a.insert(kept.a.end(), m->a.begin(), m->a.end());
        kept.rows += m->rows;
        *m = kept;
        const int64_t drop = options.window ? rows_dropped(kept.rows, options.window) : 0;
        kept.a.erase(kept.a.begin(), kept.a.begin() + drop * kept.cols);
        kept.rows -= drop;
      }
    }
    const int64_t dim = options.head_dim, first_key = cross ? 0 : run.position + run.x.rows - ks.rows;
    naive::Matrix core(run.x.rows, options.heads * dim);
    for (int64_t i = 0; i < run.x.rows; ++i)
      for (int64_t h = 0; h < options.heads; ++h) {
        const int64_t g = h * options.kv_heads / options.heads;
        double top = -INFINITY, total = 0;
        std::vector<double> score(ks.rows, -INFINITY);
        for (int64_t j = 0; j < ks.rows; ++j) {
          const int64_t distance = run.position + i - (first_key + j);
          if (causal && (distance < 0 || (options.window && distance >= options.window))) continue;
          double s = 0;
          for (int64_t p = 0; p < dim; ++p) s += qs(i, h * dim + p) * ks(j, g * dim + p);
          score[j] = s / std::sqrt(static_cast<double>(dim)) - (slopes.empty() ? 0 : slopes[h] * std::fabs(static_cast<double>(distance)));
          top = std::fmax(top, score[j]);
        }
        for (double& s : score) total += s = std::isinf(top) ? 0 : std::exp(s - top);
        for (int64_t j = 0; j < ks.rows && total > 0; ++j)
          for (int64_t p = 0; p < dim; ++p) core(i, h * dim + p) += score[j] / total * vs(j, g * dim + p);
      }
    if (options.gate) {
      const naive::Matrix g = naive::linear(run.x, run.w, "gate");
      for (size_t i = 0; i < core.a.size(); ++i) core.a[i] *= naive::sigmoid(g.a[i]);
    }
    return naive::linear(core, run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const Segment whole[] = {{0, x.rows(), 0, nullptr}};
    const Tensor qs = heads_of(q, q_norm, options.heads, x, whole, c).value();
    const Tensor ks = heads_of(k, k_norm, options.kv_heads, x, whole, c).value();
    const int64_t n = x.rows(), dim = options.head_dim, times = options.heads / options.kv_heads;
    ImplicitMatrix m{Tensor::zeros({options.heads, n, n}), repeat_groups(v(x, c), options.kv_heads, times).value()};
    for (int64_t h = 0; h < options.heads; ++h)
      for (int64_t i = 0; i < n; ++i) {
        float* row = m.weights.data() + (h * n + i) * n;
        const int64_t first = options.window ? std::max<int64_t>(0, i - options.window + 1) : 0;
        double top = -INFINITY, total = 0;
        for (int64_t j = first; j <= i; ++j) {
          double s = 0;
          for (int64_t p = 0; p < dim; ++p) s += double{qs.data()[(i * options.heads + h) * dim + p]} * ks.data()[(j * options.kv_heads + h / times) * dim + p];
          row[j] = static_cast<float>(s * scale() - (slopes.empty() ? 0 : slopes[h] * static_cast<float>(i - j)));
          top = std::fmax(top, row[j]);
        }
        for (int64_t j = first; j <= i; ++j) total += row[j] = static_cast<float>(std::exp(row[j] - top));
        for (int64_t j = first; j <= i; ++j) row[j] = static_cast<float>(row[j] / total);
      }
    return m;
  }
  Var output(const Var& x, const Var& core, const Context& c) override { return out(options.gate ? multiply(core, sigmoid(gate(x, c))) : core, c); }

  Options options;
  std::unique_ptr<Position> position;
  std::vector<float> slopes;
  Linear q, k, v, out, gate;
  Parameter q_norm, k_norm;
};

}  // namespace

void register_softmax(Registry<Mixer>& r) { r.add<Softmax>("softmax"); }

}  // namespace sennit::mixers
