// Scatterbrain: Unifying Sparse and Low-rank Attention Approximation (Chen et al., arXiv:2110.15343), section 4.1:
// features of queries and keys estimate all weights, and for a few pairs S_i what they miss is put right,
//   y_i = W_o N_i / D_i,   N_i = sum_{j<=i} phi(q_i) . phi(k_j) v_j + sum_{j in S_i} (e^{s_ij} - phi(q_i) . phi(k_j))
//   v_j
// with s_ij = q_i . k_j / sqrt(K), and D_i the same with 1 in the place of v_j. phi are Performer's positive features
// (Choromanski et al., arXiv:2009.14794), phi_r(x) = exp(w_r . x / K^(1/4) - |x|^2 / (2 sqrt K)) / sqrt(features), of
// normal w_r, so that N and D are unbiased. S_i is found by hashing directions (Kitaev et al., arXiv:2001.04451): in
// each round a query and a key have the bucket argmax([R x, -R x]), and S_i takes the last pairs / rounds keys of the
// query's bucket; what then is missing of `pairs` keys are the last tokens. So the past never hangs on what comes
// later. Sums of features are kept as logarithms and means, and all weights of a row are less their largest exponent:
// the correction subtracts what the sum holds, however large. With `pairs` 0 it is a Performer, with `features` 0
// attention to S_i alone.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "mixers/hashed_keys.h"
#include "mixers/heads.h"
#include "mixers/key_lists.h"
#include "nn/init.h"
#include "nn/naive_sequence.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "ops/products.h"
#include "positions/position.h"
#include "sequence/corrected_attention.h"
#include "sequence/recurrences.h"
#include "sequence/running.h"
#include "sequence/seen.h"

namespace sennit::mixers {
namespace {

struct Scatterbrain : Heads {
  struct Options {
    int64_t heads = 4, features = 16, pairs = 16, buckets = 8, rounds = 2, seed = 0;
    Json position = "rope";
    Fields fields() {
      return {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
              {"features", &features, "random features of queries and keys; 0: none", {.min = 0, .max = 4096}},
              {"pairs", &pairs, "keys of a query that are exact; 0: none", {.min = 0, .max = 1 << 20}},
              {"buckets", &buckets, "of a round of hashing, an even number, or 1", {.min = 1, .max = 4096}},
              {"rounds", &rounds, "of hashing, no more than pairs", {.min = 1, .max = 64}},
              {"seed", &seed, "of the features and the hashing", {.min = 0, .max = 1e9}},
              {"position", &position, "how order is told, by turning queries and keys"}};
    }
  };
  static Info info() {
    return {
        .title = "Features with exact pairs (Scatterbrain)",
        .paper = "arXiv:2110.15343",
        .equation = "y_i = (sum_j phi(q_i) phi(k_j) v_j + sum_{j in S_i} (e^(s_ij) - phi(q_i) phi(k_j)) v_j) / D_i",
        .cost = "O(n d (features + pairs) + n heads pairs features)",
        .settings = {{"Performer", R"({"pairs": 0, "features": 9})"},
                     {"hashed keys",
                      R"({"features": 0, "pairs": 12, "buckets": 4, "rounds": 3, "position": "none"})"}}};
  }
  Scatterbrain(const Dims& d, const Options& opt, Rng rng)
      : Heads("scatterbrain", d, opt.heads, rng),
        o(opt),
        hashing("scatterbrain", opt.buckets, opt.rounds, dim, Rng(static_cast<uint64_t>(opt.seed)).fork("hash")) {
    if (o.features == 0 && o.pairs == 0) fail({"scatterbrain", "features or pairs", "neither"});
    if (o.pairs && o.rounds > o.pairs)
      fail({"scatterbrain", fmt::format("no more rounds than pairs = {}", o.pairs),
            fmt::format("rounds = {}", o.rounds)});
    position = positions::registry().make(o.position, {o.heads, dim}, rng, "position");
    if (!position->slopes().empty())
      fail({"scatterbrain", "a position that turns queries and keys", json_text(o.position)});
    if (o.features)
      directions = Var(normal_init({o.features, dim}, 1, Rng(static_cast<uint64_t>(o.seed)).fork("features")));
  }

  // The sums of features; keys and values, their buckets, and the logarithms of their features.
  StateSpec state_spec() const override {
    StateSpec spec;
    if (o.features) spec = {{"S", {heads, o.features, dim}}, {"log_sum", {1, heads * o.features}}};
    const auto keep = [&](const char* name, int64_t row) {
      spec.push_back({.name = name, .shape = {1, row}, .growth = Growth::per_token});
    };
    if (!o.pairs) return spec;
    keep("k", width()), keep("v", width()), keep("bucket", heads * o.rounds);
    if (o.features) keep("a", heads * o.features);
    return spec;
  }
  KeyListOptions list_options() const { return {.buckets = o.buckets, .heads = heads, .most = o.pairs, .fill = true}; }
  bool chooses() const override { return o.pairs > 0 && o.buckets > 1; }

  // w_r . x / K^(1/4) - |x|^2 / (2 sqrt K) + shift: [N, heads features]
  Var log_features(const Var& x, float shift, const Context& c) const {
    const Var along =
        matmul(reshape(x, {x.rows() * heads, dim}), directions, {.transpose_b = true, .precision = c.precision});
    const Var halves =
        affine(sum_groups(x * x, heads), static_cast<float>(-0.5 / std::sqrt(static_cast<double>(dim))), shift);
    return scale(reshape(along, {x.rows(), heads * o.features}), static_cast<float>(root())) +
           repeat_groups(halves, heads, o.features);
  }
  double root() const { return std::pow(static_cast<double>(dim), -0.25); }

  struct Estimate {
    Var b, a;           // logarithms of features: [N, heads features]
    Var mean, log_sum;  // of the values, of the weights: [N, width], [N, heads]
  };
  Estimate estimate(const Var& qs, const Var& ks, const Var& vs, const Batch& batch) const {
    if (!o.features) return {{}, {}, Var(Tensor::zeros(vs.shape())), Var(Tensor::full({vs.rows(), heads}, -INFINITY))};
    const Context& c = *batch.context;
    const Var b = log_features(qs, static_cast<float>(-std::log(static_cast<double>(o.features))), c),
              a = log_features(ks, 0, c);
    const RunningSoftmax past = running_softmax(a, batch, 1);
    const Var logits = b + a + softplus(scale(past.above, -1));
    const Var top(tops(logits.value()));
    const Var shares = exp(logits - repeat_groups(top, heads, o.features)), total = sum_groups(shares, heads);
    const Var mean =
        gla(multiply_groups(shares, inverse(total)), past.weight, vs, past.log_decay, batch, {.heads = heads});
    return {b, a, mean, log(total) + top};
  }
  Tensor tops(const Tensor& logits) const {
    Tensor top({logits.rows(), heads});
    for (int64_t i = 0; i < top.elements(); ++i)
      top.data()[i] = *std::max_element(logits.data() + i * o.features, logits.data() + (i + 1) * o.features);
    return top;
  }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Scatterbrain>("scatterbrain", batch);
    const Context& c = *batch.context;
    const Var qs = position->turn(q(x, c), batch.segments, heads), ks = position->turn(k(x, c), batch.segments, heads),
              vs = v(x, c);
    const Estimate e = estimate(qs, ks, vs, batch);
    return output(x, o.pairs ? corrected(qs, ks, vs, e, batch) : e.mean, c);
  }
  Var corrected(const Var& qs, const Var& ks, const Var& vs, const Estimate& e, const Batch& batch) {
    Tensor asked = hashing.buckets(qs.value(), heads), kept = hashing.buckets(ks.value(), heads);
    if (choices && chooses()) {
      follow_buckets(asked, 0, batch.segments, *choices);
      follow_buckets(kept, 1, batch.segments, *choices);
    }
    const Var bucket(kept);
    const SeenRows seen =
        o.features ? seen_rows({ks, vs, bucket, e.a}, batch, 2) : seen_rows({ks, vs, bucket}, batch, 0);
    const auto lists =
        std::allocate_shared<KeyLists>(PoolAllocator<KeyLists>(), list_options(), asked, seen.part(2), seen.segments);
    return corrected_attention({.q = qs,
                                .b = e.b,
                                .k = seen.part(0),
                                .v = seen.part(1),
                                .a = o.features ? seen.part(3) : std::span<const Var>(),
                                .mean = e.mean,
                                .log_sum = e.log_sum},
                               seen.segments, {.heads = heads, .most = o.pairs, .scale = scale_of_scores()},
                               key_source(lists));
  }
  float scale_of_scores() const { return static_cast<float>(1 / std::sqrt(static_cast<double>(dim))); }

  int64_t flops(int64_t n) const override {
    const int64_t f = heads * o.features, few = std::min(n, o.pairs), pairs = few * (few + 1) / 2 + (n - few) * few;
    return map_flops(n) + n * f * (4 * dim + 6 * dim + 26) +
           (o.pairs ? hashing.flops(2 * n * heads) + heads * pairs * corrected_pair_flops(dim, dim, o.features) : 0);
  }

  // Sums of exponentials are logarithms here too.
  naive::Matrix naive_features(const naive::Matrix& x) const {
    naive::Matrix f(x.rows, heads * o.features);
    for (int64_t i = 0; i < f.rows; ++i)
      for (int64_t j = 0; j < f.cols; ++j)
        for (int64_t p = 0; p < dim; ++p) {
          const double number = x(i, j / o.features * dim + p) * root();
          f(i, j) += directions.value().data()[j % o.features * dim + p] * number - number * number / 2;
        }
    return f;
  }
  // Token t joins what feature j of all heads has summed: its logarithm and the mean of the values.
  void naive_join(NaiveRun& run, int64_t t, int64_t j, double a, const naive::Matrix& vs) const {
    double& sum = run.state["log_sum"].a[j];
    const double high = std::fmax(sum, a), next = high + std::log(std::exp(sum - high) + std::exp(a - high));
    for (int64_t p = 0; p < dim; ++p) {
      double& mean = run.state["S"].a[j * dim + p];
      mean = std::exp(sum - next) * mean + std::exp(a - next) * vs(t, j / o.features * dim + p);
    }
    sum = next;
  }
  naive::Matrix naive(NaiveRun& run) const override {
    naive::Matrix qs = naive::linear(run.x, run.w, "q"), ks = naive::linear(run.x, run.w, "k");
    for (int64_t t = 0; t < qs.rows; ++t)
      for (int64_t h = 0; h < heads; ++h) {
        position->naive_turn(&qs(t, h * dim), run.position + t, h, heads);
        position->naive_turn(&ks(t, h * dim), run.position + t, h, heads);
      }
    const naive::Matrix vs = naive::linear(run.x, run.w, "v"), fq = naive_features(qs), fk = naive_features(ks);
    if (o.features && !run.state["S"].rows) {
      run.state["S"] = naive::Matrix(heads, o.features * dim);
      run.state["log_sum"] = naive::Matrix(1, heads * o.features);
      for (double& s : run.state["log_sum"].a) s = -INFINITY;
    }
    naive::Matrix asked, all_k, all_v, all_b, all_a;
    if (o.pairs) {
      asked = hashing.naive_buckets(qs, heads, 0, run.position, choices);
      all_b = naive::with_kept(run.state["bucket"], hashing.naive_buckets(ks, heads, 1, run.position, choices));
      all_k = naive::with_kept(run.state["k"], ks), all_v = naive::with_kept(run.state["v"], vs);
      if (o.features) all_a = naive::with_kept(run.state["a"], fk);
    }
    const double log_count = std::log(static_cast<double>(o.features));
    naive::Matrix core(qs.rows, width());
    for (int64_t t = 0; t < qs.rows; ++t)
      for (int64_t h = 0; h < heads; ++h) {
        // Exponents less the largest: the sums' of features, the exact keys', and those of what the features said of
        // them.
        std::vector<double> sums, scores;
        double top = -INFINITY, total = 0;
        for (int64_t j = h * o.features; j < (h + 1) * o.features; ++j) {
          naive_join(run, t, j, fk(t, j), vs);
          sums.push_back(fq(t, j) - log_count + run.state["log_sum"].a[j]);
          top = std::fmax(top, sums.back());
        }
        const std::vector<int64_t> keys =
            o.pairs ? naive_key_list(list_options(), asked, all_b, t, h) : std::vector<int64_t>();
        for (const int64_t s : keys) {
          double score = 0;
          for (int64_t p = h * dim; p < (h + 1) * dim; ++p) score += qs(t, p) * all_k(s, p);
          scores.push_back(score / std::sqrt(static_cast<double>(dim)));
          top = std::fmax(top, scores.back());
        }
        const auto join = [&](double weight, const double* value) {
          total += weight;
          for (int64_t p = 0; p < dim; ++p) core(t, h * dim + p) += weight * value[p];
        };
        for (int64_t r = 0; r < o.features; ++r)
          join(std::exp(sums[r] - top), &run.state["S"].a[(h * o.features + r) * dim]);
        for (size_t at = 0; at < keys.size(); ++at) {
          double weight = std::exp(scores[at] - top);
          for (int64_t j = h * o.features; j < (h + 1) * o.features; ++j)
            weight -= std::exp(fq(t, j) - log_count + all_a(keys[at], j) - top);
          join(weight, &all_v(keys[at], h * dim));
        }
        for (int64_t p = h * dim; p < (h + 1) * dim; ++p) core(t, p) /= total;
      }
    return naive::linear(core, run.w, "out");
  }

  // A weight is the estimate's, or, of an exact key, the true one.
  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const int64_t n = x.rows();
    const Segment whole[] = {{0, n, 0, nullptr}};
    const AttentionSegment all[] = {{0, n, 0, 0, n, 0}};
    const Var qs = position->turn(q(x, c), whole, heads), ks = position->turn(k(x, c), whole, heads);
    const Var buckets(hashing.buckets(ks.value(), heads));
    const KeyLists lists(list_options(), hashing.buckets(qs.value(), heads), {&buckets, 1}, all);
    ImplicitMatrix m{Tensor::zeros({heads, n, n}), v(x, c).value()};
    const Tensor b = o.features ? log_features(qs, 0, c).value() : Tensor(),
                 a = o.features ? log_features(ks, 0, c).value() : b;
    Pooled<int32_t> keys(static_cast<size_t>(o.pairs));
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < n; ++i) {
        std::vector<double> logits(static_cast<size_t>(i + 1), -INFINITY);
        if (o.features)
          for (int64_t j = 0; j <= i; ++j) logits[j] = log_estimate(b, a, i, j, h);
        const int64_t count = o.pairs ? lists.list(0, h, i, keys.data()) : 0;
        for (int64_t at = 0; at < count; ++at) logits[keys[at]] = score(qs.value(), ks.value(), i, keys[at], h);
        naive::softmax(logits);
        for (int64_t j = 0; j <= i; ++j) m.weights.data()[(h * n + i) * n + j] = static_cast<float>(logits[j]);
      }
    return m;
  }
  double log_estimate(const Tensor& b, const Tensor& a, int64_t i, int64_t j, int64_t head) const {
    const auto logit = [&](int64_t r) {
      const int64_t at = head * o.features + r;
      return double{b.data()[i * b.row_size() + at]} + a.data()[j * a.row_size() + at];
    };
    double top = -INFINITY, sum = 0;
    for (int64_t r = 0; r < o.features; ++r) top = std::fmax(top, logit(r));
    for (int64_t r = 0; r < o.features; ++r) sum += std::exp(logit(r) - top);
    return top + std::log(sum / static_cast<double>(o.features));
  }
  double score(const Tensor& qs, const Tensor& ks, int64_t i, int64_t j, int64_t head) const {
    double s = 0;
    for (int64_t p = head * dim; p < (head + 1) * dim; ++p)
      s += double{qs.data()[i * width() + p]} * ks.data()[j * width() + p];
    return s / std::sqrt(static_cast<double>(dim));
  }

  Options o;
  HashedKeys hashing;
  std::unique_ptr<Position> position;
  Var directions;
};

}  // namespace

void register_scatterbrain(Registry<Mixer>& r) {
  r.add<Scatterbrain>("scatterbrain");
}

}  // namespace sennit::mixers
