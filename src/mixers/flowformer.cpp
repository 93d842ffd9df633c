// Flowformer: Linearizing Transformers with Conservation Flows (Wu et al., arXiv:2202.06258), equations 4 to 9 in their
// causal form, with M_t the mean over the tokens up to t and f = sigmoid + 1e-6:
//   I_t = f(q_t) . M_t f(k),   O_t = f(k_t) . M_t f(q)               the flow into a query, out of a key
//   I'_t = f(q_t) . M_t (f(k) / O),   O'_t = f(k_t) . M_t (f(q) / I)  with the other side's flow held at one
//   c_t = exp(O'_t) / M_t exp(O'),   y_t = W_o sigmoid(I'_t) (f(q_t) / I_t)^T M_t (f(k) (c v)^T)
// Keys compete for the flow out (c), queries are given it by what flows in. Where it reads both ways M is the mean over
// the whole sequence.
#include <cmath>

#include "mixers/heads.h"
#include "ops/arithmetic.h"
#include "ops/maps.h"
#include "sequence/recurrences.h"
#include "sequence/whole.h"

namespace sennit::mixers {
namespace {

constexpr float kLeast = 1e-6f;  // of a feature

struct Flowformer : Heads {
  struct Options {
    int64_t heads = 4;
    Fields fields() { return {{"heads", &heads, "heads", {.min = 1, .max = 1024}}}; }
  };
  static Info info() {
    return {
        .title = "Flow attention",
        .paper = "arXiv:2202.06258",
        .equation =
            "y_t = sigmoid(I'_t) (f(q_t) / I_t)^T sum_s f(k_s) (c_s v_s)^T / t with conserved flows I, I' and shares c",
        .cost = "O(n d^2 / heads)",
        .patterns = {Pattern::causal, Pattern::bidirectional}};
  }

  Flowformer(const Dims& d, const Options& o, Rng rng) : Heads("flowformer", d, o.heads, rng) {}
  StateSpec state_spec() const override {
    const Shape row{1, heads * dim};
    return {{"S", {heads, dim, dim}}, {"keys", row},          {"queries", row},
            {"level_keys", row},      {"level_queries", row}, {"strengths", {1, heads}}};
  }

  // A mean moves by a share of 1 / t of what is new; the mean of a whole sequence has equal shares.
  struct Shares {
    Var log_decay, share;  // [N, H]
  };
  Shares shares(const Batch& batch) const {
    const bool causal = batch.pattern == Pattern::causal;
    Tensor g({batch.rows(), heads}), s(g.shape());
    for (const Segment& segment : batch.segments)
      for (int64_t t = 0; t < segment.length * heads; ++t) {
        const double count = static_cast<double>(causal ? segment.position + t / heads + 1 : segment.length);
        const int64_t at = segment.begin * heads + t;
        g.data()[at] = static_cast<float>(std::log1p(-1 / count));
        s.data()[at] = static_cast<float>(1 / count);
      }
    return {Var(g), Var(s)};
  }

  struct Core {
    Var q, k, v;  // f(q) sigmoid(I') / I, f(k), c v
  };
  Core core_inputs(const Var& x, const Batch& batch, const Shares& s) {
    const Context& c = *batch.context;
    const Var fq = affine(sigmoid(q(x, c)), 1, kLeast), fk = affine(sigmoid(k(x, c)), 1, kLeast);
    const bool causal = batch.pattern == Pattern::causal;
    const Var wide = causal ? multiply_groups(Var(Tensor::full(fq.shape(), 1)), s.log_decay) : Var();
    const auto mean = [&](const Var& y, size_t field) {
      const Var shared = multiply_groups(y, s.share);
      return causal ? diagonal_scan(shared, wide, batch, field) : sequence_sums(shared, batch.segments);
    };
    const auto flow = [&](const Var& a, const Var& b) { return sum_groups(a * b, heads); };
    const Var in = inverse(flow(fq, mean(fk, 1))), out_flow = inverse(flow(fk, mean(fq, 2)));
    const Var level_in = flow(fq, mean(multiply_groups(fk, out_flow), 3)),
              level_out = flow(fk, mean(multiply_groups(fq, in), 4));
    const Var strength = exp(affine(relu(affine(level_out, -1, 1)), -1, 1));  // of at most e
    const Var shared = strength * s.share,
              rivals = causal ? diagonal_scan(shared, s.log_decay, batch, 5) : sequence_sums(shared, batch.segments);
    const Var competition = strength * inverse(rivals);
    return {multiply_groups(fq, in * sigmoid(level_in)), fk, multiply_groups(v(x, c), competition)};
  }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Flowformer>("flowformer", batch);
    const Shares s = shares(batch);
    const Core in = core_inputs(x, batch, s);
    const Var values = multiply_groups(in.v, s.share);
    return output(x,
                  batch.pattern == Pattern::causal ? gla(in.q, in.k, values, s.log_decay, batch, {.heads = heads})
                                                   : whole_products(in.q, in.k, values, batch.segments, heads),
                  *batch.context);
  }
  int64_t flops(int64_t n) const override {
    const int64_t d = out.out();
    return n * (8 * d * d + 6 * d * dim + 34 * d + 25 * heads);
  }

  naive::Matrix naive(NaiveRun& run) const override {
    naive::Matrix qs = naive::linear(run.x, run.w, "q"), ks = naive::linear(run.x, run.w, "k");
    const naive::Matrix vs = naive::linear(run.x, run.w, "v");
    for (auto* m : {&qs, &ks})
      for (double& a : m->a) a = naive::sigmoid(a) + 1e-6;
    if (run.pattern == Pattern::bidirectional) return naive::linear(naive_whole(qs, ks, vs), run.w, "out");
    naive::Matrix &S = run.state["S"], &mk = run.state["keys"], &mq = run.state["queries"],
                  &lk = run.state["level_keys"], &lq = run.state["level_queries"], &strengths = run.state["strengths"];
    if (!S.rows) {
      S = naive::Matrix(heads, dim * dim), strengths = naive::Matrix(1, heads);
      for (auto* m : {&mk, &mq, &lk, &lq}) *m = naive::Matrix(1, width());
    }
    naive::Matrix core(run.x.rows, width());
    for (int64_t t = 0; t < run.x.rows; ++t)
      for (int64_t h = 0; h < heads; ++h) {
        const double count = static_cast<double>(run.position + t + 1);
        const auto move = [&](double& mean, double value) { mean += (value - mean) / count; };
        double in = 0, away = 0, level_in = 0, level_out = 0;
        for (int64_t p = h * dim; p < (h + 1) * dim; ++p) {
          move(mk.a[p], ks(t, p)), move(mq.a[p], qs(t, p));
          in += qs(t, p) * mk.a[p], away += ks(t, p) * mq.a[p];
        }
        for (int64_t p = h * dim; p < (h + 1) * dim; ++p) {
          move(lk.a[p], ks(t, p) / away), move(lq.a[p], qs(t, p) / in);
          level_in += qs(t, p) * lk.a[p], level_out += ks(t, p) * lq.a[p];
        }
        const double strength = std::exp(std::fmin(level_out, 1));
        move(strengths.a[h], strength);
        for (int64_t p = 0; p < dim; ++p)
          for (int64_t j = 0; j < dim; ++j) {
            double& s = S(h, p * dim + j);
            move(s, ks(t, h * dim + p) * strength / strengths.a[h] * vs(t, h * dim + j));
            core(t, h * dim + j) += naive::sigmoid(level_in) / in * qs(t, h * dim + p) * s;
          }
      }
    return naive::linear(core, run.w, "out");
  }

  // All pairs: in[t] and away[s] are rows and columns of the matrix of flows, and what they are once the other side's
  // is one says how strong a key is and how much a query is given.
  naive::Matrix naive_whole(const naive::Matrix& qs, const naive::Matrix& ks, const naive::Matrix& vs) const {
    const int64_t n = qs.rows;
    const double count = static_cast<double>(n);
    naive::Matrix core(n, width());
    for (int64_t h = 0; h < heads; ++h) {
      naive::Matrix flow(n, n), in(1, n), away(1, n), level_in(1, n), level_out(1, n);
      for (int64_t t = 0; t < n; ++t)
        for (int64_t s = 0; s < n; ++s) {
          for (int64_t p = h * dim; p < (h + 1) * dim; ++p) flow(t, s) += qs(t, p) * ks(s, p) / count;
          in.a[t] += flow(t, s), away.a[s] += flow(t, s);
        }
      double strengths = 0;
      for (int64_t s = 0; s < n; ++s) {
        for (int64_t t = 0; t < n; ++t) level_in.a[t] += flow(t, s) / away.a[s], level_out.a[s] += flow(t, s) / in.a[t];
      }
      for (int64_t s = 0; s < n; ++s) strengths += std::exp(std::fmin(level_out.a[s], 1)) / count;
      for (int64_t t = 0; t < n; ++t)
        for (int64_t s = 0; s < n; ++s)
          for (int64_t j = h * dim; j < (h + 1) * dim; ++j)
            core(t, j) += naive::sigmoid(level_in.a[t]) / in.a[t] * flow(t, s) *
                          std::exp(std::fmin(level_out.a[s], 1)) / strengths * vs(s, j);
    }
    return core;
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const Segment whole[] = {{0, x.rows(), 0, nullptr}};
    const Batch batch{whole, &c};
    const Core in = core_inputs(x, batch, shares(batch));
    ImplicitMatrix m = inner_products(in.q.value(), in.k.value(), in.v.value());
    const int64_t n = x.rows();
    for (int64_t i = 0; i < heads * n; ++i)
      for (int64_t j = 0; j < n; ++j) m.weights.data()[i * n + j] /= static_cast<float>(i % n + 1);
    return m;
  }
};

}  // namespace

void register_flowformer(Registry<Mixer>& r) {
  r.add<Flowformer>("flowformer");
}

}  // namespace sennit::mixers
