// Efficient Content-Based Sparse Attention with Routing Transformers (Roy et al., arXiv:2003.05997), sections 4 and 5:
// queries and keys are one, x = LN(W_q u), of one length; each head has centroids, a token belongs to the one that it
// points to most nearly, and reads what is in its cluster,
//   c_i = argmax_c x_i . mu_c / |mu_c|,   y_i = W_o concat_h sum_{j in the last w of cluster c_i up to i}
//   softmax_j(x_i . x_j / sqrt(K)) v_j
// and a part of the heads reads the last w tokens, with keys of its own. While training, mu_c <- decay mu_c +
// (1 - decay) mean of the x in its cluster, a step of online k-means; no gradient reaches a centroid
// (mixers/centroids.h).
//
// The paper lets each centroid take the w tokens nearest to it in all of the sequence. Which ones these are hangs on
// later tokens, so that the past would change. Here a token takes its centroid, and of its cluster what came before:
// the cost is that of clusters of w tokens, and where clusters are even it is the same sparsity.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "mixers/centroids.h"
#include "mixers/heads.h"
#include "mixers/key_lists.h"
#include "nn/naive_sequence.h"
#include "ops/layout.h"
#include "ops/norms.h"
#include "positions/position.h"
#include "sequence/corrected_attention.h"
#include "sequence/seen.h"

namespace sennit::mixers {
namespace {

struct Routing : Mixer {
  static constexpr double kNormEpsilon = 1e-5;

  struct Options {
    int64_t heads = 4, clusters = 16, window = 32;
    double local = 0.5, decay = 0.99;
    Json position = "rope";
    Fields fields() {
      return {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
              {"clusters", &clusters, "centroids a head", {.min = 1, .max = 1 << 20}},
              {"window", &window, "keys of a query at most", {.min = 1, .max = 1 << 24}},
              {"local", &local, "part of the heads that reads the last tokens of all", {.min = 0, .max = 1}},
              {"decay", &decay, "of the centroids, for a forward pass of training", {.min = 0, .max = 1}},
              {"position", &position, "how order is told, by turning queries and keys"}};
    }
  };
  static Info info() {
    return {.title = "Attention within clusters (Routing Transformer)",
            .paper = "arXiv:2003.05997",
            .equation = "y_i = sum_{j in the last w of i's cluster} softmax_j(x_i x_j / sqrt(K)) v_j, x = LN(W u)",
            .cost = "O(n d (clusters + window))",
            .settings = {{"one cluster", R"({"clusters": 1, "local": 0, "window": 9, "position": "none"})"},
                         {"clusters alone", R"({"clusters": 3, "local": 0, "heads": 2, "window": 5})"}}};
  }
  Routing(const Dims& d, const Options& options, Rng rng)
      : o(options), dim(head_dim("routing", d.d_model, options.heads)) {
    local = static_cast<int64_t>(o.local * static_cast<double>(o.heads));
    position = positions::registry().make(o.position, {o.heads, dim}, rng, "position");
    if (!position->slopes().empty()) fail({"routing", "a position that turns queries and keys", json_text(o.position)});
    q = Linear(d.d_model, d.d_model, rng.fork("q"));
    v = Linear(d.d_model, d.d_model, rng.fork("v"));
    out = Linear(d.d_model, d.d_model, rng.fork("out"), {.scale = d.out_scale});
    if (local) k = Linear(d.d_model, local * dim, rng.fork("k"));
    if (routed()) centroids = Centroids(routed(), o.clusters, dim, rng.fork("centroids"));
  }
  void visit(const ParameterVisitor& p) override {
    p("q", q), p("v", v), p("out", out);
    if (local) p("k", k);
    if (routed()) p("centroids", centroids);
  }
  int64_t width() const { return o.heads * dim; }
  int64_t routed() const { return o.heads - local; }  // the last heads
  bool chooses() const override { return routed() > 0 && o.clusters > 1; }
  StateSpec state_spec() const override {
    StateSpec spec = {{.name = "k", .shape = {1, width()}, .growth = Growth::per_token},
                      {.name = "v", .shape = {1, width()}, .growth = Growth::per_token}};
    if (routed()) spec.push_back({.name = "cluster", .shape = {1, routed()}, .growth = Growth::per_token});
    return spec;
  }
  KeyListOptions list_options() const {
    return {.buckets = o.clusters, .heads = routed(), .most = o.window, .fill = false};
  }

  struct Operands {
    Var x;              // of heads that are routed [N, routed dim], before their position
    Var queries, keys;  // [N, width]
  };
  Operands operands(const Var& u, std::span<const Segment> segments, const Context& c) {
    const Var all = q(u, c);
    Operands m;
    if (routed())
      m.x = layernorm(columns(all, local * dim, routed() * dim), {}, {},
                      {.groups = routed(), .epsilon = static_cast<float>(kNormEpsilon)});
    const auto turned = [&](const Var& near) {
      const Var parts[] = {near, m.x};
      return position->turn(!local ? m.x : routed() ? concat_columns(parts) : near, segments, o.heads);
    };
    m.queries = turned(local ? columns(all, 0, local * dim) : Var());
    m.keys = local ? turned(k(u, c)) : m.queries;
    return m;
  }
  struct Lists {
    std::optional<KeyLists> clusters;
    Pooled<AttentionSegment> segments;
    int64_t local, window;
    int64_t list(size_t segment, int64_t head, int64_t query, int32_t* keys) const {
      if (head >= local) return clusters->list(segment, head - local, query, keys);
      const int64_t end = segments[segment].offset + query + 1, first = std::max<int64_t>(0, end - window);
      std::iota(keys, keys + end - first, static_cast<int32_t>(first));
      return end - first;
    }
    int64_t ordered(size_t segment, int64_t head, int64_t n) const {
      return head < local ? n : clusters->ordered(segment, head - local, n);
    }
  };

  Var forward(const Var& u, const Batch& batch) override {
    check_batch<Routing>("routing", batch);
    const Context& c = *batch.context;
    const Operands m = operands(u, batch.segments, c);
    Tensor cluster;
    if (routed()) {
      cluster = centroids.of(m.x.value());
      if (choices && chooses()) follow_buckets(cluster, 0, batch.segments, *choices);
      if (c.training && recording()) centroids.move(m.x.value(), cluster, o.decay);
    }
    const SeenRows seen =
        routed() ? seen_rows({m.keys, v(u, c), Var(cluster)}, batch, 0) : seen_rows({m.keys, v(u, c)}, batch, 0);
    const auto lists = std::allocate_shared<Lists>(PoolAllocator<Lists>());
    lists->segments = seen.segments, lists->local = local, lists->window = o.window;
    if (routed()) lists->clusters.emplace(list_options(), cluster, seen.part(2), seen.segments);
    const Lists* const held = lists.get();
    const CorrectedOptions options{
        .heads = o.heads, .most = o.window, .scale = scale(), .order = [held](size_t s, int64_t h, int64_t n) {
          return held->ordered(s, h, n);
        }};
    return output(u, attend_listed({m.queries, seen.part(0), seen.part(1)}, seen.segments, options, key_source(lists)),
                  c);
  }
  float scale() const { return static_cast<float>(1 / std::sqrt(static_cast<double>(dim))); }
  Var output(const Var&, const Var& core, const Context& c) override { return out(core, c); }

  // As if clusters were even.
  int64_t flops(int64_t n) const override {
    int64_t pairs = 0;
    for (int64_t i = 0; i < n; ++i)
      pairs += local * std::min(i + 1, o.window) + routed() * std::min(i / o.clusters + 1, o.window);
    return 2 * n * width() * (3 * width() + local * dim) + 8 * n * width() + centroids.flops(n) +
           pairs * corrected_pair_flops(dim, dim, 0);
  }

  naive::Matrix naive(NaiveRun& run) const override {
    naive::Matrix x = naive::linear(run.x, run.w, "q");
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t h = local; h < o.heads; ++h) {
        double mean = 0, square = 0;
        for (int64_t p = h * dim; p < (h + 1) * dim; ++p) mean += x(t, p) / static_cast<double>(dim);
        for (int64_t p = h * dim; p < (h + 1) * dim; ++p) square += std::pow(x(t, p) - mean, 2);
        for (int64_t p = h * dim; p < (h + 1) * dim; ++p)
          x(t, p) = (x(t, p) - mean) / std::sqrt(square / static_cast<double>(dim) + kNormEpsilon);
      }
    naive::Matrix asked, cluster;
    if (routed())
      cluster =
          naive::with_kept(run.state["cluster"], asked = centroids.naive_of(run, "centroids", x, local * dim, choices));
    naive::Matrix own = x;  // keys
    if (local) {
      const naive::Matrix near = naive::linear(run.x, run.w, "k");
      for (int64_t t = 0; t < x.rows; ++t)
        for (int64_t c = 0; c < near.cols; ++c) own(t, c) = near(t, c);
    }
    for (naive::Matrix* rows : {&x, &own})
      for (int64_t t = 0; t < x.rows; ++t)
        for (int64_t h = 0; h < o.heads; ++h) position->naive_turn(&(*rows)(t, h * dim), run.position + t, h, o.heads);
    const naive::Matrix ks = naive::with_kept(run.state["k"], own),
                        vs = naive::with_kept(run.state["v"], naive::linear(run.x, run.w, "v"));
    naive::Matrix core(x.rows, width());
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t h = 0; h < o.heads; ++h) {
        const int64_t place = ks.rows - x.rows + t;
        std::vector<int64_t> keys;
        if (h >= local)
          keys = naive_key_list(list_options(), asked, cluster, t, h - local);
        else
          for (int64_t j = std::max<int64_t>(0, place - o.window + 1); j <= place; ++j) keys.push_back(j);
        std::vector<double> weights;
        for (const int64_t j : keys) {
          double score = 0;
          for (int64_t p = h * dim; p < (h + 1) * dim; ++p) score += x(t, p) * ks(j, p);
          weights.push_back(score / std::sqrt(static_cast<double>(dim)));
        }
        naive::softmax(weights);
        for (size_t at = 0; at < keys.size(); ++at)
          for (int64_t p = h * dim; p < (h + 1) * dim; ++p) core(t, p) += weights[at] * vs(keys[at], p);
      }
    return naive::linear(core, run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& u, const Context& c) override {
    const int64_t n = u.rows();
    const Segment whole[] = {{0, n, 0, nullptr}};
    const AttentionSegment all[] = {{0, n, 0, 0, n, 0}};
    const Operands of = operands(u, whole, c);
    const Tensor qs = of.queries.value(), ks = of.keys.value();
    Lists lists{{}, {all[0]}, local, o.window};
    const Var cluster = routed() ? Var(centroids.of(of.x.value())) : Var();
    if (routed()) lists.clusters.emplace(list_options(), cluster.value(), std::span(&cluster, 1), all);
    ImplicitMatrix m{Tensor::zeros({o.heads, n, n}), v(u, c).value()};
    Pooled<int32_t> keys(static_cast<size_t>(o.window));
    for (int64_t h = 0; h < o.heads; ++h)
      for (int64_t i = 0; i < n; ++i) {
        std::vector<double> weights(static_cast<size_t>(i + 1), -INFINITY);
        const int64_t count = lists.list(0, h, i, keys.data());
        for (int64_t at = 0; at < count; ++at) {
          double score = 0;
          for (int64_t p = h * dim; p < (h + 1) * dim; ++p)
            score += double{qs.data()[i * width() + p]} * ks.data()[keys[at] * width() + p];
          weights[keys[at]] = score / std::sqrt(static_cast<double>(dim));
        }
        naive::softmax(weights);
        for (int64_t j = 0; j <= i; ++j) m.weights.data()[(h * n + i) * n + j] = static_cast<float>(weights[j]);
      }
    return m;
  }

  Options o;
  int64_t dim, local = 0;
  std::unique_ptr<Position> position;
  Linear q, k, v, out;
  Centroids centroids;  // of the heads that are routed
};

}  // namespace

void register_routing(Registry<Mixer>& r) {
  r.add<Routing>("routing");
}

}  // namespace sennit::mixers
