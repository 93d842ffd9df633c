// ScatterFormer: Efficient Voxel Transformer with Scattered Linear Attention (He et al., arXiv:2401.00912),
// section 3.2: linear attention inside each window of tokens that are scattered over a plane, windows of any number of
// tokens,
//   y_i = W_o concat_h S_w^T f(q_i) / (f(q_i) . z_w + 1e-6),   S_w = sum over window w of f(k_j) v_j^T,  z_w of f(k_j)
// f is relu, or 1 + elu, which is never 0. Tokens are sorted by window, sums are of runs, and nothing is padded. Where
// the batch says nothing of places, tokens fill a line or a grid. What crosses windows is strip_conv's.
#include "mixers/heads.h"
#include "nn/activation.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "sequence/whole.h"
#include "sequence/windows.h"

namespace sennit::mixers {
namespace {

constexpr float kLeastWeight = 1e-6f;

struct Scattered : Heads {
  struct Options {
    int64_t heads = 4, side = 8, columns = 0;
    std::string map = "relu";
    Fields fields() {
      return {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
              {"side", &side, "places on a side of a window", {.min = 1, .max = 4096}},
              columns_field(&columns),
              {"map", &map, "what makes queries and keys positive", {.choices = {"relu", "elu"}}}};
    }
  };
  static Info info() {
    return {.title = "Scattered linear attention (ScatterFormer)",
            .paper = "arXiv:2401.00912",
            .equation =
                "y_i = S_w^T f(q_i) / (f(q_i) . z_w), S_w and z_w the sums of f(k_j) v_j^T and f(k_j) in i's window",
            .cost = "O(n d^2 / heads)",
            .patterns = {Pattern::bidirectional},
            .no_state = "every token sees those after it",
            .settings = {{"grid", R"({"columns": 7, "side": 3})"}, {"elu", R"({"side": 5, "map": "elu"})"}}};
  }
  Scattered(const Dims& d, const Options& o, Rng rng)
      : Heads("scattered", d, o.heads, rng), options(o), wide(std::max<int64_t>(1, o.columns)) {}
  StateSpec state_spec() const override { return {}; }
  int64_t grid_columns() const override { return wide; }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Scattered>("scattered", batch);
    check_places("scattered", wide, batch);
    const Context& c = *batch.context;
    const Windows w = windows_of(batch.segments, places_of(batch, wide), options.side);
    const Var sorted = gather_rows(x, w.order), fq = activation(options.map, q(sorted, c)),
              fk = activation(options.map, k(sorted, c)), weight = sum_groups(fq * sequence_sums(fk, w.windows), heads),
              said = whole_products(fq, fk, v(sorted, c), w.windows, heads);
    return gather_rows(out(multiply_groups(said, inverse(affine(weight, 1, kLeastWeight))), c), w.back);
  }
  int64_t flops(int64_t n) const override { return map_flops(n) + n * width() * (4 * dim + 7); }

  naive::Matrix naive(NaiveRun& run) const override {
    naive::Matrix qs = naive::linear(run.x, run.w, "q"), ks = naive::linear(run.x, run.w, "k");
    const naive::Matrix vs = naive::linear(run.x, run.w, "v");
    for (naive::Matrix* m : {&qs, &ks})
      for (double& a : m->a) a = naive::activation(options.map, a);
    const auto window = [&](int64_t t) {
      const Place p = run.place(t, wide);
      return std::pair{p.row / options.side, p.column / options.side};
    };
    naive::Matrix y(qs.rows, width());
    for (int64_t i = 0; i < y.rows; ++i)
      for (int64_t h = 0; h < heads; ++h) {
        double total = 1e-6;
        std::vector<double> sum(static_cast<size_t>(dim));
        for (int64_t j = 0; j < y.rows; ++j) {
          if (window(i) != window(j)) continue;
          double weight = 0;
          for (int64_t p = h * dim; p < (h + 1) * dim; ++p) weight += qs(i, p) * ks(j, p);
          total += weight;
          for (int64_t p = 0; p < dim; ++p) sum[p] += weight * vs(j, h * dim + p);
        }
        for (int64_t p = 0; p < dim; ++p) y(i, h * dim + p) = sum[p] / total;
      }
    return naive::linear(y, run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const int64_t n = x.rows();
    const Segment whole[] = {{0, n, 0, nullptr}};
    const Windows w = windows_of(whole, filled_places(whole, wide), options.side);
    const Tensor fq = activation(options.map, q(x, c)).value(), fk = activation(options.map, k(x, c)).value();
    ImplicitMatrix m{Tensor::zeros({heads, n, n}), v(x, c).value()};
    for (const Segment& window : w.windows) {
      const auto tokens = std::span(w.order).subspan(window.begin, window.length);
      for (int64_t h = 0; h < heads; ++h)
        for (const int64_t i : tokens) {
          float* const row = m.weights.data() + (h * n + i) * n;
          double total = kLeastWeight;
          for (const int64_t j : tokens) {
            for (int64_t p = h * dim; p < (h + 1) * dim; ++p)
              row[j] += fq.data()[i * width() + p] * fk.data()[j * width() + p];
            total += row[j];
          }
          for (const int64_t j : tokens) row[j] = static_cast<float>(row[j] / total);
        }
    }
    return m;
  }

  Options options;
  int64_t wide;
};

}  // namespace

void register_scattered(Registry<Mixer>& r) {
  r.add<Scattered>("scattered");
}

}  // namespace sennit::mixers
