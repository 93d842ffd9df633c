// Efficient Content-Based Sparse Attention with Routing Transformers (Roy et al., arXiv:2003.05997), sections 4 and 5:
// queries and keys are one, x = LN(W_q u), of one length; each head has centroids, a token belongs to the one that it
// points to most nearly, and reads what is in its cluster,
//   c_i = argmax_c x_i . mu_c / |mu_c|,   y_i = W_o concat_h sum_{j in the last w of cluster c_i up to i}
//   softmax_j(x_i . x_j / sqrt(K)) v_j
// and a part of the heads reads the last w tokens. While training, mu_c <- decay mu_c + (1 - decay) mean of the x in
// its cluster, a step of online k-means; no gradient reaches a centroid. The paper lets each centroid take the w tokens
// nearest to it in all of the sequence. Which ones these are hangs on later tokens, so that the past would change. Here
// a token takes its centroid, and of its cluster what came before: the cost is that of clusters of w tokens, the result
// causal, and where clusters are even it is the same sparsity.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "mixers/heads.h"
#include "mixers/key_lists.h"
#include "nn/init.h"
#include "nn/naive_sequence.h"
#include "ops/layout.h"
#include "ops/norms.h"
#include "ops/products.h"
#include "positions/position.h"
#include "sequence/corrected_attention.h"
#include "sequence/seen.h"

namespace sennit::mixers {
namespace {

struct Routing : Mixer {
  static constexpr double kNormEpsilon = 1e-5;
  static constexpr float kLeastUse = 0.1f;  // of an even part of the tokens

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
    if (!routed()) return;
    centroids.init(normal_init({routed() * o.clusters, dim}, 1, rng.fork("centroids")));
    uses.init(Tensor::full({routed(), o.clusters}, 1 / static_cast<float>(o.clusters)));
    centroids.decays = centroids.learned = uses.decays = uses.learned = false;
  }
  void visit(const ParameterVisitor& p) override {
    p("q", q), p("v", v), p("out", out);
    p("centroids", centroids), p("uses", uses);
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

  // Of unturned rows [N, heads dim]: [N, routed].
  Tensor clusters_of(const Tensor& x) const {
    NoGrad off;
    const Var units = l2norm(Var(centroids.value()));
    Tensor all({x.rows(), routed()});
    for (int64_t h = 0; h < routed(); ++h) {
      const Tensor along = matmul(columns(Var(x), (local + h) * dim, dim), rows(units, h * o.clusters, o.clusters),
                                  {.transpose_b = true})
                               .value();
      for (int64_t i = 0; i < x.rows(); ++i) {
        const float* row = along.data() + i * o.clusters;
        all.data()[i * routed() + h] = static_cast<float>(std::max_element(row, row + o.clusters) - row);
      }
    }
    return all;
  }
  void move_centroids(const Tensor& x, const Tensor& cluster) {
    std::vector<double> sums(static_cast<size_t>(o.clusters * dim)), counts(static_cast<size_t>(o.clusters));
    for (int64_t h = 0; h < routed() && x.rows() > 0; ++h) {
      std::fill(sums.begin(), sums.end(), 0), std::fill(counts.begin(), counts.end(), 0);
      for (int64_t i = 0; i < x.rows(); ++i) {
        const auto c = static_cast<int64_t>(cluster.data()[i * routed() + h]);
        ++counts[c];
        for (int64_t p = 0; p < dim; ++p) sums[c * dim + p] += row_of(x, i, h)[p];
      }
      for (int64_t c = 0; c < o.clusters; ++c) {
        float *mu = centroid(h, c), &use = uses.var.value().data()[h * o.clusters + c];
        for (int64_t p = 0; p < dim && counts[c] > 0; ++p)
          mu[p] = static_cast<float>(o.decay * mu[p] + (1 - o.decay) * sums[c * dim + p] / counts[c]);
        use = static_cast<float>(o.decay * use + (1 - o.decay) * counts[c] / static_cast<double>(x.rows()));
        if (use >= kLeastUse / static_cast<float>(o.clusters)) continue;
        std::copy_n(row_of(x, furthest(x, cluster, h), h), dim, mu);
        use = 1 / static_cast<float>(o.clusters);
      }
    }
    ++centroids.version, ++uses.version;
  }
  const float* row_of(const Tensor& x, int64_t i, int64_t h) const {
    return x.data() + i * width() + (local + h) * dim;
  }
  float* centroid(int64_t h, int64_t c) { return centroids.var.value().data() + (h * o.clusters + c) * dim; }
  // The token that points least to its own centroid.
  int64_t furthest(const Tensor& x, const Tensor& cluster, int64_t h) {
    int64_t found = 0;
    double least = INFINITY;
    for (int64_t i = 0; i < x.rows(); ++i) {
      const float *row = row_of(x, i, h), *mu = centroid(h, static_cast<int64_t>(cluster.data()[i * routed() + h]));
      const double length = std::sqrt(std::inner_product(mu, mu + dim, mu, 1e-30)),
                   along = std::inner_product(row, row + dim, mu, 0.0) / length;
      if (along < least) least = along, found = i;
    }
    return found;
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
  };

  Var forward(const Var& u, const Batch& batch) override {
    check_batch<Routing>("routing", batch);
    const Context& c = *batch.context;
    const Var x = layernorm(q(u, c), {}, {}, {.groups = o.heads, .epsilon = static_cast<float>(kNormEpsilon)}),
              turned = position->turn(x, batch.segments, o.heads);
    Tensor cluster;
    if (routed()) {
      cluster = clusters_of(x.value());
      if (choices && chooses()) follow_buckets(cluster, 0, batch.segments, *choices);
      if (c.training && recording()) move_centroids(x.value(), cluster);
    }
    const SeenRows seen =
        routed() ? seen_rows({turned, v(u, c), Var(cluster)}, batch, 0) : seen_rows({turned, v(u, c)}, batch, 0);
    const auto lists = std::allocate_shared<Lists>(PoolAllocator<Lists>());
    lists->segments = seen.segments, lists->local = local, lists->window = o.window;
    if (routed()) lists->clusters.emplace(list_options(), cluster, seen.part(2), seen.segments);
    const Lists* const held = lists.get();  // a function that holds only a pointer asks for nothing
    KeySource source = [held](size_t s, int64_t h, int64_t i, int32_t* keys) { return held->list(s, h, i, keys); };
    if (recording())
      source = [lists, source](size_t s, int64_t h, int64_t i, int32_t* keys) { return source(s, h, i, keys); };
    return output(u,
                  attend_listed({turned, seen.part(0), seen.part(1)}, seen.segments,
                                {.heads = o.heads, .most = o.window, .scale = scale()}, std::move(source)),
                  c);
  }
  float scale() const { return static_cast<float>(1 / std::sqrt(static_cast<double>(dim))); }
  Var output(const Var&, const Var& core, const Context& c) override { return out(core, c); }

  // As if clusters were even.
  int64_t flops(int64_t n) const override {
    int64_t pairs = 0;
    for (int64_t i = 0; i < n; ++i)
      pairs += local * std::min(i + 1, o.window) + routed() * std::min(i / o.clusters + 1, o.window);
    return 6 * n * width() * width() + 8 * n * width() + 2 * n * routed() * o.clusters * dim +
           pairs * corrected_pair_flops(dim, dim, 0);
  }

  naive::Matrix naive_clusters(const NaiveRun& run, const naive::Matrix& x) const {
    naive::Matrix all(x.rows, routed());
    const naive::Matrix& mu = run.w.at("centroids");
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t h = 0; h < routed(); ++h) {
        std::vector<double> scores(static_cast<size_t>(o.clusters));
        for (int64_t c = 0; c < o.clusters; ++c) {
          double square = 0;
          for (int64_t p = 0; p < dim; ++p) {
            scores[c] += x(t, (local + h) * dim + p) * mu(h * o.clusters + c, p);
            square += mu(h * o.clusters + c, p) * mu(h * o.clusters + c, p);
          }
          scores[c] /= std::sqrt(square);
        }
        all(t, h) = chosen_bucket({0, h, run.position + t}, std::move(scores), choices);
      }
    return all;
  }
  naive::Matrix naive(NaiveRun& run) const override {
    naive::Matrix x = naive::linear(run.x, run.w, "q");
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t h = 0; h < o.heads; ++h) {
        double mean = 0, square = 0;
        for (int64_t p = h * dim; p < (h + 1) * dim; ++p) mean += x(t, p) / static_cast<double>(dim);
        for (int64_t p = h * dim; p < (h + 1) * dim; ++p) square += std::pow(x(t, p) - mean, 2);
        for (int64_t p = h * dim; p < (h + 1) * dim; ++p)
          x(t, p) = (x(t, p) - mean) / std::sqrt(square / static_cast<double>(dim) + kNormEpsilon);
      }
    naive::Matrix asked, cluster;
    if (routed()) cluster = naive::with_kept(run.state["cluster"], asked = naive_clusters(run, x));
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t h = 0; h < o.heads; ++h) position->naive_turn(&x(t, h * dim), run.position + t, h, o.heads);
    const naive::Matrix ks = naive::with_kept(run.state["k"], x),
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
    const Var x = layernorm(q(u, c), {}, {}, {.groups = o.heads, .epsilon = static_cast<float>(kNormEpsilon)});
    const Tensor turned = position->turn(x, whole, o.heads).value();
    Lists lists{{}, {all[0]}, local, o.window};
    const Var cluster = routed() ? Var(clusters_of(x.value())) : Var();
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
            score += double{turned.data()[i * width() + p]} * turned.data()[keys[at] * width() + p];
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
  Linear q, v, out;
  Parameter centroids, uses;  // [routed clusters, dim]; the running part of a head's tokens [routed, clusters]
};

}  // namespace

void register_routing(Registry<Mixer>& r) {
  r.add<Routing>("routing");
}

}  // namespace sennit::mixers
