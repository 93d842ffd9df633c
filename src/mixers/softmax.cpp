// Attention Is All You Need (Vaswani et al., arXiv:1706.03762), equation 1, with grouped keys and values (Ainslie et al.,
// arXiv:2305.13245) and a sliding window (Beltagy et al., arXiv:2004.05150):
//   y_i = W_o concat_h sum_j softmax_j(q_ih . k_jh / sqrt(K)) v_jh
// Settings put another map from scores to weights in the place of the softmax (kernels/attention.h has the equations and papers), or
// cut the sequence into blocks that do not see each other (TransNormer's DiagAttention, Qin et al., arXiv:2210.10340).
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
#include "sequence/seen.h"

namespace sennit::mixers {
namespace {

struct Softmax : Mixer {
  struct Options {
    int64_t heads = 4, kv_heads = 0, head_dim = 0, window = 0, block = 0, power = 2;
    double temperature = 1, clip_low = 4, clip_high = 1, count_bias = 1, epsilon = 1e-6, norm_epsilon = 1e-6;
    std::string score = "softmax";
    bool qk_norm = false, bias = false, out_bias = false, gate = false;
    Json position = "rope";
    Fields fields() {
      return {{"heads", &heads, "query heads", {.min = 1, .max = 1024}},
              {"kv_heads", &kv_heads, "key-value heads, a divisor of heads; 0: as many", {.min = 0, .max = 1024}},
              {"head_dim", &head_dim, "numbers a head; 0: d_model / heads", {.min = 0, .max = 4096}},
              {"window", &window, "a token sees itself and the window - 1 before it; 0: all", {.min = 0, .max = 1e9}},
              {"block", &block, "a token sees only its own block of this many positions; 0: all", {.min = 0, .max = 1e9}},
              {"score", &score, "the map from scores to weights", {.choices = {"softmax", "clipped", "sigmoid", "power"}}},
              {"temperature", &temperature, "divides the scores (arXiv:2410.24200)", {.min = 1e-3, .max = 1e3}},
              {"clip_low", &clip_low, "clipped: weights under about this part of the even share are exactly 0", {.min = 0, .max = 1e6}},
              {"clip_high", &clip_high, "clipped: what a softmax of 1 is stretched to", {.min = 1, .max = 10}},
              {"count_bias", &count_bias, "sigmoid: the scores less this times the logarithm of the keys seen", {.min = 0, .max = 10}},
              {"power", &power, "power: an even number", {.min = 2, .max = 16}},
              {"epsilon", &epsilon, "power: added to the sum of powers", {.min = 0, .max = 1}},
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
                         {"clipped softmax", R"({"score": "clipped", "clip_high": 1.03})"},
                         {"sigmoid", R"({"score": "sigmoid", "position": "alibi"})"},
                         {"power softmax", R"({"score": "power", "power": 4})"},
                         {"diagonal blocks", R"({"block": 9, "position": "none"})"},
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
    if (options.power % 2) fail({"softmax", "an even power", fmt::format("{}", options.power)});
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
    const Growth growth = reach() ? Growth::window : Growth::per_token;
    return {{"k", row, growth, reach()}, {"v", row, growth, reach()}};
  }
  // How many tokens back, itself included, a token may see; 0: all.
  int64_t reach() const { return options.window && options.block ? std::min(options.window, options.block) : options.window + options.block; }

  Var heads_of(Linear& map, const Parameter& norm, int64_t heads, const Var& x, std::span<const Segment> segments, const Context& c) {
    Var y = map(x, c);
    if (norm.var) y = rmsnorm(y, norm, {.groups = heads, .epsilon = static_cast<float>(options.norm_epsilon)});
    return position->turn(y, segments, heads);
  }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Softmax>("softmax", batch);
    const Context& c = *batch.context;
    const bool cross = batch.pattern == Pattern::cross;
    const Var& source = looked_at(x, batch);
    const Var queries = heads_of(q, q_norm, options.heads, x, batch.segments, c);
    const Var keys = heads_of(k, k_norm, options.kv_heads, source, looked_at_segments(batch), c);
    const SeenRows seen = seen_rows({keys, v(source, c)}, batch, 0, reach());
    const Var core = attention(queries, seen.part(0), seen.part(1), seen.segments,
                               {.heads = options.heads,
                                .kv_heads = options.kv_heads,
                                .scale = scale(),
                                .causal = batch.pattern == Pattern::causal,
                                .window = batch.pattern == Pattern::causal ? options.window : 0,
                                .block = cross ? 0 : options.block,
                                .slopes = slopes,
                                .map = map(),
                                .clip_low = static_cast<float>(options.clip_low),
                                .clip_high = static_cast<float>(options.clip_high),
                                .count_bias = static_cast<float>(options.count_bias),
                                .epsilon = static_cast<float>(options.epsilon),
                                .power = options.power});
    return output(x, core, c);
  }

  ScoreMap map() const {
    const std::string& s = options.score;
    return s == "clipped" ? ScoreMap::clipped : s == "sigmoid" ? ScoreMap::sigmoid : s == "power" ? ScoreMap::power : ScoreMap::softmax;
  }
  float scale() const { return static_cast<float>(1 / (options.temperature * std::sqrt(static_cast<double>(options.head_dim)))); }

  int64_t flops(int64_t n) const override { return pattern_flops(Pattern::causal, n, 0); }
  int64_t pattern_flops(Pattern pattern, int64_t n, int64_t memory) const override {
    const bool causal = pattern == Pattern::causal, cross = pattern == Pattern::cross;
    const int64_t rows = options.heads * options.head_dim, kv_rows = options.kv_heads * options.head_dim, keys = cross ? memory : n;
    const int64_t pairs = visible_pairs({0, n, 0, 0, keys, 0}, causal, causal ? options.window : 0, cross ? 0 : options.block);
    return 2 * out.out() * (n * (options.gate ? 3 : 2) * rows + keys * 2 * kv_rows) + 4 * pairs * rows;
  }

  naive::Matrix naive_heads(const NaiveRun& run, const naive::Matrix& x, const std::string& name, int64_t heads, int64_t first) const {
    naive::Matrix y = naive::linear(x, run.w, name);
    if (options.qk_norm) y = naive::rmsnorm(y, heads, options.norm_epsilon, &run.w.at(name + "_norm"));
    for (int64_t i = 0; i < y.rows; ++i)
      for (int64_t h = 0; h < heads; ++h) position->naive_turn(&y(i, h * options.head_dim), first + i);
    return y;
  }

  // The weights of one query from its scores, -inf for what it does not see; in place.
  void weigh(std::vector<double>& scores) const {
    const bool powers = options.score == "power", sigmoids = options.score == "sigmoid", clipped = options.score == "clipped";
    double top = -INFINITY, total = 0, count = 0;
    for (const double s : scores)
      if (s != -INFINITY) top = std::fmax(top, powers ? std::fabs(s) : s), ++count;
    const double p = static_cast<double>(options.power), low = -options.clip_low / count;
    for (double& s : scores) {
      if (s == -INFINITY || (powers && top == 0)) s = 0;
      else if (sigmoids) s = naive::sigmoid(s - options.count_bias * std::log(count));
      else s = powers ? std::pow(s / top, p) : std::exp(s - top);
      total += s;
    }
    if (sigmoids || total == 0) return;
    if (powers) total += options.epsilon / std::pow(top, p);
    for (double& s : scores) {
      s /= total;
      if (clipped) s = std::clamp((options.clip_high - low) * s + low, 0.0, 1.0);
    }
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
        const int64_t drop = reach() ? rows_dropped(kept.rows, reach()) : 0;
        kept.a.erase(kept.a.begin(), kept.a.begin() + drop * kept.cols);
        kept.rows -= drop;
      }
    }
    const int64_t dim = options.head_dim, first_key = cross ? 0 : run.position + run.x.rows - ks.rows;
    naive::Matrix core(run.x.rows, options.heads * dim);
    for (int64_t i = 0; i < run.x.rows; ++i)
      for (int64_t h = 0; h < options.heads; ++h) {
        const int64_t g = h * options.kv_heads / options.heads;
        std::vector<double> score(ks.rows, -INFINITY);
        for (int64_t j = 0; j < ks.rows; ++j) {
          const int64_t distance = run.position + i - (first_key + j);
          if (causal && (distance < 0 || (options.window && distance >= options.window))) continue;
          if (!cross && options.block && (run.position + i) / options.block != (first_key + j) / options.block) continue;
          double s = 0;
          for (int64_t p = 0; p < dim; ++p) s += qs(i, h * dim + p) * ks(j, g * dim + p);
          score[j] = s / std::sqrt(static_cast<double>(dim)) / options.temperature - (slopes.empty() ? 0 : slopes[h] * std::fabs(static_cast<double>(distance)));
        }
        weigh(score);
        for (int64_t j = 0; j < ks.rows; ++j)
          for (int64_t p = 0; p < dim; ++p) core(i, h * dim + p) += score[j] * vs(j, g * dim + p);
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
        int64_t first = options.window ? std::max<int64_t>(0, i - options.window + 1) : 0;
        if (options.block) first = std::max(first, i / options.block * options.block);
        std::vector<double> row(i + 1, -INFINITY);
        for (int64_t j = first; j <= i; ++j) {
          double s = 0;
          for (int64_t p = 0; p < dim; ++p) s += double{qs.data()[(i * options.heads + h) * dim + p]} * ks.data()[(j * options.kv_heads + h / times) * dim + p];
          row[j] = s * scale() - (slopes.empty() ? 0 : slopes[h] * static_cast<double>(i - j));
        }
        weigh(row);
        for (int64_t j = 0; j <= i; ++j) m.weights.data()[(h * n + i) * n + j] = static_cast<float>(row[j]);
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
