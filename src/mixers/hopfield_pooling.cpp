// Hopfield Networks is All You Need (Ramsauer et al., arXiv:2008.02217), section 3, HopfieldPooling: the state pattern
// is learned, one a head, and retrieves from the tokens of its whole sequence:
//   r <- softmax(beta r K_h^T) K_h   updates - 1 times from r = the learned state
//   y = W_o concat_h softmax(beta r K_h^T) V_h
// Every token is given the sequence's y, so that a model may read it anywhere.
#include <algorithm>
#include <cmath>

#include "mixers/heads.h"
#include "mixers/retrieval.h"
#include "nn/init.h"
#include "ops/layout.h"

namespace sennit::mixers {
namespace {

struct HopfieldPooling : Mixer {
  struct Options {
    int64_t heads = 4;
    Retrieval retrieval;
    Fields fields() {
      Fields all = retrieval.fields();
      all.insert(all.begin(), {{"heads", &heads, "heads", {.min = 1, .max = 1024}}});
      return all;
    }
  };
  static Info info() {
    return {.title = "Hopfield pooling (a learned state)",
            .paper = "arXiv:2008.02217",
            .equation = "y = softmax(beta r K^T) V for every token, r learned and then retrieved",
            .cost = "O(n d^2)",
            .patterns = {Pattern::bidirectional},
            .no_state = "every token sees those after it",
            .settings = {{"three updates", R"({"updates": 3, "tolerance": 0.1})"}}};
  }
  HopfieldPooling(const Dims& d, const Options& o, Rng rng)
      : options(o), dim(head_dim("hopfield_pooling", d.d_model, o.heads)) {
    options.retrieval.set_beta(dim);
    asked.init(normal_init({1, d.d_model}, 1, rng.fork("asked")));
    k = Linear(d.d_model, d.d_model, rng.fork("k"));
    v = Linear(d.d_model, d.d_model, rng.fork("v"));
    out = Linear(d.d_model, d.d_model, rng.fork("out"), {.scale = d.out_scale});
  }
  void visit(const ParameterVisitor& p) override {
    p("asked", asked);
    p("k", k);
    p("v", v);
    p("out", out);
  }
  StateSpec state_spec() const override { return {}; }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<HopfieldPooling>("hopfield_pooling", batch);
    const Context& c = *batch.context;
    std::vector<int64_t> first, of_row(static_cast<size_t>(x.rows()), 0);
    std::vector<AttentionSegment> segments;
    for (const Segment& s : batch.segments) {
      if (!s.length) continue;
      const int64_t query = std::ssize(segments);
      std::fill_n(of_row.begin() + s.begin, s.length, query);
      segments.push_back({query, 1, 0, s.begin, s.length, 0});
      first.push_back(0);
    }
    if (segments.empty()) return Var(Tensor::zeros(x.shape()));
    const Var keys[] = {k(x, c)}, values[] = {v(x, c)};
    const AttentionOptions one = options.retrieval.attention(options.heads, false);
    const Var state = settled(gather_rows(asked, first), keys, segments, one, options.retrieval);
    return gather_rows(out(attention(state, keys, values, segments, one), c), of_row);
  }
  int64_t flops(int64_t n) const override {
    const int64_t d = out.out();
    return 4 * n * d * d + 2 * d * d + 4 * options.retrieval.updates * n * d;
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix keys = naive::linear(run.x, run.w, "k"), values = naive::linear(run.x, run.w, "v");
    const naive::AttentionView view{options.heads, options.retrieval.beta, false};
    const naive::Matrix state = naive_settled(run.w.at("asked"), keys, view, options.retrieval);
    const naive::Matrix pooled = naive::linear(naive::attention(state, keys, values, view), run.w, "out");
    naive::Matrix y(run.x.rows, pooled.cols);
    for (int64_t t = 0; t < y.rows; ++t)
      for (int64_t c = 0; c < y.cols; ++c) y(t, c) = pooled(0, c);
    return y;
  }

  // What the state reads last: the same row for every token.
  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const int64_t n = x.rows(), heads = options.heads, width = heads * dim;
    const Var keys[] = {k(x, c)};
    const AttentionSegment whole[] = {{0, 1, 0, 0, n, 0}};
    const Tensor state =
        settled(asked, keys, whole, options.retrieval.attention(heads, false), options.retrieval).value();
    ImplicitMatrix m{Tensor({heads, n, n}), v(x, c).value()};
    std::vector<double> row(static_cast<size_t>(n));
    for (int64_t h = 0; h < heads; ++h) {
      std::fill(row.begin(), row.end(), 0.0);
      for (int64_t j = 0; j < n; ++j)
        for (int64_t i = h * dim; i < (h + 1) * dim; ++i)
          row[j] += options.retrieval.beta * state.data()[i] * keys[0].value().data()[j * width + i];
      const double top = *std::max_element(row.begin(), row.end());
      double total = 0;
      for (double& score : row) total += score = std::exp(score - top);
      for (int64_t t = 0; t < n; ++t)
        for (int64_t j = 0; j < n; ++j) m.weights.data()[(h * n + t) * n + j] = static_cast<float>(row[j] / total);
    }
    return m;
  }
  Var output(const Var&, const Var& core, const Context& c) override { return out(core, c); }

  Options options;
  int64_t dim;
  Parameter asked;
  Linear k, v, out;
};

}  // namespace

void register_hopfield_pooling(Registry<Mixer>& r) {
  r.add<HopfieldPooling>("hopfield_pooling");
}

}  // namespace sennit::mixers
