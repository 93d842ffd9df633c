// Beyond Uniform Query Distribution: Key-Driven Grouped Query Attention (Khan et al., arXiv:2408.08454), section 3:
// grouped queries in groups of unequal sizes. Key-value head g of G serves s_g of the H query heads, in proportion to
// how long its keys are,
//   y_i = W_o concat_h sum_j softmax_j(q_ih . k_j,g(h) / sqrt(K)) v_j,g(h),   s = largest remainders of H share(|K_1|,
//   ..., |K_G|), at least 1 each
// |K_g| is the mean length of a batch's keys before their position. DGQA keeps a running mean of it while training and
// deals heads anew every so many steps; with `decay` 0 and `every` 1 it is KDGQA, but for the step between: heads are
// dealt by what was measured before, and not at all outside of training, so that no token changes how another is read.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "mixers/head_settings.h"
#include "nn/naive_sequence.h"

namespace sennit::mixers {
namespace {

struct KeyDriven : Mixer {
  struct Options : HeadSettings {
    double decay = 0.9;
    int64_t every = 100;
    std::string share = "softmax";
    Options() { kv_heads = 2; }
    Fields fields() {
      Fields all = HeadSettings::fields();
      const Fields own = {
          {"decay", &decay, "memory of the lengths of keys", {.min = 0, .max = 1}},
          {"every", &every, "forward passes of training until heads are dealt anew", {.min = 1, .max = 1e9}},
          {"share",
           &share,
           "of the heads: softmax of the lengths over their mean, or the lengths from least to most",
           {.choices = {"softmax", "minmax"}}}};
      all.insert(all.end(), own.begin(), own.end());
      return all;
    }
  };
  static Info info() {
    return {.title = "Key-driven grouped queries (DGQA)",
            .paper = "arXiv:2408.08454",
            .equation = "y_i = sum_j softmax_j(q_i k_j / sqrt(K)) v_j, query heads dealt to key heads by |K|",
            .cost = "O(n^2 d)",
            .settings = {{"min-max", R"({"heads": 8, "kv_heads": 4, "share": "minmax", "position": "alibi"})"}}};
  }
  KeyDriven(const Dims& d, const Options& options, Rng rng) : o(options), heads("key_driven", d, options, rng) {
    norms.init(Tensor::full({heads.kv_heads}, 1));
    dealt_by.init(Tensor::full({heads.kv_heads}, 1));
    passes.init(Tensor::zeros({1}));
    for (Parameter* p : {&norms, &dealt_by, &passes}) p->decays = p->learned = false;
  }
  void visit(const ParameterVisitor& p) override {
    heads.visit(p);
    p("norms", norms), p("dealt_by", dealt_by), p("passes", passes);
  }
  StateSpec state_spec() const override { return heads.state_spec(); }

  // The heads of each key-value head: each next one goes where most of a share is missing.
  Pooled<int64_t> groups() const {
    const auto lengths = dealt_by.value().span();
    Pooled<double> quota(lengths.begin(), lengths.end());
    const double low = *std::min_element(quota.begin(), quota.end()),
                 high = *std::max_element(quota.begin(), quota.end()),
                 mean = std::accumulate(quota.begin(), quota.end(), 0.0) / static_cast<double>(quota.size());
    for (double& x : quota) x = o.share == "softmax" ? std::exp((x - high) / mean) : low == high ? 1 : x - low;
    const double total = std::accumulate(quota.begin(), quota.end(), 0.0);
    for (double& x : quota) x *= static_cast<double>(heads.heads) / total;
    Pooled<int64_t> sizes(quota.size(), 1);
    for (int64_t left = heads.heads - heads.kv_heads; left > 0; --left) {
      size_t most = 0;
      for (size_t g = 1; g < sizes.size(); ++g)
        if (quota[g] - static_cast<double>(sizes[g]) > quota[most] - static_cast<double>(sizes[most])) most = g;
      ++sizes[most];
    }
    return sizes;
  }
  void measure(const Tensor& keys) {
    if (keys.rows() == 0) return;
    const int64_t dim = heads.head_dim;
    for (int64_t g = 0; g < heads.kv_heads; ++g) {
      double sum = 0;
      for (int64_t i = 0; i < keys.rows(); ++i) {
        const float* k = keys.data() + (i * heads.kv_heads + g) * dim;
        double square = 0;
        for (int64_t p = 0; p < dim; ++p) square += double{k[p]} * k[p];
        sum += std::sqrt(square);
      }
      float& norm = norms.var.value().data()[g];
      norm = static_cast<float>(o.decay * norm + (1 - o.decay) * sum / static_cast<double>(keys.rows()));
    }
    float& pass = passes.var.value().data()[0];
    pass = std::fmod(pass + 1, static_cast<float>(o.every));
    if (pass == 0) dealt_by.var.value().copy_from(norms.value());
    ++norms.version, ++passes.version, ++dealt_by.version;
  }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<KeyDriven>("key_driven", batch);
    const auto m = heads.operands(x, batch);
    const Pooled<int64_t> sizes = groups();
    const Var core = attention(m.queries, m.keys, m.values, m.segments,
                               {.heads = heads.heads,
                                .kv_heads = heads.kv_heads,
                                .scale = heads.scale(),
                                .slopes = heads.slopes,
                                .groups = sizes,
                                .exact = batch.context->exact,
                                .paired = wants_paired_attention(*batch.context)});
    if (batch.context->training && recording()) measure(m.plain_keys.value());
    return output(x, core, *batch.context);
  }
  Var output(const Var&, const Var& core, const Context& c) override { return heads.out(core, c); }
  int64_t flops(int64_t n) const override { return heads.flops(n) + 2 * n * (n + 1) * heads.q.out(); }

  // Of the units q_g - 1, q_g - 2, ... of all groups the largest are given.
  std::vector<int64_t> naive_key_heads(const naive::Matrix& lengths) const {
    const auto count = static_cast<size_t>(heads.kv_heads);
    std::vector<double> shares(lengths.a);
    if (o.share == "softmax") {
      double mean = 0;
      for (const double x : shares) mean += x / static_cast<double>(count);
      for (double& x : shares) x /= mean;
      naive::softmax(shares);
    } else {
      const auto [low, high] = std::minmax_element(lengths.a.begin(), lengths.a.end());
      double sum = 0;
      for (double& x : shares) sum += x = *low == *high ? 1 : (x - *low) / (*high - *low);
      for (double& x : shares) x /= sum;
    }
    std::vector<std::pair<double, size_t>> units;
    for (size_t g = 0; g < count; ++g)
      for (int64_t t = 1; t < heads.heads; ++t)
        units.emplace_back(static_cast<double>(t) - shares[g] * static_cast<double>(heads.heads), g);
    std::sort(units.begin(), units.end());
    std::vector<int64_t> key_heads(count);
    std::iota(key_heads.begin(), key_heads.end(), 0);
    for (int64_t i = 0; i < heads.heads - heads.kv_heads; ++i)
      key_heads.push_back(static_cast<int64_t>(units[i].second));
    std::sort(key_heads.begin(), key_heads.end());
    return key_heads;
  }
  naive::Matrix naive(NaiveRun& run) const override {
    const auto m = heads.naive(run);
    const std::vector<int64_t> key_heads = naive_key_heads(run.w.at("dealt_by"));
    const int64_t dim = heads.head_dim;
    naive::Matrix core(run.x.rows, heads.heads * dim);
    for (int64_t i = 0; i < run.x.rows; ++i)
      for (int64_t h = 0; h < heads.heads; ++h) {
        std::vector<double> weights;
        for (int64_t j = 0; j <= m.offset + i; ++j) {
          double s = 0;
          for (int64_t p = 0; p < dim; ++p) s += m.q(i, h * dim + p) * m.k(j, key_heads[h] * dim + p);
          const double slope = heads.slopes.empty() ? 0 : heads.slopes[h];
          weights.push_back(s / std::sqrt(static_cast<double>(dim)) - slope * static_cast<double>(m.offset + i - j));
        }
        naive::softmax(weights);
        for (int64_t j = 0; j <= m.offset + i; ++j)
          for (int64_t p = 0; p < dim; ++p) core(i, h * dim + p) += weights[j] * m.v(j, key_heads[h] * dim + p);
      }
    return naive::linear(core, run.w, "out");
  }

  Options o;
  AttentionHeads heads;
  Parameter norms, dealt_by, passes;
};

}  // namespace

void register_key_driven(Registry<Mixer>& r) {
  r.add<KeyDriven>("key_driven");
}

}  // namespace sennit::mixers
