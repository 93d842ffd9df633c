// SeerAttention: Learning Intrinsic Sparse Attention in Your LLMs (Gao et al., arXiv:2410.13276), with queries that are
// not pooled as in SeerAttention-R (arXiv:2506.08889), sections 2 and 3: a small gate scores blocks for each query and
// group of heads,
//   q'_i = P(W_q [q_ih of the group]),   k'_b = P(W_k [max, min, mean of k over block b]),   s_b = q'_i . k'_b /
//   sqrt(d') y_i = W_o concat_h sum_{j in top blocks by s, j <= i} softmax_j(q_ih . k_jh / sqrt(K)) v_jh
// from queries and keys before their position; P is the position of the query or of the block's first key. The gate
// learns by an auxiliary loss alone, the divergence of softmax(s) from the attention's own largest weight in each block
// (over the group's heads, among whole blocks before the query), which is collected while attention is computed in
// tiles. With `top` blocks enough for the sequence this is exact attention: so a gate is distilled, and `top` lowered
// after.
#include <algorithm>
#include <cmath>

#include "mixers/choosing_settings.h"
#include "nn/init.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/pool.h"
#include "ops/products.h"
#include "sequence/block_divergence.h"

namespace sennit::mixers {
namespace {

struct Seer : ChoosingMixer {
  struct Options : ChoosingSettings {
    int64_t gate_dim = 0;
    double distil = 1;
    Fields fields() {
      Fields all = ChoosingSettings::fields();
      const Fields own = {
          {"gate_dim", &gate_dim, "numbers of a gate's queries and keys; 0: head_dim", {.min = 0, .max = 4096}},
          {"distil", &distil, "weight of the gate's loss", {.min = 0, .max = 1e6}}};
      all.insert(all.end(), own.begin(), own.end());
      return all;
    }
  };
  static Info info() {
    return {.title = "SeerAttention (learned block gate)",
            .paper = "arXiv:2410.13276",
            .equation =
                "y_i = sum_{j in top blocks by q'_i . k'_b} softmax_j(q_i k_j / sqrt(K)) v_j, q', k' a gate distilled "
                "from attention",
            .cost = "O(n top block d + n^2 gate_dim / block)",
            .settings = {
                {"small blocks", R"({"block": 8, "top": 3})"},
                {"grouped", R"({"block": 6, "top": 4, "kv_heads": 2, "gate_dim": 6, "local": 2, "qk_norm": true})"}}};
  }

  Seer(const Dims& d, const Options& o, Rng rng)
      : ChoosingMixer("seer_attention", d, o, rng), dim(o.gate_dim ? o.gate_dim : heads.head_dim), distil(o.distil) {
    const int64_t kv = heads.kv_heads, wide = heads.group() * heads.head_dim, pooled = 3 * heads.head_dim;
    position = positions::registry().make(o.position, {kv, dim}, rng, "position");
    gate_q.init(normal_init({kv * dim, wide}, 1 / std::sqrt(static_cast<double>(wide)), rng.fork("gate_q")));
    gate_k.init(normal_init({kv * dim, pooled}, 1 / std::sqrt(static_cast<double>(pooled)), rng.fork("gate_k")));
    set_layout({.unit = o.block, .summary = kv * dim, .groups = kv});
  }
  void visit(const ParameterVisitor& p) override {
    ChoosingMixer::visit(p);
    p("gate_q", gate_q);
    p("gate_k", gate_k);
  }
  bool taught(const std::string& name) const override { return name == "gate_q" || name == "gate_k"; }
  StateSpec state_spec() const override {
    StateSpec spec = ChoosingMixer::state_spec();
    spec.push_back({"raw", {1, heads.kv_heads * heads.head_dim}, Growth::window, settings_.block});
    return spec;
  }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Seer>("seer_attention", batch);
    return attend(x, batch);
  }

  // Each group's rows by its own map; `parts` are [N, groups width], side by side for a group.
  Var mapped(std::span<const Var> parts, const Var& weight, const Context& c) const {
    Pooled<Var> ys;
    for (int64_t g = 0; g < heads.kv_heads; ++g) {
      Pooled<Var> own;
      for (const Var& part : parts)
        own.push_back(columns(part, g * part.columns() / heads.kv_heads, part.columns() / heads.kv_heads));
      ys.push_back(linear(concat_columns(own), rows(weight, g * dim, dim), {}, c.precision));
    }
    return concat_columns(ys);
  }
  Var gate_queries(const Var& plain_queries, std::span<const Segment> segments, const Context& c) const {
    return position->turn(mapped({&plain_queries, 1}, gate_q, c), segments, heads.kv_heads);
  }
  // Of whole blocks of keys before their position, the first of which starts at a place.
  Var gate_keys(const Var& plain_keys, int64_t place, const Context& c) const {
    const int64_t block = settings_.block;
    const Var pooled[] = {pool_runs(plain_keys, block, Pooling::highest), pool_runs(plain_keys, block, Pooling::lowest),
                          pool_runs(plain_keys, block, Pooling::mean)};
    Pooled<Segment> each;
    for (int64_t b = 0; b < pooled[0].rows(); ++b) each.push_back({b, 1, place + b * block, nullptr});
    return position->turn(mapped(pooled, gate_k, c), each, heads.kv_heads);
  }

  Pooled<Var> summarise(const AttentionHeads::Operands& m, const Batch& batch) override {
    Pooled<Var> all;
    for (size_t i = 0; i < m.segments.size(); ++i) {
      const AttentionSegment& a = m.segments[i];
      const Var fresh = rows(m.plain_keys, a.query_begin, a.queries);
      LayerState* state = batch.state(batch.segments[i]);
      const int64_t block = settings_.block, first = a.position - a.offset,
                    whole = a.keys / block * block;  // place of key 0
      if (!state) {
        NoGrad off;
        all.push_back(gate_keys(rows(fresh.detach(), 0, whole), first, *batch.context));
        continue;
      }
      const int64_t known = state->has(2) ? state->get(2).rows() * block : 0;
      const Var raw = state->append(3, fresh, block);
      const Var added = rows(raw, raw.rows() - (a.keys - known), whole - known);
      all.push_back(state->append(2, gate_keys(added, first + known, *batch.context)));
    }
    return all;
  }
  Var scoring_queries(const AttentionHeads::Operands& m, const Batch& batch) override {
    NoGrad off;
    return gate_queries(m.plain_queries.detach(), batch.segments, *batch.context);
  }

  // Blocks that came with this batch, or the rest of their keys did, are learned about; older ones stay what they were.
  void teach(const AttentionHeads::Operands& m, const Batch& batch, const Pooled<Var>& summaries) override {
    const Context& c = *batch.context;
    const Var queries = gate_queries(m.plain_queries.detach(), batch.segments, c);
    for (size_t i = 0; i < m.segments.size(); ++i) {
      const AttentionSegment& a = m.segments[i];
      const int64_t block = settings_.block, older = std::min((a.offset + block - 1) / block, summaries[i].rows()),
                    newer = summaries[i].rows() - older;
      const Var keys =
          rows(m.plain_keys.detach(), a.query_begin + std::max<int64_t>(0, older * block - a.offset), newer * block);
      const Var both[] = {rows(summaries[i].detach(), 0, older),
                          gate_keys(keys, a.position - a.offset + older * block, c)};
      const Tensor weights = block_maxima(m.queries.value(), m.keys[a.source].value(), m.values[a.source].value(), a,
                                          attention_options(), block);
      c.losses->push_back(
          scale(block_divergence(queries, concat_rows(both), pooled_over_heads(weights), a, heads.kv_heads, block,
                                 gate_scale()),
                static_cast<float>(distil * static_cast<double>(a.queries) / static_cast<double>(batch.rows()))));
    }
  }
  Tensor pooled_over_heads(const Tensor& weights) const {  // [n, heads, blocks] -> [n, groups, blocks]
    const int64_t n = weights.shape(0), blocks = weights.shape(2), together = heads.group();
    Tensor most = Tensor::zeros({n, heads.kv_heads, blocks});
    for (int64_t i = 0; i < n; ++i)
      for (int64_t h = 0; h < heads.heads; ++h)
        for (int64_t b = 0; b < blocks; ++b) {
          float& place = most.data()[(i * heads.kv_heads + h / together) * blocks + b];
          place = std::max(place, weights.data()[(i * heads.heads + h) * blocks + b]);
        }
    return most;
  }

  float gate_scale() const { return static_cast<float>(1 / std::sqrt(static_cast<double>(dim))); }
  int64_t score(const Scoring& s, float* scores, int64_t stride, float* scratch) const override {
    const Tensor &q = s.queries, &k = s.summaries;
    kernels::sparse_attention().scores(q.data() + (s.segment.query_begin + s.first) * q.row_size() + s.group * dim,
                                       q.row_size(), s.rows, k.data() + s.group * dim, k.row_size(), s.blocks, dim,
                                       scores, stride, scratch);
    return 2 * s.rows * s.blocks * dim;
  }
  int64_t score_scratch(int64_t, int64_t) const override { return kernels::kTileKeys * dim; }
  int64_t score_flops(int64_t n) const override {
    const int64_t kv = heads.kv_heads, blocks = n / settings_.block;
    return 2 * kv * dim * scored(n, settings_.block) + 2 * n * dim * heads.heads * heads.head_dim +
           6 * blocks * kv * dim * heads.head_dim + 3 * n * kv * heads.head_dim;
  }

  // One group's numbers by its map and position.
  std::vector<double> naive_mapped(const NaiveRun& run, const char* weight, const std::vector<double>& in,
                                   int64_t group, int64_t place) const {
    std::vector<double> y(dim, 0.0);
    for (int64_t r = 0; r < dim; ++r)
      for (size_t c = 0; c < in.size(); ++c) y[r] += run.w.at(weight)(group * dim + r, c) * in[c];
    position->naive_turn(y.data(), place, group, heads.kv_heads);
    return y;
  }

  void naive_summarise(NaiveRun& run, const AttentionHeads::Naive& m, naive::Matrix& summaries) const override {
    naive::Matrix& raw = run.state["raw"];
    raw.cols = m.plain_k.cols;
    raw.a.insert(raw.a.end(), m.plain_k.a.begin(), m.plain_k.a.end());
    raw.rows += m.plain_k.rows;
    const int64_t block = settings_.block, first = m.k.rows - raw.rows,
                  wide = heads.head_dim;  // place of the first raw row
    summaries.cols = layout_.summary;
    for (; (summaries.rows + 1) * block <= m.k.rows; ++summaries.rows)
      for (int64_t g = 0; g < heads.kv_heads; ++g) {
        std::vector<double> pooled(3 * wide);
        for (int64_t p = 0; p < wide; ++p) {
          double most = -INFINITY, least = INFINITY, sum = 0;
          for (int64_t j = summaries.rows * block; j < (summaries.rows + 1) * block; ++j) {
            const double x = raw(j - first, g * wide + p);
            most = std::fmax(most, x), least = std::fmin(least, x), sum += x;
          }
          pooled[p] = most, pooled[wide + p] = least, pooled[2 * wide + p] = sum / static_cast<double>(block);
        }
        const auto k = naive_mapped(run, "gate_k", pooled, g, run.position - m.offset + summaries.rows * block);
        summaries.a.insert(summaries.a.end(), k.begin(), k.end());
      }
    const int64_t drop = rows_dropped(raw.rows, block);
    raw.a.erase(raw.a.begin(), raw.a.begin() + drop * raw.cols);
    raw.rows -= drop;
  }

  std::vector<double> naive_scores(NaiveRun& run, const AttentionHeads::Naive& m, const naive::Matrix& summaries,
                                   int64_t group, int64_t i, int64_t blocks) const override {
    const int64_t wide = heads.group() * heads.head_dim;
    const std::vector<double> raw(&m.plain_q.a[i * m.plain_q.cols + group * wide],
                                  &m.plain_q.a[i * m.plain_q.cols + group * wide] + wide);
    const std::vector<double> q = naive_mapped(run, "gate_q", raw, group, run.position + i);
    std::vector<double> scores(blocks, 0.0);
    for (int64_t b = 0; b < blocks; ++b)
      for (int64_t c = 0; c < dim; ++c) scores[b] += q[c] * summaries(b, group * dim + c);
    return scores;
  }

  double naive_teach(NaiveRun& run, const AttentionHeads::Naive& m, const naive::Matrix& summaries) const override {
    double sum = 0, count = 0;
    for (int64_t i = 0; i < run.x.rows; ++i)
      for (int64_t g = 0; g < heads.kv_heads; ++g) {
        const int64_t place = m.offset + i, blocks = place / settings_.block;
        std::vector<double> p = naive_scores(run, m, summaries, g, i, blocks), t(blocks, 0.0);
        for (double& s : p) s /= std::sqrt(static_cast<double>(dim));
        naive_softmax(p);
        for (int64_t h = g * heads.group(); h < (g + 1) * heads.group(); ++h) {
          std::vector<double> weights(place + 1);
          for (int64_t j = 0; j <= place; ++j) weights[j] = heads.naive_score(m, h, i, j);
          naive_softmax(weights);
          for (int64_t j = 0; j < blocks * settings_.block; ++j)
            t[j / settings_.block] = std::fmax(t[j / settings_.block], weights[j]);
        }
        double whole = 0;
        for (const double w : t) whole += w;
        if (whole == 0) continue;
        for (int64_t b = 0; b < blocks; ++b)
          if (t[b] > 0) sum += t[b] / whole * std::log(t[b] / whole / p[b]);
        count += 1;
      }
    return count > 0 ? distil * sum / count : 0;
  }

  int64_t dim;
  double distil;
  std::unique_ptr<Position> position;
  Parameter gate_q, gate_k;
};

}  // namespace

void register_seer_attention(Registry<Mixer>& r) {
  r.add<Seer>("seer_attention");
}

}  // namespace sennit::mixers
