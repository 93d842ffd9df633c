// Compressive Transformers for Long-Range Sequence Modelling (Rae et al., arXiv:1911.05507), algorithm 1: a token sees
// its own segment of n_s up to itself, the n_m tokens before that, and behind them n_cm compressed ones,
//   m_g = f(x_{gc}, ..., x_{gc+c-1}),   y_i = W_o concat_h sum_j softmax_j(q_i . k_j / sqrt(K)) v_j
// by the same maps. f is the mean, the maximum, or a convolution of stride c, which one loss alone teaches: what
// queries read of the tokens that just left the memory, less what they read of them compressed, squared (algorithm 2).
// The text's loss does not move f, but reaches x through it. m_g stands at the place of its last token.
#include <cmath>
#include <nlohmann/json.hpp>

#include "mixers/heads.h"
#include "mixers/pieces.h"
#include "nn/init.h"
#include "nn/naive_sequence.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/pool.h"
#include "ops/products.h"
#include "positions/position.h"

namespace sennit::mixers {
namespace {

struct Compressive : Heads {
  struct Options {
    int64_t heads = 4, segment = 64, memory = 64, compressed = 64, rate = 4;
    std::string compressor = "mean";
    Json position = "rope";
    Fields fields() {
      return {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
              {"segment", &segment, "tokens that come together", {.min = 1, .max = 1e6}},
              {"memory", &memory, "tokens that are remembered as they are", {.min = 0, .max = 1e6}},
              {"compressed", &compressed, "compressed tokens behind them", {.min = 0, .max = 1e6}},
              {"rate", &rate, "tokens that one is made of; a divisor of segment and memory", {.min = 1, .max = 1e4}},
              {"compressor", &compressor, "what makes it", {.choices = {"mean", "max", "conv"}}},
              {"position", &position, "how order is told, by turning queries and keys"}};
    }
  };
  static Info info() {
    return {
        .title = "Compressive Transformer",
        .paper = "arXiv:1911.05507",
        .equation = "y_i = softmax attention to compressed memory, memory and segment",
        .cost = "O(n d (d + segment + memory + compressed))",
        .settings = {{"small", R"({"segment": 6, "memory": 9, "compressed": 5, "rate": 3, "compressor": "max"})"},
                     {"convolution",
                      R"({"heads": 2, "segment": 4, "memory": 2, "compressed": 7, "rate": 2, "compressor": "conv"})"},
                     {"Transformer-XL", R"({"segment": 16, "memory": 24, "compressed": 0, "rate": 1})"}}};
  }
  Compressive(const Dims& d, const Options& o, Rng rng) : Heads("compressive", d, o.heads, rng), options(o) {
    if (o.segment % o.rate || o.memory % o.rate)
      fail({"compressive", fmt::format("segment and memory of whole runs of rate = {}", o.rate),
            fmt::format("segment = {}, memory = {}", o.segment, o.memory)});
    position = positions::registry().make(o.position, {o.heads, dim}, rng, "position");
    if (!position->slopes().empty()) fail({"compressive", "a position that turns rows", json_text(o.position)});
    if (o.compressor != "conv") return;
    // Begins near the mean.
    Tensor w = normal_init({d.d_model, o.rate * d.d_model}, 0.02, rng.fork("compress"));
    for (int64_t i = 0; i < d.d_model; ++i)
      for (int64_t r = 0; r < o.rate; ++r)
        w.data()[i * w.row_size() + r * d.d_model + i] += 1 / static_cast<float>(o.rate);
    compress.init(w);
  }
  void visit(const ParameterVisitor& p) override { Heads::visit(p), p("compress", compress); }
  bool taught(const std::string& name) const override { return name == "compress"; }

  // Rows kept of inputs, which are compressed and compared late, and of keys and values.
  int64_t kept_inputs() const { return options.memory + 2 * options.segment; }
  int64_t kept_keys() const { return options.memory + options.segment; }
  enum Kept : size_t { kInputs, kOwnKeys, kOwnValues, kPackedKeys, kPackedValues };
  StateSpec state_spec() const override {
    return {{"x", {kept_inputs(), width()}},
            {"k", {kept_keys(), width()}},
            {"v", {kept_keys(), width()}},
            {"packed_k", {options.compressed, width()}},
            {"packed_v", {options.compressed, width()}}};
  }
  int64_t start(int64_t place) const { return place / options.segment * options.segment; }
  // How many compressed tokens there are when the token at a place comes.
  int64_t packed(int64_t place) const {
    return options.compressed ? std::max<int64_t>(0, start(place) - options.memory) / options.rate : 0;
  }

  // `rate` rows to one each.
  Var squeeze(const Var& x, const Var& weight) const {
    if (options.compressor == "conv")
      return linear(reshape(x, {x.rows() / options.rate, options.rate * width()}), weight);
    return pool_runs(x, options.rate, options.compressor == "mean" ? Pooling::mean : Pooling::highest);
  }
  // What a sequence kept, then `own` rows; keeps the last of them. Without a state: `own`.
  static Var after_kept(LayerState* state, size_t field, int64_t kept, const Var& own) {
    if (!state) return own;
    const Var before = state->has(field) ? state->get(field) : Var(Tensor::zeros({kept, own.columns()}));
    const Var parts[] = {before, own}, all = concat_rows(parts), last = rows(all, all.rows() - kept, kept);
    state->set(field, last.needs_grad() ? last : Var(last.value().clone()));
    return all;
  }

  // A segment of the batch: its place in what is known of its sequence, which of the compressed tokens comes first
  // among its keys, and where its own tokens begin there.
  struct Piece {
    int64_t place, first_packed, own;
  };

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Compressive>("compressive", batch);
    const Context& c = *batch.context;
    const auto turned = [&](const Var& rows, std::span<const Segment> at) { return position->turn(rows, at, heads); };
    const Var plain = q(x, c), own_k = turned(k(x, c), batch.segments), own_v = v(x, c);
    Pooled<Var> keys, values, inputs;
    Pooled<AttentionSegment> plan;
    Pooled<Piece> pieces;
    for (size_t i = 0; i < batch.segments.size(); ++i) {
      const Segment& s = batch.segments[i];
      LayerState* const state = batch.state(s);
      const int64_t place = state ? s.position : 0, known = packed(place), more = packed(place + s.length) - known,
                    old = state ? options.compressed : 0;
      inputs.push_back(after_kept(state, kInputs, kept_inputs(), rows(x, s.begin, s.length)));
      const int64_t from = known * options.rate - place + inputs.back().rows() - s.length;
      const Var made = squeeze(rows(inputs.back(), more ? from : 0, more * options.rate), compress.var.detach());
      Pooled<Segment> each;
      for (int64_t g = 1; g <= more; ++g)
        each.push_back({g - 1, 1, s.position - place + (known + g) * options.rate - 1, nullptr});
      const Var k_parts[] = {after_kept(state, kPackedKeys, options.compressed, turned(k(made, c), each)),
                             after_kept(state, kOwnKeys, kept_keys(), rows(own_k, s.begin, s.length))};
      const Var v_parts[] = {after_kept(state, kPackedValues, options.compressed, v(made, c)),
                             after_kept(state, kOwnValues, kept_keys(), rows(own_v, s.begin, s.length))};
      keys.push_back(concat_rows(k_parts)), values.push_back(concat_rows(v_parts));
      pieces.push_back({place, known - old, keys.back().rows() - s.length});
      plan.push_back({s.begin, s.length, i, 0, keys.back().rows(), pieces.back().own, s.position});
    }
    if (c.losses && options.compressor == "conv") teach(plain.detach(), batch, inputs);
    const Var core = attend_pieces(*this, std::move(pieces), turned(plain, batch.segments), keys, values, plan,
                                   {.heads = heads, .kv_heads = heads, .scale = scale()});
    return output(x, core, c);
  }
  float scale() const { return 1 / std::sqrt(static_cast<float>(dim)); }

  // Calls body(first token, end) for the tokens of each segment of the paper's among those from `begin` to `end`.
  template <class Body>
  void each_run(int64_t begin, int64_t end, Body&& body) const {
    for (int64_t at = begin; at < end;) {
      const int64_t next = std::min(end, start(at) + options.segment);
      body(at, next);
      at = next;
    }
  }
  void see(const Piece& piece, TileList& list) const {
    const int64_t shift = piece.own - piece.place;
    each_run(list.queries().begin - shift, list.queries().end - shift, [&](int64_t begin, int64_t end) {
      Pooled<int32_t> seen;
      const int64_t last = packed(begin);
      for (int64_t g = std::max<int64_t>(0, last - options.compressed); g < last; ++g)
        seen.push_back(static_cast<int32_t>(g - piece.first_packed));
      for (int64_t t = std::max<int64_t>(0, start(begin) - options.memory); t < end; ++t)
        seen.push_back(static_cast<int32_t>(shift + t));
      list.add(std::span<const int32_t>(seen), Places{shift + begin, shift + end}, 0);
    });
  }

  // The loss of the convolution, over the queries of all segments whose memory has just lost one.
  void teach(const Var& queries, const Batch& batch, std::span<const Var> inputs) {
    const Context& c = *batch.context;
    std::vector<int64_t> asked;
    std::vector<Var> left, made;
    Pooled<AttentionSegment> whole, squeezed;
    for (size_t i = 0; i < batch.segments.size(); ++i) {
      const Segment& s = batch.segments[i];
      const int64_t place = batch.state(s) ? s.position : 0, shift = inputs[i].rows() - s.length - place;
      each_run(place, place + s.length, [&](int64_t begin, int64_t end) {
        const int64_t from = start(begin) - options.memory - options.segment, count = std::ssize(left);
        if (from < 0) return;
        left.push_back(rows(inputs[i], from + shift, options.segment).detach());
        made.push_back(squeeze(left.back(), compress));
        whole.push_back({std::ssize(asked), end - begin, 0, count * options.segment, options.segment, 0});
        const int64_t per = made.back().rows();
        squeezed.push_back({std::ssize(asked), end - begin, 0, count * per, per, 0});
        for (int64_t t = begin; t < end; ++t) asked.push_back(s.begin + t - place);
      });
    }
    if (asked.empty()) return;
    const Var from = gather_rows(queries, asked);
    const auto read = [&](const std::vector<Var>& parts, const Pooled<AttentionSegment>& plan) {
      const Var all = concat_rows(parts), ks[] = {linear(all, k.weight.var.detach(), {}, c.precision)},
                vs[] = {linear(all, v.weight.var.detach(), {}, c.precision)};
      return attention(from, ks, vs, plan, {.heads = heads, .kv_heads = heads, .scale = scale(), .causal = false});
    };
    const Var apart = read(made, squeezed) - read(left, whole).detach();
    c.losses->push_back(mean(apart * apart));
  }

  int64_t flops(int64_t n) const override {
    const int64_t d = width(), made = packed(n);
    int64_t pairs = 0;
    for (int64_t t = 0; t < n; ++t)
      pairs += t + 1 - std::max<int64_t>(0, start(t) - options.memory) + std::min(options.compressed, packed(t));
    return map_flops(n) + made * (4 * d * d + options.rate * d * (options.compressor == "conv" ? 2 * d : 1)) +
           4 * pairs * d;
  }

  naive::Matrix naive_squeeze(const naive::Matrix& x, const naive::Weights& w) const {
    naive::Matrix y(x.rows / options.rate, x.cols);
    for (int64_t g = 0; g < y.rows; ++g)
      for (int64_t i = 0; i < x.cols; ++i) {
        double sum = 0, most = -INFINITY;
        for (int64_t r = 0; r < options.rate; ++r) {
          sum += x(g * options.rate + r, i), most = std::max(most, x(g * options.rate + r, i));
          for (int64_t j = 0; j < x.cols && options.compressor == "conv"; ++j)
            y(g, i) += w.at("compress")(i, r * x.cols + j) * x(g * options.rate + r, j);
        }
        if (options.compressor != "conv")
          y(g, i) = options.compressor == "max" ? most : sum / static_cast<double>(options.rate);
      }
    return y;
  }
  naive::Matrix naive_rows(const naive::Matrix& x, int64_t begin, int64_t count) const {
    naive::Matrix y(count, x.cols);
    std::copy_n(x.a.begin() + begin * x.cols, count * x.cols, y.a.begin());
    return y;
  }
  naive::Matrix naive_after(naive::Matrix& kept, int64_t count, const naive::Matrix& own) const {
    naive::Matrix all(count + own.rows, own.cols);
    if (kept.rows) std::copy(kept.a.begin(), kept.a.end(), all.a.begin());
    std::copy(own.a.begin(), own.a.end(), all.a.begin() + count * own.cols);
    kept = naive_rows(all, own.rows, count);
    return all;
  }
  naive::Matrix naive(NaiveRun& run) const override;
  double naive_lesson(const NaiveRun& run, const naive::Matrix& inputs, const naive::Matrix& queries) const;

  Options options;
  std::unique_ptr<Position> position;
  Parameter compress;
};

naive::Matrix Compressive::naive(NaiveRun& run) const {
  const int64_t n = run.x.rows, p = run.position, rate = options.rate, C = options.compressed, known = packed(p),
                more = packed(p + n) - known, from = more ? known * rate - p + kept_inputs() : 0;
  const auto turn = [&](naive::Matrix m, int64_t first, int64_t stride) {
    for (int64_t i = 0; i < m.rows; ++i)
      for (int64_t h = 0; h < heads; ++h) position->naive_turn(&m(i, h * dim), first + i * stride, h, heads);
    return m;
  };
  const naive::Matrix plain = naive::linear(run.x, run.w, "q"), queries = turn(plain, p, 1);
  const naive::Matrix inputs = naive_after(run.state["x"], kept_inputs(), run.x);
  const naive::Matrix made = naive_squeeze(naive_rows(inputs, from, more * rate), run.w);
  const naive::Matrix packed_k =
      naive_after(run.state["packed_k"], C, turn(naive::linear(made, run.w, "k"), (known + 1) * rate - 1, rate));
  const naive::Matrix packed_v = naive_after(run.state["packed_v"], C, naive::linear(made, run.w, "v"));
  const naive::Matrix ks = naive_after(run.state["k"], kept_keys(), turn(naive::linear(run.x, run.w, "k"), p, 1));
  const naive::Matrix vs = naive_after(run.state["v"], kept_keys(), naive::linear(run.x, run.w, "v"));
  naive::Matrix core(n, width());
  for (int64_t i = 0; i < n; ++i) {
    const int64_t place = p + i, border = place - place % options.segment - options.memory;  // the oldest as it was
    std::vector<std::pair<const double*, const double*>> seen;
    for (int64_t g = 0; (g + 1) * rate <= border && C > 0; ++g)
      if ((g + 1 + C) * rate > border)
        seen.emplace_back(&packed_k.a[(g - known + C) * width()], &packed_v.a[(g - known + C) * width()]);
    for (int64_t t = std::max<int64_t>(0, border); t <= place; ++t)
      seen.emplace_back(&ks.a[(t - p + kept_keys()) * width()], &vs.a[(t - p + kept_keys()) * width()]);
    for (int64_t h = 0; h < heads; ++h) {
      std::vector<double> weights;
      for (const auto& [key, value] : seen) {
        double sum = 0;
        for (int64_t c = h * dim; c < (h + 1) * dim; ++c) sum += queries(i, c) * key[c];
        weights.push_back(sum / std::sqrt(static_cast<double>(dim)));
      }
      naive::softmax(weights);
      for (size_t j = 0; j < seen.size(); ++j)
        for (int64_t c = h * dim; c < (h + 1) * dim; ++c) core(i, c) += weights[j] * seen[j].second[c];
    }
  }
  if (run.auxiliary && options.compressor == "conv") *run.auxiliary += naive_lesson(run, inputs, plain);
  return naive::linear(core, run.w, "out");
}

double Compressive::naive_lesson(const NaiveRun& run, const naive::Matrix& inputs, const naive::Matrix& queries) const {
  double sum = 0, count = 0;
  for (int64_t i = 0; i < queries.rows; ++i) {
    const int64_t place = run.position + i, from = place - place % options.segment - options.memory - options.segment;
    if (from < 0) continue;
    const naive::Matrix left = naive_rows(inputs, from - run.position + kept_inputs(), options.segment),
                        query = naive_rows(queries, i, 1);
    const auto read = [&](const naive::Matrix& rows) {
      return naive::attention(query, naive::linear(rows, run.w, "k"), naive::linear(rows, run.w, "v"),
                              {.heads = heads, .scale = 1 / std::sqrt(static_cast<double>(dim)), .causal = false});
    };
    const naive::Matrix whole = read(left), squeezed = read(naive_squeeze(left, run.w));
    for (int64_t c = 0; c < width(); ++c, ++count) sum += (whole.a[c] - squeezed.a[c]) * (whole.a[c] - squeezed.a[c]);
  }
  return count > 0 ? sum / count : 0;
}

}  // namespace

void register_compressive(Registry<Mixer>& r) {
  r.add<Compressive>("compressive");
}

}  // namespace sennit::mixers
