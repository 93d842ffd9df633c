// Fast Vision Transformers with HiLo Attention (Pan et al., arXiv:2205.13213), section 3.2, over a line or a grid of
// tokens, in windows of s by s:
//   y = [W_hi concat_h softmax(Q_h K_h^T / sqrt(K)) V_h within each window,          heads of high frequencies
//        W_lo concat_h softmax(Q_h (P K_h)^T / sqrt(K)) (P V_h) over all windows]    alpha of the heads, of low ones
// P is the mean of each window. Windows at the borders hold what is there, and a mean is of that. With alpha = 0 it is
// attention in local windows (Swin, arXiv:2103.14030, without shifts); with alpha = 1 and a learned reduction, a map of
// each window's rows side by side and a layer norm, it is spatial-reduction attention (PVT, arXiv:2102.12122, eq. 3).
#include <cmath>
#include <map>

#include "mixers/heads.h"
#include "nn/naive_sequence.h"
#include "ops/layout.h"
#include "ops/norms.h"
#include "sequence/attention.h"
#include "sequence/whole.h"
#include "sequence/windows.h"

namespace sennit::mixers {
namespace {

struct HiLo : Mixer {
  struct Options {
    int64_t heads = 4, side = 2, columns = 0;
    double alpha = 0.5;
    std::string reduce = "mean";
    Fields fields() {
      return {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
              {"alpha", &alpha, "the part of the heads that look at whole windows, rounded down", {.min = 0, .max = 1}},
              {"side", &side, "tokens on a side of a window", {.min = 1, .max = 4096}},
              columns_field(&columns),
              {"reduce", &reduce, "what makes a window one row", {.choices = {"mean", "learned"}}}};
    }
  };
  static Info info() {
    return {.title = "High and low frequencies (HiLo)",
            .paper = "arXiv:2205.13213",
            .equation = "y = [W_hi attention within each window, W_lo attention to the windows' means]",
            .cost = "O(n d side^2 + n^2 d / side^2)",
            .patterns = {Pattern::bidirectional},
            .no_state = "every token sees those after it",
            .settings = {{"grid", R"({"columns": 7, "side": 3})"},
                         {"local windows", R"({"columns": 6, "side": 4, "alpha": 0})"},
                         {"spatial reduction", R"({"columns": 5, "alpha": 1, "reduce": "learned"})"}}};
  }

  // The maps of some of the heads.
  struct Branch {
    int64_t heads = 0, width = 0;
    Linear q, k, v, out;
    Branch(int64_t h, int64_t dim, const Dims& d, Rng rng) : heads(h), width(h * dim) {
      if (heads == 0) return;
      q = Linear(d.d_model, width, rng.fork("q"));
      k = Linear(d.d_model, width, rng.fork("k"));
      v = Linear(d.d_model, width, rng.fork("v"));
      out = Linear(width, width, rng.fork("out"), {.scale = d.out_scale});
    }
    void visit(const ParameterVisitor& p, const std::string& name) {
      p(name + ".q", q), p(name + ".k", k), p(name + ".v", v), p(name + ".out", out);
    }
    Var attend(const Var& queries, const Var& keys, const Var& values, std::span<const AttentionSegment> plan) const {
      const Var ks[] = {keys}, vs[] = {values};
      return attention(queries, ks, vs, plan,
                       {.heads = heads,
                        .kv_heads = heads,
                        .scale = 1 / std::sqrt(static_cast<float>(width / heads)),
                        .causal = false});
    }
  };
  HiLo(const Dims& d, const Options& o, Rng rng)
      : options(o),
        wide(std::max<int64_t>(1, o.columns)),
        dim(head_dim("hilo", d.d_model, o.heads)),
        high(o.heads - low_heads(o), dim, d, rng.fork("hi")),
        low(low_heads(o), dim, d, rng.fork("lo")) {
    if (!learned()) return;
    patch = Linear(cells() * d.d_model, d.d_model, rng.fork("patch"), {.bias = true});
    norm_weight.init(Tensor::full({d.d_model}, 1)), norm_bias.init(Tensor::zeros({d.d_model}));
    norm_weight.decays = norm_bias.decays = false;
  }
  static int64_t low_heads(const Options& o) {
    return static_cast<int64_t>(std::floor(o.alpha * static_cast<double>(o.heads) + 1e-9));
  }
  bool learned() const { return low.heads > 0 && options.reduce == "learned"; }
  int64_t cells() const { return options.side * std::min(options.side, wide); }  // of a whole window

  void visit(const ParameterVisitor& p) override {
    high.visit(p, "hi"), low.visit(p, "lo");
    p("patch", patch);
    p("norm.weight", norm_weight), p("norm.bias", norm_bias);
  }
  StateSpec state_spec() const override { return {}; }
  int64_t grid_columns() const override { return wide; }

  // Each window's rows side by side, zeros where there are none.
  Var patches(const Var& x, const Windows& w, std::span<const Place> places) const {
    const int64_t count = std::ssize(w.windows), across = std::min(options.side, wide);
    std::vector<int64_t> sources(static_cast<size_t>(count * cells()), x.rows());
    for (int64_t i = 0; i < count; ++i) {
      const Segment& window = w.windows[i];
      for (const int64_t row : std::span(w.order).subspan(window.begin, window.length))
        sources[i * cells() + places[row].row % options.side * across + places[row].column % options.side] = row;
    }
    if (std::ssize(sources) == x.rows()) return reshape(gather_rows(x, sources), {count, cells() * x.columns()});
    const Var all[] = {x, Var(Tensor::zeros({1, x.columns()}))};
    return reshape(gather_rows(concat_rows(all), sources), {count, cells() * x.columns()});
  }
  // In windows of their own rows; `sorted` has them one window after another.
  Var high_core(const Var& sorted, const Windows& w, const Context& c) {
    Pooled<AttentionSegment> plan;
    for (const Segment& s : w.windows) plan.push_back({s.begin, s.length, 0, s.begin, s.length, 0});
    return high.attend(high.q(sorted, c), high.k(sorted, c), high.v(sorted, c), plan);
  }
  Var low_core(const Var& x, const Var& windows, const Windows& w, const Batch& batch) {
    const Context& c = *batch.context;
    Pooled<AttentionSegment> plan;
    for (size_t i = 0; i < batch.segments.size(); ++i) {
      const Segment &s = batch.segments[i], &seen = w.sequences[i];
      plan.push_back({s.begin, s.length, 0, seen.begin, seen.length, 0});
    }
    return low.attend(low.q(x, c), low.k(windows, c), low.v(windows, c), plan);
  }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<HiLo>("hilo", batch);
    (learned() ? check_grid : check_places)("hilo", wide, batch);
    const Context& c = *batch.context;
    const Pooled<Place> places = places_of(batch, wide);
    const Windows w = windows_of(batch.segments, places, options.side);
    const Var sorted = high.heads || !learned() ? gather_rows(x, w.order) : Var();
    std::vector<Var> said;
    if (high.heads) said.push_back(gather_rows(high.out(high_core(sorted, w, c), c), w.back));
    if (low.heads) {
      const Var windows = learned() ? layernorm(patch(patches(x, w, places), c), norm_weight, norm_bias)
                                    : sequence_means(sorted, w.windows);
      said.push_back(low.out(low_core(x, windows, w, batch), c));
    }
    return said.size() == 1 ? said[0] : concat_columns(said);
  }

  Var output(const Var&, const Var& core, const Context& c) override {
    std::vector<Var> said;
    if (high.heads) said.push_back(high.out(columns(core, 0, high.width), c));
    if (low.heads) said.push_back(low.out(columns(core, high.width, low.width), c));
    return concat_columns(said);
  }
  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    if (learned()) return std::nullopt;
    const int64_t n = x.rows();
    const Segment whole[] = {{0, n, 0, nullptr}};
    const Windows w = windows_of(whole, filled_places(whole, wide), options.side);
    const Var sorted = gather_rows(x, w.order);
    ImplicitMatrix m{Tensor::zeros({options.heads, n, n}), Tensor()};
    std::vector<Var> values;
    if (high.heads) spread(high, x, sorted, w, true, m.weights.data(), c), values.push_back(high.v(x, c));
    if (low.heads) {
      spread(low, x, sequence_means(sorted, w.windows), w, false, m.weights.data() + high.heads * n * n, c);
      values.push_back(low.v(x, c));
    }
    m.values = concat_columns(values).value();
    return m;
  }
  // The weights of a branch's heads, a key's evenly over the rows that it is the mean of.
  void spread(Branch& b, const Var& x, const Var& keys, const Windows& w, bool within, float* weights,
              const Context& c) const {
    const int64_t n = x.rows();
    const Tensor qs = b.q(x, c).value(), ks = b.k(keys, c).value();
    for (int64_t at = 0, window = 0; at < n; ++at) {
      while (at >= w.windows[window].begin + w.windows[window].length) ++window;
      const Segment own = w.windows[window], seen = within ? own : w.sequences[0];
      for (int64_t h = 0; h < b.heads; ++h) {
        std::vector<double> shares(static_cast<size_t>(seen.length));
        for (int64_t j = 0; j < seen.length; ++j)
          for (int64_t p = h * dim; p < (h + 1) * dim; ++p)
            shares[j] += double{qs.data()[w.order[at] * b.width + p]} * ks.data()[(seen.begin + j) * b.width + p] /
                         std::sqrt(static_cast<double>(dim));
        naive::softmax(shares);
        for (int64_t j = 0; j < seen.length; ++j) {
          const Segment key = within ? Segment{own.begin + j, 1, 0, nullptr} : w.windows[j];
          for (const int64_t row : std::span(w.order).subspan(key.begin, key.length))
            weights[(h * n + w.order[at]) * n + row] = static_cast<float>(shares[j] / static_cast<double>(key.length));
        }
      }
    }
  }

  int64_t flops(int64_t n) const override {
    const int64_t s = options.side, down = (n + wide - 1) / wide, d = high.width + low.width,
                  windows = ((down + s - 1) / s) * ((wide + s - 1) / s);
    const auto squares = [s](int64_t length) { return length / s * s * s + (length % s) * (length % s); };
    const int64_t of_high = n * high.width * (6 * d + 2 * high.width) + 4 * squares(down) * squares(wide) * high.width,
                  of_low = low.width * (n * (2 * d + 2 * low.width) + windows * (4 * d + 4 * n)),
                  reduction = learned() ? windows * d * (2 * cells() * d + 8) : n * d;
    return of_high + of_low + (low.heads ? reduction : 0);
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix& x = run.x;
    const int64_t n = x.rows, across = std::min(options.side, wide);
    std::map<std::pair<int64_t, int64_t>, std::vector<int64_t>> windows;
    for (int64_t t = 0; t < n; ++t) {
      const Place p = run.place(t, wide);
      windows[{p.row / options.side, p.column / options.side}].push_back(t);
    }
    naive::Matrix y(n, x.cols);
    const auto view = [&](const Branch& b) {
      return naive::AttentionView{.heads = b.heads, .scale = 1 / std::sqrt(static_cast<double>(dim)), .causal = false};
    };
    const auto write = [&](const naive::Matrix& part, int64_t at) {
      for (int64_t t = 0; t < n; ++t)
        for (int64_t c = 0; c < part.cols; ++c) y(t, at + c) = part(t, c);
    };
    if (high.heads) {
      naive::Matrix core(n, high.width);
      for (const auto& [place, tokens] : windows) {
        naive::Matrix rows(std::ssize(tokens), x.cols);
        for (int64_t i = 0; i < rows.rows; ++i)
          for (int64_t c = 0; c < x.cols; ++c) rows(i, c) = x(tokens[i], c);
        const naive::Matrix seen =
            naive::attention(naive::linear(rows, run.w, "hi.q"), naive::linear(rows, run.w, "hi.k"),
                             naive::linear(rows, run.w, "hi.v"), view(high));
        for (int64_t i = 0; i < rows.rows; ++i)
          for (int64_t c = 0; c < high.width; ++c) core(tokens[i], c) = seen(i, c);
      }
      write(naive::linear(core, run.w, "hi.out"), 0);
    }
    if (low.heads) {
      naive::Matrix rows(std::ssize(windows), (learned() ? cells() : 1) * x.cols);
      int64_t i = 0;
      for (const auto& [place, tokens] : windows) {
        for (const int64_t t : tokens)
          for (int64_t c = 0; c < x.cols; ++c) {
            const int64_t cell = t / wide % options.side * across + t % wide % options.side;
            if (learned())
              rows(i, cell * x.cols + c) = x(t, c);
            else
              rows(i, c) += x(t, c) / static_cast<double>(tokens.size());
          }
        ++i;
      }
      if (learned())
        rows = naive::layernorm(naive::linear(rows, run.w, "patch"), 1, 1e-5, run.w.at("norm.weight"),
                                run.w.at("norm.bias"));
      const naive::Matrix core = naive::attention(naive::linear(x, run.w, "lo.q"), naive::linear(rows, run.w, "lo.k"),
                                                  naive::linear(rows, run.w, "lo.v"), view(low));
      write(naive::linear(core, run.w, "lo.out"), high.width);
    }
    return y;
  }

  Options options;
  int64_t wide, dim;
  Branch high, low;
  Linear patch;
  Parameter norm_weight, norm_bias;
};

}  // namespace

void register_hilo(Registry<Mixer>& r) {
  r.add<HiLo>("hilo");
}

}  // namespace sennit::mixers
