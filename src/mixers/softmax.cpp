// Attention Is All You Need (Vaswani et al., arXiv:1706.03762), equation 1, with grouped keys and values (Ainslie et
// al., arXiv:2305.13245) and a sliding window (Beltagy et al., arXiv:2004.05150):
//   y_i = W_o concat_h sum_j softmax_j(q_ih . k_jh / sqrt(K)) v_jh
// Settings put another map from scores to weights in the place of the softmax (kernels/attention.h has the equations
// and papers), or cut the sequence into blocks that do not see each other (TransNormer's DiagAttention, Qin et al.,
// arXiv:2210.10340).
#include <algorithm>
#include <cmath>

#include "mixers/head_settings.h"
#include "mixers/prefill.h"
#include "ops/arithmetic.h"
#include "ops/maps.h"

namespace sennit::mixers {
namespace {

struct Softmax : Mixer {
  struct Options : HeadSettings {
    int64_t window = 0, block = 0, power = 2;
    double temperature = 1, clip_low = 4, clip_high = 1, count_bias = 1, epsilon = 1e-6;
    std::string score = "softmax";
    bool gate = false;
    Json prefill = "none";
    Fields fields() {
      Fields all = HeadSettings::fields();
      const Fields own = {
          {"window", &window, "a token sees itself and the window - 1 before it; 0: all", {.min = 0, .max = 1e9}},
          {"block", &block, "a token sees only its own block of this many positions; 0: all", {.min = 0, .max = 1e9}},
          {"score", &score, "the map from scores to weights", {.choices = {"softmax", "clipped", "sigmoid", "power"}}},
          {"temperature", &temperature, "divides the scores (arXiv:2410.24200)", {.min = 1e-3, .max = 1e3}},
          {"clip_low",
           &clip_low,
           "clipped: weights under about this part of the even share are exactly 0",
           {.min = 0, .max = 1e6}},
          {"clip_high", &clip_high, "clipped: what a softmax of 1 is stretched to", {.min = 1, .max = 10}},
          {"count_bias",
           &count_bias,
           "sigmoid: the scores less this times the logarithm of the keys seen",
           {.min = 0, .max = 10}},
          {"power", &power, "power: an even number", {.min = 2, .max = 16}},
          {"epsilon", &epsilon, "power: added to the sum of powers", {.min = 0, .max = 1}},
          {"gate", &gate,
           "multiply each head's output by sigmoid(W_g x), so that a head can say nothing (arXiv:2306.12929)"},
          {"prefill", &prefill,
           "what of a whole prompt is read where no gradients are: none (all of it), stripes, permuted_blocks"}};
      all.insert(all.end(), own.begin(), own.end());
      return all;
    }
  };
  static Info info() {
    return {
        .title = "Softmax attention",
        .paper = "arXiv:1706.03762",
        .equation = "y_i = sum_j softmax_j(q_i k_j / sqrt(K)) v_j",
        .cost = "O(n^2 d), O(n w d) with a window w",
        .patterns = {Pattern::causal, Pattern::bidirectional, Pattern::cross},
        .settings = {
            {"grouped queries", R"({"heads": 4, "kv_heads": 2, "qk_norm": true})"},
            {"sliding window", R"({"window": 7, "bias": true, "out_bias": true})"},
            {"linear biases", R"({"position": "alibi"})"},
            {"gated", R"({"gate": true})"},
            {"clipped softmax", R"({"score": "clipped", "clip_high": 1.03})"},
            {"sigmoid", R"({"score": "sigmoid", "position": "alibi"})"},
            {"power softmax", R"({"score": "power", "power": 4})"},
            {"diagonal blocks", R"({"block": 9, "position": "none"})"},
            {"Fourier positions", R"({"position": {"name": "fope", "length": 20, "noise": 0.3}})"},
            {"stripes of a prompt", R"({"kv_heads": 2, "prefill": {"name": "stripes", "mass": 1, "from": 3}})"},
            {"permuted blocks of a prompt",
             R"({"prefill": {"name": "permuted_blocks", "mass": 1, "block": 16, "segment": 32, "sorted": false, "from": 3}})"},
            {"no position", R"({"position": "none"})"}}};
  }

  Softmax(const Dims& d, Options o, Rng rng)
      : options(o), heads("softmax", d, o, rng), prefill(o.prefill, "softmax: prefill") {
    if (prefill.chooses() && (reach() || map() != ScoreMap::softmax || !heads.slopes.empty()))
      fail({"softmax", "a `prefill` for the softmax of all keys, without linear biases", json_text(o.prefill)});
    if (options.power % 2) fail({"softmax", "an even power", fmt::format("{}", options.power)});
    if (o.gate) gate = Linear(d.d_model, heads.q.out(), rng.fork("gate"), {.bias = true});
  }

  void visit(const ParameterVisitor& p) override {
    heads.visit(p);
    p("gate", gate);
  }

  StateSpec state_spec() const override { return heads.state_spec(reach()); }
  // How many tokens back, itself included, a token may see; 0: all.
  int64_t reach() const {
    return options.window && options.block ? std::min(options.window, options.block) : options.window + options.block;
  }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Softmax>("softmax", batch);
    const auto m = heads.operands(x, batch, reach());
    return output(x, picks(batch) ? picked(m, batch) : attended(m, m.segments, batch), *batch.context);
  }
  bool wants_whole_prompts() const override { return prefill.chooses(); }

  // Whether keys may be picked for prompts that this batch has whole.
  bool picks(const Batch& batch) const {
    return prefill.chooses() && batch.pattern == Pattern::causal && !batch.context->exact && !recording();
  }
  Var picked(const AttentionHeads::Operands& m, const Batch& batch) const {
    Pooled<AttentionSegment> others;
    for (const AttentionSegment& s : m.segments)
      if (!prefill.concerns(s)) others.push_back(s);
    return prefill.attend(others.empty() ? Var() : attended(m, others, batch), m.queries, m.keys, m.values, m.segments,
                          {.heads = heads.heads, .kv_heads = heads.kv_heads, .scale = scale()});
  }
  Var attended(const AttentionHeads::Operands& m, std::span<const AttentionSegment> segments,
               const Batch& batch) const {
    return attention(m.queries, m.keys, m.values, segments,
                     {.heads = heads.heads,
                      .kv_heads = heads.kv_heads,
                      .scale = scale(),
                      .causal = batch.pattern == Pattern::causal,
                      .window = batch.pattern == Pattern::causal ? options.window : 0,
                      .block = batch.pattern == Pattern::cross ? 0 : options.block,
                      .slopes = heads.slopes,
                      .map = map(),
                      .clip_low = static_cast<float>(options.clip_low),
                      .clip_high = static_cast<float>(options.clip_high),
                      .count_bias = static_cast<float>(options.count_bias),
                      .epsilon = static_cast<float>(options.epsilon),
                      .power = options.power,
                      .exact = batch.context->exact,
                      .paired = wants_paired_attention(*batch.context)});
  }

  ScoreMap map() const {
    const std::string& s = options.score;
    return s == "clipped"   ? ScoreMap::clipped
           : s == "sigmoid" ? ScoreMap::sigmoid
           : s == "power"   ? ScoreMap::power
                            : ScoreMap::softmax;
  }
  float scale() const {
    return static_cast<float>(1 / (options.temperature * std::sqrt(static_cast<double>(heads.head_dim))));
  }

  int64_t flops(int64_t n) const override { return pattern_flops(Pattern::causal, n, 0); }
  int64_t pattern_flops(Pattern pattern, int64_t n, int64_t memory) const override {
    const bool causal = pattern == Pattern::causal, cross = pattern == Pattern::cross;
    const int64_t rows = heads.q.out(), keys = cross ? memory : n;
    const int64_t pairs =
        visible_pairs({0, n, 0, 0, keys, 0}, causal, causal ? options.window : 0, cross ? 0 : options.block);
    return heads.flops(n, keys) + (options.gate ? 2 * n * rows * heads.q.in() : 0) + 4 * pairs * rows;
  }

  // The weights of one query from its scores, -inf for what it does not see; in place.
  void weigh(std::vector<double>& scores) const {
    const bool powers = options.score == "power", sigmoids = options.score == "sigmoid",
               clipped = options.score == "clipped";
    double top = -INFINITY, total = 0, count = 0;
    for (const double s : scores)
      if (s != -INFINITY) top = std::fmax(top, powers ? std::fabs(s) : s), ++count;
    const double p = static_cast<double>(options.power), low = -options.clip_low / count;
    for (double& s : scores) {
      if (s == -INFINITY || (powers && top == 0))
        s = 0;
      else if (sigmoids)
        s = naive::sigmoid(s - options.count_bias * std::log(count));
      else
        s = powers ? std::pow(s / top, p) : std::exp(s - top);
      total += s;
    }
    if (sigmoids || total == 0) return;
    if (powers) total += options.epsilon / std::pow(top, p);
    for (double& s : scores) {
      s /= total;
      if (clipped) s = std::clamp((options.clip_high - low) * s + low, 0.0, 1.0);
    }
  }

  // Divided by the temperature; the position's bias is not.
  double naive_score(const AttentionHeads::Naive& m, int64_t h, int64_t i, int64_t j) const {
    const double bias = heads.slopes.empty() ? 0 : heads.slopes[h] * std::fabs(static_cast<double>(m.offset + i - j));
    return (heads.naive_score(m, h, i, j) + bias) / options.temperature - bias;
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const bool cross = run.pattern == Pattern::cross, causal = run.pattern == Pattern::causal;
    const auto m = heads.naive(run, reach());
    const int64_t dim = heads.head_dim;
    naive::Matrix core(run.x.rows, heads.heads * dim);
    for (int64_t i = 0; i < run.x.rows; ++i)
      for (int64_t h = 0; h < heads.heads; ++h) {
        std::vector<double> score(m.k.rows, -INFINITY);
        for (int64_t j = 0; j < m.k.rows; ++j) {
          const int64_t distance = m.offset + i - j;
          if (causal && (distance < 0 || (options.window && distance >= options.window))) continue;
          if (!cross && options.block &&
              (run.position + i) / options.block != (run.position + i - distance) / options.block)
            continue;
          score[j] = naive_score(m, h, i, j);
        }
        weigh(score);
        for (int64_t j = 0; j < m.k.rows; ++j)
          for (int64_t p = 0; p < dim; ++p)
            core(i, h * dim + p) += score[j] * m.v(j, h * heads.kv_heads / heads.heads * dim + p);
      }
    if (options.gate) {
      const naive::Matrix g = naive::linear(run.x, run.w, "gate");
      for (size_t i = 0; i < core.a.size(); ++i) core.a[i] *= naive::sigmoid(g.a[i]);
    }
    return naive::linear(core, run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    return heads.implicit(x, c, [&](int64_t h, int64_t i, std::vector<double>& scores) {
      int64_t first = options.window ? std::max<int64_t>(0, i - options.window + 1) : 0;
      if (options.block) first = std::max(first, i / options.block * options.block);
      for (int64_t j = 0; j <= i; ++j) {
        const double bias = heads.slopes.empty() ? 0 : heads.slopes[h] * static_cast<double>(i - j);
        scores[j] = j < first ? -INFINITY : (scores[j] + bias) / options.temperature - bias;
      }
      weigh(scores);
    });
  }
  Var output(const Var& x, const Var& core, const Context& c) override {
    return heads.out(options.gate ? multiply(core, sigmoid(gate(x, c))) : core, c);
  }

  Options options;
  AttentionHeads heads;
  Prefill prefill;
  Linear gate;
};

}  // namespace

void register_softmax(Registry<Mixer>& r) {
  r.add<Softmax>("softmax");
}

}  // namespace sennit::mixers
