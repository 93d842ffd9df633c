// Attamba: Attending To Multi-Token States (Akhauri et al., arXiv:2411.17685): keys and values are what state spaces
// have read so far, and of a chunk of P tokens its last state alone is kept,
//   S_t = exp(-exp(A_h) dt_t) S_{t-1} + dt_t B_t u_t^T,   k_t = S_t^T C_t + D_h u_t,   u = W_u W_low x
// (values alike, by a state space of their own), and a query sees the ends of the chunks before it, its own state, and
// the first token's:
//   y_i = W_o concat_h sum_{j in {P-1, 2P-1, ...} < i, or j = 0, or j = i} softmax_j(q_i . k_j / sqrt(K)) v_j
#include <cmath>

#include "mixers/head_settings.h"
#include "mixers/pieces.h"
#include "nn/init.h"
#include "nn/naive_sequence.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "sequence/recurrences.h"

namespace sennit::mixers {
namespace {

// A Mamba-2 state space without its gate, its norm and its convolution; B and C are shared by the heads.
struct Summariser : Module {
  Summariser() = default;
  Summariser(int64_t in, int64_t count, int64_t dim, int64_t states, Rng rng)
      : heads(count),
        state(states),
        u(in, count * dim, rng.fork("u")),
        b(in, states, rng.fork("b")),
        c(in, states, rng.fork("c")),
        dt(in, count, rng.fork("dt"), {.bias = true}) {
    // Rates from 1 to 16, steps from 1e-3 to 1e-1, evenly in their logarithms.
    Tensor rate = uniform_init({count}, 1, 16, rng.fork("rate")),
           step = uniform_init({count}, std::log(1e-3), std::log(1e-1), rng.fork("step"));
    for (float& a : rate.span()) a = std::log(a);
    for (float& s : step.span()) s = static_cast<float>(std::log(std::expm1(std::exp(double{s}))));
    dt.bias.init(step);
    log_a.init(rate);
    skip.init(Tensor::full({count}, 1));
    dt.bias.decays = log_a.decays = skip.decays = false;
  }
  void visit(const ParameterVisitor& p) override {
    p("u", u), p("b", b), p("c", c), p("dt", dt), p("log_a", log_a), p("skip", skip);
  }
  int64_t width() const { return u.out(); }
  StateField field(std::string name) const { return {std::move(name), {heads, state, width() / heads}}; }

  Var operator()(const Var& x, const Batch& batch, size_t field) {
    const Context& ctx = *batch.context;
    const Var in = u(x, ctx), step = softplus(dt(x, ctx));
    const Var read =
        gla(repeat_groups(c(x, ctx), 1, heads), repeat_groups(b(x, ctx), 1, heads), multiply_groups(in, step),
            scale(multiply_row(step, exp(log_a)), -1), batch, {.heads = heads, .field = field});
    return read + multiply_row(in, repeat_groups(reshape(skip, {1, heads}), heads, width() / heads));
  }
  int64_t flops(int64_t n) const { return n * (2 * u.in() * (width() + 2 * state + heads) + 6 * width() * state); }

  naive::Matrix naive(const naive::Matrix& x, const naive::Weights& w, const std::string& at, naive::Matrix& S) const {
    const int64_t dim = width() / heads;
    const naive::Matrix in = naive::linear(x, w, at + "u"), bs = naive::linear(x, w, at + "b"),
                        cs = naive::linear(x, w, at + "c"), steps = naive::linear(x, w, at + "dt");
    if (!S.rows) S = naive::Matrix(heads, state * dim);
    naive::Matrix y(x.rows, width());
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t h = 0; h < heads; ++h) {
        const double step = naive::softplus(steps(t, h)), fade = std::exp(-step * std::exp(w.at(at + "log_a").a[h]));
        for (int64_t p = 0; p < dim; ++p) {
          y(t, h * dim + p) = w.at(at + "skip").a[h] * in(t, h * dim + p);
          for (int64_t n = 0; n < state; ++n) {
            double& kept = S(h, n * dim + p);
            kept = fade * kept + step * bs(t, n) * in(t, h * dim + p);
            y(t, h * dim + p) += cs(t, n) * kept;
          }
        }
      }
    return y;
  }

  int64_t heads = 0, state = 0;
  Linear u, b, c, dt;
  Parameter log_a, skip;
};

struct Attamba : Mixer {
  struct Options {
    int64_t heads = 4, chunk = 4, state = 16, input = 0;
    Json position = "rope";
    Fields fields() {
      return {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
              {"chunk", &chunk, "tokens of which one key and one value are kept", {.min = 1, .max = 65536}},
              {"state", &state, "numbers a channel of the state spaces keeps", {.min = 1, .max = 1024}},
              {"input", &input, "width of what the state spaces read; 0: d_model", {.min = 0, .max = 65536}},
              {"position", &position, "how order is told, by turning queries and keys"}};
    }
  };
  static Info info() {
    return {.title = "Attention to multi-token states (Attamba)",
            .paper = "arXiv:2411.17685",
            .equation = "y_i = sum_{j ends of chunks, 0, i} softmax_j(q_i k_j / sqrt(K)) v_j, k and v by state spaces",
            .cost = "O(n^2 d / chunk + n d state)",
            .settings = {{"every token", R"({"chunk": 1, "heads": 2, "state": 3})"},
                         {"long chunks", R"({"chunk": 16, "state": 5, "input": 8, "position": "none"})"}}};
  }
  Attamba(const Dims& d, const Options& o, Rng rng) : options(o) {
    if (d.d_model % o.heads)
      fail({"attamba", fmt::format("heads that divide d_model = {}", d.d_model), fmt::format("heads = {}", o.heads)});
    dim = d.d_model / o.heads;
    position = positions::registry().make(o.position, {o.heads, dim}, rng, "position");
    if (!position->slopes().empty()) fail({"attamba", "a position that turns queries and keys", json_text(o.position)});
    if (o.input) low = Linear(d.d_model, o.input, rng.fork("low"));
    const int64_t in = o.input ? o.input : d.d_model;
    q = Linear(d.d_model, d.d_model, rng.fork("q"));
    k = Summariser(in, o.heads, dim, o.state, rng.fork("k"));
    v = Summariser(in, o.heads, dim, o.state, rng.fork("v"));
    out = Linear(d.d_model, d.d_model, rng.fork("out"), {.scale = d.out_scale});
  }
  void visit(const ParameterVisitor& p) override {
    if (options.input) p("low", low);
    p("q", q), p("k", k), p("v", v), p("out", out);
  }

  enum Kept : size_t { kKeySpace, kValueSpace, kFirstKey, kFirstValue, kKeys, kValues };
  StateSpec state_spec() const override {
    const Shape row{1, width()};
    const auto ends = [&](const char* name) {
      return StateField{.name = name, .shape = row, .growth = Growth::per_token, .every = options.chunk};
    };
    return {k.field("S_k"), v.field("S_v"), {"first_k", row}, {"first_v", row}, ends("k"), ends("v")};
  }
  int64_t width() const { return options.heads * dim; }
  bool is_end(int64_t place) const { return (place + 1) % options.chunk == 0; }

  // Rows that the queries of a segment see: kept ends, the first token of the sequence, then all of the segment's own.
  // Keeps the ends among them, and the first.
  Var seen(const Var& all, const Segment& s, LayerState* state, size_t ends, size_t first) const {
    const Var own = rows(all, s.begin, s.length);
    if (s.length == 0) return own;
    const bool fresh = !state || !state->has(first);
    const Var start = fresh ? rows(own, 0, 1) : state->get(first), parts[] = {start, own};
    const Var tail = concat_rows(parts);
    if (!state) return tail;
    if (fresh) state->set(first, start.needs_grad() ? start : Var(start.value().clone()));
    return state->append(ends, tail);
  }
  // What append() was told beyond the ends goes again.
  void keep_ends(const Var& all, const Segment& s, LayerState& state, size_t field, int64_t before) const {
    Pooled<int64_t> which;
    for (int64_t t = 0; t < s.length; ++t)
      if (is_end(s.position + t)) which.push_back(s.begin + t);
    state.truncate(field, before);
    state.append(field, gather_rows(all, which));
  }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Attamba>("attamba", batch);
    const Context& c = *batch.context;
    const Var in = options.input ? low(x, c) : x;
    const Var queries = position->turn(q(x, c), batch.segments, options.heads);
    const Var all_k = position->turn(k(in, batch, kKeySpace), batch.segments, options.heads),
              all_v = v(in, batch, kValueSpace);
    Pooled<Var> keys, values;
    Pooled<AttentionSegment> plan;
    Pooled<Piece> pieces;
    for (size_t i = 0; i < batch.segments.size(); ++i) {
      const Segment& s = batch.segments[i];
      LayerState* const state = batch.state(s);
      pieces.push_back({s.position, s.length, !state || !state->has(kFirstKey)});
      keys.push_back(seen(all_k, s, state, kKeys, kFirstKey));
      values.push_back(seen(all_v, s, state, kValues, kFirstValue));
      const int64_t before = keys.back().rows() - s.length;  // kept ends and the first
      plan.push_back({s.begin, s.length, i, 0, keys.back().rows(), before, s.position});
    }
    const Var core = attend_pieces(*this, std::move(pieces), queries, keys, values, plan,
                                   {.heads = options.heads, .kv_heads = options.heads, .scale = scale()});
    for (size_t i = 0; i < batch.segments.size(); ++i) {
      const Segment& s = batch.segments[i];
      LayerState* const state = batch.state(s);
      if (!state || s.length == 0) continue;
      keep_ends(all_k, s, *state, kKeys, plan[i].offset - 1);
      keep_ends(all_v, s, *state, kValues, plan[i].offset - 1);
    }
    return out(core, c);
  }
  // The ends before each query, the first token, and itself.
  struct Piece {
    int64_t position, length;
    bool fresh;  // it holds the first token
  };
  void see(const Piece& s, TileList& list) const {
    const int64_t before = list.keys() - s.length, kept = before - 1;
    Pooled<int32_t> ends;
    for (int64_t j = 0; j < kept; ++j) ends.push_back(static_cast<int32_t>(j));
    for (int64_t t = 0; t < s.length; ++t)
      if (is_end(s.position + t)) ends.push_back(static_cast<int32_t>(before + t));
    const Places all = list.queries();
    list.add(std::span<const int32_t>(ends), all, 1);
    if (options.chunk > 1) list.add(Places{kept, before}, all, s.fresh ? 2 : 1);
    list.add(Places{all.begin, all.end}, all, 0, 1);
  }
  float scale() const { return 1 / std::sqrt(static_cast<float>(dim)); }

  Var output(const Var&, const Var& core, const Context& c) override { return out(core, c); }
  int64_t flops(int64_t n) const override {
    const int64_t d = width(), in = k.u.in();
    int64_t pairs = n;
    for (int64_t i = 0; i < n; ++i) pairs += i / options.chunk + (options.chunk > 1 && i > 0);
    return 4 * n * d * d + (options.input ? 2 * n * d * in : 0) + k.flops(n) + v.flops(n) + 4 * pairs * d;
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const int64_t n = x.rows();
    const Segment whole[] = {{0, n, 0, nullptr}};
    const Batch batch{whole, &c};
    const Var in = options.input ? low(x, c) : x;
    const Tensor qs = position->turn(q(x, c), whole, options.heads).value(),
                 ks = position->turn(k(in, batch, 0), whole, options.heads).value();
    ImplicitMatrix m{Tensor::zeros({options.heads, n, n}), v(in, batch, 0).value()};
    for (int64_t h = 0; h < options.heads; ++h)
      for (int64_t i = 0; i < n; ++i) {
        std::vector<double> weights(static_cast<size_t>(i + 1), -INFINITY);
        for (int64_t j = 0; j <= i; ++j) {
          if (!is_end(j) && j > 0 && j < i) continue;
          weights[j] = 0;
          for (int64_t p = h * dim; p < (h + 1) * dim; ++p)
            weights[j] += double{qs.data()[i * width() + p]} * ks.data()[j * width() + p] * scale();
        }
        naive_softmax(weights);
        for (int64_t j = 0; j <= i; ++j) m.weights.data()[(h * n + i) * n + j] = static_cast<float>(weights[j]);
      }
    return m;
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix low_rows = options.input ? naive::linear(run.x, run.w, "low") : run.x;
    const int64_t n = run.x.rows;
    naive::Matrix queries = naive::linear(run.x, run.w, "q"), keys = k.naive(low_rows, run.w, "k.", run.state["S_k"]),
                  values = v.naive(low_rows, run.w, "v.", run.state["S_v"]), core(n, width());
    for (int64_t i = 0; i < n; ++i)
      for (int64_t h = 0; h < options.heads; ++h) {
        position->naive_turn(&queries(i, h * dim), run.position + i, h, options.heads);
        position->naive_turn(&keys(i, h * dim), run.position + i, h, options.heads);
      }
    naive::Matrix &first_k = run.state["first_k"], &first_v = run.state["first_v"], &ends_k = run.state["k"],
                  &ends_v = run.state["v"];
    const auto row_of = [&](const naive::Matrix& m, int64_t i) {
      return std::vector<double>(m.a.begin() + i * width(), m.a.begin() + (i + 1) * width());
    };
    const auto keep = [&](naive::Matrix& m, const std::vector<double>& row) {
      m.a.insert(m.a.end(), row.begin(), row.end());
      m.cols = width(), ++m.rows;
    };
    for (int64_t i = 0; i < n; ++i) {
      std::vector<std::vector<double>> ks, vs;
      for (int64_t j = 0; j < ends_k.rows; ++j) ks.push_back(row_of(ends_k, j)), vs.push_back(row_of(ends_v, j));
      if (first_k.rows && options.chunk > 1) ks.push_back(row_of(first_k, 0)), vs.push_back(row_of(first_v, 0));
      ks.push_back(row_of(keys, i)), vs.push_back(row_of(values, i));
      for (int64_t h = 0; h < options.heads; ++h) {
        std::vector<double> weights;
        for (const auto& key : ks) {
          double sum = 0;
          for (int64_t p = h * dim; p < (h + 1) * dim; ++p) sum += queries(i, p) * key[p];
          weights.push_back(sum / std::sqrt(static_cast<double>(dim)));
        }
        naive_softmax(weights);
        for (size_t j = 0; j < vs.size(); ++j)
          for (int64_t p = h * dim; p < (h + 1) * dim; ++p) core(i, p) += weights[j] * vs[j][p];
      }
      if (!first_k.rows) keep(first_k, ks.back()), keep(first_v, vs.back());
      if (is_end(run.position + i)) keep(ends_k, ks.back()), keep(ends_v, vs.back());
    }
    return naive::linear(core, run.w, "out");
  }

  Options options;
  int64_t dim = 0;
  std::unique_ptr<Position> position;
  Linear low, q, out;
  Summariser k, v;
};

}  // namespace

void register_attamba(Registry<Mixer>& r) {
  r.add<Attamba>("attamba");
}

}  // namespace sennit::mixers
