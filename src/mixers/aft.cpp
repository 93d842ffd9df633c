// An Attention Free Transformer (Zhai et al., arXiv:2105.14103), with one channel's worth of query a channel:
//   y_t = W_o (sigmoid(q_t) * sum_{s<=t} exp(k_s + w_ts) * v_s / sum_{s<=t} exp(k_s + w_ts))
// Learned weights w within a window, shared by the channels of a head, and 0 beyond it, so that what is far is a
// running mean. They are those of distances, w_{t-s} (AFT-conv, section 3.3), or with `rank` those of pairs of
// positions, w_ts = u_t . p_s (AFT-local, section 3.2, and AFT-full, equation 2, where the window is the length).
// AFT-simple, all w = 0, is a setting of latte.
#include "sequence/aft.h"

#include <cmath>

#include "mixers/mixer.h"
#include "nn/init.h"
#include "ops/arithmetic.h"
#include "ops/maps.h"

namespace sennit::mixers {
namespace {

struct Aft : Mixer {
  struct Options {
    int64_t heads = 4, window = 32, rank = 0, length = 2048;
    Fields fields() {
      return {{"heads", &heads, "heads, each with weights of its own", {.min = 1, .max = 1024}},
              {"window", &window, "how far back learned weights reach", {.min = 1, .max = 65536}},
              {"rank", &rank, "of the weights of pairs of positions; 0: weights of distances", {.min = 0, .max = 1024}},
              {"length", &length, "positions, with a rank: longer sequences are refused", {.min = 1, .max = 1 << 24}}};
    }
  };
  static Info info() {
    return {.title = "Attention-free transformer",
            .paper = "arXiv:2105.14103",
            .equation = "y_t = sigmoid(q_t) * sum_s exp(k_s + w_ts) * v_s / sum_s exp(k_s + w_ts)",
            .cost = "O(n d window)",
            .settings = {{"short", R"({"window": 3, "heads": 1})"},
                         {"AFT-local", R"({"rank": 8, "window": 5})"},
                         {"AFT-full", R"({"rank": 4, "window": 256, "heads": 1})"}}};
  }

  Aft(const Dims& d, const Options& o, Rng rng) : options(o), width(d.d_model) {
    if (width % o.heads)
      fail({"aft", fmt::format("heads that divide d_model = {}", width), fmt::format("heads = {}", o.heads)});
    q = Linear(width, width, rng.fork("q"));
    k = Linear(width, width, rng.fork("k"));
    v = Linear(width, width, rng.fork("v"));
    out = Linear(width, width, rng.fork("out"), {.scale = d.out_scale});
    if (!o.rank) {
      distances.init(normal_init({o.heads, o.window}, 0.1, rng.fork("distances")));
    } else {  // products start as distances do
      const double size = std::sqrt(0.1) / std::pow(static_cast<double>(o.rank), 0.25);
      readers.init(normal_init({o.length, o.heads * o.rank}, size, rng.fork("readers")));
      read.init(normal_init({o.length, o.heads * o.rank}, size, rng.fork("read")));
    }
    distances.decays = readers.decays = read.decays = false;
  }

  void visit(const ParameterVisitor& p) override {
    p("q", q);
    p("k", k);
    p("v", v);
    p("out", out);
    p("distances", distances);
    p("readers", readers);
    p("read", read);
  }
  StateSpec state_spec() const override {
    const Shape near{options.window, width};
    return {{"far_log_sum", {1, width}}, {"far_mean", {1, width}}, {"k", near}, {"v", near}};
  }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Aft>("aft", batch);
    const Context& c = *batch.context;
    return output(x, aft(k(x, c), v(x, c), {distances, readers, read, options.heads, options.window}, batch, 0), c);
  }
  Var output(const Var& x, const Var& core, const Context& c) override { return out(core * sigmoid(q(x, c)), c); }
  int64_t flops(int64_t n) const override {
    const int64_t in = std::min(n, options.window),  // pairs of tokens of which one is near the other
        near = options.rank ? in * (in + 1) / 2 + (n - in) * options.window : n * options.window;
    return n * width * (8 * width + 16) + near * (5 * width + 2 * options.heads * options.rank);
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix qs = naive::linear(run.x, run.w, "q"), ks = naive::linear(run.x, run.w, "k");
    const naive::Matrix vs = naive::linear(run.x, run.w, "v");
    naive::Matrix &sums = run.state["far_log_sum"], &means = run.state["far_mean"], &near_k = run.state["k"],
                  &near_v = run.state["v"];
    if (!sums.rows) {
      sums = means = naive::Matrix(1, width), near_k = near_v = naive::Matrix(options.window, width);
      for (double& a : sums.a) a = -INFINITY;
      for (double& a : near_k.a) a = kAftNothing;
    }
    naive::Matrix y(run.x.rows, width);
    for (int64_t t = 0; t < run.x.rows; ++t) {
      const int64_t near = std::min(options.window, run.position + t + 1);
      naive::Matrix weights(options.heads, near);
      for (int64_t h = 0; h < options.heads; ++h)
        for (int64_t j = 0; j < near; ++j) weights(h, j) = naive_weight(run.w, h, run.position + t, j);
      for (int64_t c = 0; c < width; ++c) {
        double &sum = sums.a[c], &mean = means.a[c];
        const double high = std::fmax(sum, near_k(0, c)),
                     next = high + std::log(std::exp(sum - high) + std::exp(near_k(0, c) - high));
        mean = std::exp(sum - next) * mean + std::exp(near_k(0, c) - next) * near_v(0, c);
        sum = next;
        for (int64_t j = 0; j + 1 < options.window; ++j)
          near_k(j, c) = near_k(j + 1, c), near_v(j, c) = near_v(j + 1, c);
        near_k(options.window - 1, c) = ks(t, c), near_v(options.window - 1, c) = vs(t, c);
        const auto score = [&](int64_t j) {
          return near_k(options.window - 1 - j, c) + weights(c * options.heads / width, j);
        };
        double top = sum, total = 0;
        for (int64_t j = 0; j < near; ++j) top = std::fmax(top, score(j));
        total = std::exp(sum - top), y(t, c) = total * mean;
        for (int64_t j = 0; j < near; ++j) {
          const double e = std::exp(score(j) - top);
          total += e, y(t, c) += e * near_v(options.window - 1 - j, c);
        }
        y(t, c) *= naive::sigmoid(qs(t, c)) / total;
      }
    }
    return naive::linear(y, run.w, "out");
  }

  // Of the token `back` before another.
  double naive_weight(const naive::Weights& w, int64_t head, int64_t position, int64_t back) const {
    if (!options.rank) return w.at("distances")(head, back);
    double sum = 0;
    for (int64_t r = head * options.rank; r < (head + 1) * options.rank; ++r)
      sum += w.at("readers")(position, r) * w.at("read")(position - back, r);
    return sum;
  }
  double weight(int64_t head, int64_t position, int64_t back) const {
    if (back >= options.window) return 0;
    if (!options.rank) return distances.value().data()[head * options.window + back];
    double sum = 0;
    for (int64_t r = head * options.rank; r < (head + 1) * options.rank; ++r)
      sum += double{readers.value().data()[position * options.heads * options.rank + r]} *
             read.value().data()[(position - back) * options.heads * options.rank + r];
    return sum;
  }

  // Of every channel: a softmax of keys and learned weights.
  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const Tensor ks = k(x, c).value();
    const int64_t n = x.rows();
    ImplicitMatrix m{Tensor::zeros({width, n, n}), v(x, c).value()};
    for (int64_t p = 0; p < width; ++p)
      for (int64_t i = 0; i < n; ++i) {
        const auto score = [&](int64_t j) {
          return double{ks.data()[j * width + p]} + weight(p * options.heads / width, i, i - j);
        };
        double top = -INFINITY, total = 0;
        for (int64_t j = 0; j <= i; ++j) top = std::fmax(top, score(j));
        for (int64_t j = 0; j <= i; ++j) total += std::exp(score(j) - top);
        for (int64_t j = 0; j <= i; ++j)
          m.weights.data()[(p * n + i) * n + j] = static_cast<float>(std::exp(score(j) - top) / total);
      }
    return m;
  }

  Options options;
  int64_t width;
  Linear q, k, v, out;
  Parameter distances, readers, read;
};

}  // namespace

void register_aft(Registry<Mixer>& r) {
  r.add<Aft>("aft");
}

}  // namespace sennit::mixers
