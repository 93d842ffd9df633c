// InfLLM-V2: Dense-Sparse Switchable Attention for Seamless Short-to-Long Adaptation (Zhao et al., arXiv:2509.24663),
// section 3: up to `dense` tokens a query sees everything; after that, the first blocks, the last ones, and those that
// score highest by attention to windows of two mean-pooled units of keys (c_w, which overlap by one), shared by a group
// of heads:
//   p_w = sum_h softmax_w(q_ih . c_w / sqrt(K)),   s_b = max_{windows w that touch block b} p_w,
//   y_i = W_o concat_h sum_{j in chosen blocks, j <= i} softmax_j(q_ih . k_jh / sqrt(K)) v_jh
// Windows that end after the query are not there. The softmax over windows is exact here, where the paper's kernel
// estimates its denominator from coarser windows. Nothing is learned beside ordinary attention.
#include <algorithm>
#include <cfloat>
#include <cmath>

#include "kernels/elementwise.h"
#include "mixers/choosing_settings.h"

namespace sennit::mixers {
namespace {

// In eight lanes, which compilers turn into vectors.
float highest(const float* x, int64_t n) {
  float lanes[8];
  std::fill_n(lanes, 8, -INFINITY);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int64_t l = 0; l < 8; ++l) lanes[l] = x[i + l] > lanes[l] ? x[i + l] : lanes[l];
  for (; i < n; ++i) lanes[0] = std::max(lanes[0], x[i]);
  return *std::max_element(lanes, lanes + 8);
}

struct InfLlm : ChoosingMixer {
  struct Options : ChoosingSettings {
    int64_t unit = 16, dense = 8192;
    Options() { top = 32, sink = 1, local = 8; }
    Fields fields() {
      Fields all = ChoosingSettings::fields();
      const Fields own = {
          {"unit",
           &unit,
           "keys a mean; scores come from windows of two; a block holds two or more",
           {.min = 1, .max = 1e6}},
          {"dense", &dense, "the first tokens, which see everything before them", {.min = 0, .max = 1e9}}};
      all.insert(all.end(), own.begin(), own.end());
      return all;
    }
  };
  static Info info() {
    return {.title = "InfLLM-V2 (dense-sparse switchable attention)",
            .paper = "arXiv:2509.24663",
            .equation =
                "y_i = sum_{j in top blocks by max_w softmax_w(q_i c_w)} softmax_j(q_i k_j / sqrt(K)) v_j, c_w means "
                "of keys",
            .cost = "O(n top block d + n^2 d / unit)",
            .settings = {
                {"small blocks", R"({"block": 8, "unit": 4, "top": 3, "local": 1, "dense": 0})"},
                {"grouped",
                 R"({"block": 9, "unit": 3, "top": 5, "local": 2, "kv_heads": 2, "dense": 40, "qk_norm": true})"}}};
  }
  InfLlm(const Dims& d, const Options& o, Rng rng)
      : ChoosingMixer("infllm_v2", d, o, rng), unit(o.unit), dense(o.dense) {
    if (o.block % unit || o.block < 2 * unit)
      fail({"infllm_v2", fmt::format("blocks of two or more units of {}", unit), fmt::format("block = {}", o.block)});
    set_layout({.unit = unit, .summary = heads.kv_heads * heads.head_dim, .groups = heads.kv_heads});
  }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<InfLlm>("infllm_v2", batch);
    return attend(x, batch);
  }

  int64_t most_blocks(int64_t place) const override {
    return place < dense ? std::max(settings_.top, place / settings_.block + 1) : settings_.top;
  }
  // Windows that end at or before a place: window w holds units w and w + 1.
  int64_t windows_before(int64_t place) const { return std::max<int64_t>(0, (place + 1) / unit - 1); }

  // One head alone ranks blocks by its products: a softmax would not change their order.
  int64_t score(const Scoring& s, float* scores, int64_t stride, float* scratch) const override {
    const int64_t dim = heads.head_dim, row_units = s.segment.keys / unit + 1, times = heads.group();
    const int64_t units = (s.segment.offset + s.first + s.rows) / unit;  // whole at the last query
    float *products = scratch, *weights = products + times * s.rows * row_units, *panel = weights + row_units;
    const Tensor &q = s.queries, &means = s.summaries;
    for (int64_t h = 0; h < times; ++h)
      kernels::sparse_attention().scores(
          q.data() + (s.segment.query_begin + s.first) * q.row_size() + (s.group * times + h) * dim, q.row_size(),
          s.rows, means.data() + s.group * dim, means.row_size(), units, dim, products + h * s.rows * row_units,
          row_units, panel);
    for (int64_t r = 0; r < s.rows; ++r) {
      const int64_t place = s.segment.offset + s.first + r, windows = windows_before(place);
      float* const row = products + r * row_units;
      if (windows > 0 && times == 1) kernels::elementwise().add(row, row + 1, row, windows);
      if (windows > 0 && times > 1) {
        std::fill_n(weights, windows, 0.0f);
        for (int64_t h = 0; h < times; ++h) add_softmax(row + h * s.rows * row_units, windows, weights);
      }
      pool_windows(times == 1 ? row : weights, windows, place / settings_.block, scores + r * stride);
    }
    return 2 * s.rows * units * dim * times;
  }

  // weights += softmax over the windows, from products with units, which are spoilt.
  void add_softmax(float* products, int64_t windows, float* weights) const {
    const auto& maps = kernels::elementwise();
    maps.add(products, products + 1, products, windows);
    const float scale = 0.5f * heads.scale(), top = scale * highest(products, windows);
    maps.affine(products, scale, -top, products, windows);
    maps.exp(products, products, windows);
    const auto total = static_cast<float>(maps.sum(products, windows));
    maps.axpy(1 / total, products, weights, windows);
  }

  // The largest weight, or product, of a window that touches each block; all but the first begin with one that reaches back.
  void pool_windows(const float* weights, int64_t windows, int64_t blocks, float* scores) const {
    const int64_t per_block = settings_.block / unit;
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t last = std::min(windows, (b + 1) * per_block);
      float most = -FLT_MAX;
      for (int64_t w = std::max<int64_t>(0, b * per_block - 1); w < last; ++w) most = std::max(most, weights[w]);
      scores[b] = most;
    }
  }

  int64_t score_scratch(int64_t keys, int64_t rows) const override {
    return (heads.group() * rows + 1) * (keys / unit + 1) + kernels::kTileKeys * heads.head_dim;
  }
  int64_t score_flops(int64_t n) const override {
    return 2 * heads.heads * heads.head_dim * scored(n, unit) + n * layout_.summary;
  }

  std::vector<double> naive_scores(NaiveRun&, const AttentionHeads::Naive& m, const naive::Matrix& summaries,
                                   int64_t group, int64_t i, int64_t blocks) const override {
    const int64_t dim = heads.head_dim, place = m.offset + i, times = heads.heads / heads.kv_heads;
    std::vector<double> sums(windows_before(place), 0.0), scores(blocks, 0.0);
    for (int64_t h = group * times; h < (group + 1) * times; ++h) {
      std::vector<double> p(sums.size(), 0.0);
      for (size_t w = 0; w < p.size(); ++w)
        for (int64_t c = 0; c < dim; ++c)
          p[w] += m.q(i, h * dim + c) * (summaries(w, group * dim + c) + summaries(w + 1, group * dim + c)) / 2 /
                  std::sqrt(static_cast<double>(dim));
      naive_softmax(p);
      for (size_t w = 0; w < p.size(); ++w) sums[w] += p[w];
    }
    for (int64_t w = 0; w < std::ssize(sums); ++w)
      for (int64_t j = w * unit; j < (w + 2) * unit; ++j)
        if (j / settings_.block < blocks) scores[j / settings_.block] = std::max(scores[j / settings_.block], sums[w]);
    return scores;
  }

  int64_t unit, dense;
};

}  // namespace

void register_infllm_v2(Registry<Mixer>& r) {
  r.add<InfLlm>("infllm_v2");
}

}  // namespace sennit::mixers
