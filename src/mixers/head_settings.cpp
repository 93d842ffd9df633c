#include "mixers/head_settings.h"

#include <fmt/ranges.h>

#include <cmath>

#include "ops/layout.h"
#include "ops/norms.h"
#include "sequence/seen.h"

namespace sennit::mixers {

Fields HeadSettings::fields() {
  return {{"heads", &heads, "query heads", {.min = 1, .max = 1024}},
          {"kv_heads", &kv_heads, "key-value heads, a divisor of heads; 0: as many", {.min = 0, .max = 1024}},
          {"head_dim", &head_dim, "numbers a head; 0: d_model / heads", {.min = 0, .max = 4096}},
          {"qk_norm", &qk_norm, "normalise each query and key head by its root mean square"},
          {"norm_epsilon", &norm_epsilon, "added to their mean square", {.min = 0, .max = 1}},
          {"bias", &bias, "shifts in the query, key and value maps"},
          {"out_bias", &out_bias, "a shift in the output map"},
          {"position", &position,
           "how order is told: " + fmt::format("{}", fmt::join(positions::registry().names(), ", "))}};
}

AttentionHeads::AttentionHeads(const char* mixer, const Mixer::Dims& d, HeadSettings s, Rng rng)
    : heads(s.heads), kv_heads(s.kv_heads ? s.kv_heads : s.heads), head_dim(s.head_dim), norm_epsilon_(s.norm_epsilon) {
  if (!head_dim) {
    if (d.d_model % heads)
      fail({mixer, fmt::format("heads that divide d_model = {}", d.d_model), fmt::format("heads = {}", heads)});
    head_dim = d.d_model / heads;
  }
  if (heads % kv_heads)
    fail({mixer, fmt::format("kv_heads that divide heads = {}", heads), fmt::format("kv_heads = {}", kv_heads)});
  position = positions::registry().make(s.position, {heads, head_dim}, rng, "position");
  slopes = position->slopes();
  const int64_t rows = heads * head_dim, kv_rows = kv_heads * head_dim;
  q = Linear(d.d_model, rows, rng.fork("q"), {.bias = s.bias});
  k = Linear(d.d_model, kv_rows, rng.fork("k"), {.bias = s.bias});
  v = Linear(d.d_model, kv_rows, rng.fork("v"), {.bias = s.bias});
  out = Linear(rows, d.d_model, rng.fork("out"), {.bias = s.out_bias, .scale = d.out_scale});
  if (s.qk_norm)
    for (Parameter* norm : {&q_norm, &k_norm}) {
      norm->init(Tensor::full({head_dim}, 1));
      norm->decays = false;
    }
}

void AttentionHeads::visit(const ParameterVisitor& p) {
  p("q", q);
  p("k", k);
  p("v", v);
  p("out", out);
  p("q_norm", q_norm);
  p("k_norm", k_norm);
}

StateSpec AttentionHeads::state_spec(int64_t reach) const {
  const Shape row{1, kv_heads * head_dim};
  const Growth growth = reach ? Growth::window : Growth::per_token;
  return {{.name = "k", .shape = row, .growth = growth, .window = reach, .heads = kv_heads},
          {.name = "v", .shape = row, .growth = growth, .window = reach, .heads = kv_heads}};
}

Var AttentionHeads::plain(Linear& map, const Parameter& norm, int64_t count, const Var& x, const Context& c) {
  const Var y = map(x, c);
  return norm.var ? rmsnorm(y, norm, {.groups = count, .epsilon = static_cast<float>(norm_epsilon_)}) : y;
}

AttentionHeads::Operands AttentionHeads::operands(const Var& x, const Batch& batch, int64_t reach) {
  const Context& c = *batch.context;
  const Var& source = looked_at(x, batch);
  Operands m;
  m.plain_queries = plain(q, q_norm, heads, x, c);
  m.plain_keys = plain(k, k_norm, kv_heads, source, c);
  m.queries = position->turn(m.plain_queries, batch.segments, heads);
  SeenRows seen = seen_rows({position->turn(m.plain_keys, looked_at_segments(batch), kv_heads), v(source, c)}, batch, 0,
                            reach, kv_heads);
  m.keys = std::move(seen.parts[0]), m.values = std::move(seen.parts[1]);
  m.segments = std::move(seen.segments);
  return m;
}

int64_t AttentionHeads::flops(int64_t n, int64_t keys) const {
  return 2 * q.in() * (n * q.out() + keys * (k.out() + v.out())) + 2 * n * out.in() * out.out();
}

float AttentionHeads::scale() const {
  return static_cast<float>(1 / std::sqrt(static_cast<double>(head_dim)));
}

naive::Matrix AttentionHeads::naive_plain(const NaiveRun& run, const naive::Matrix& x, const std::string& name,
                                          int64_t count) const {
  const naive::Matrix y = naive::linear(x, run.w, name);
  return q_norm.var ? naive::rmsnorm(y, count, norm_epsilon_, &run.w.at(name + "_norm")) : y;
}

naive::Matrix AttentionHeads::naive_turned(naive::Matrix y, int64_t count, int64_t first) const {
  for (int64_t i = 0; i < y.rows; ++i)
    for (int64_t h = 0; h < count; ++h) position->naive_turn(&y(i, h * head_dim), first + i, h, count);
  return y;
}

AttentionHeads::Naive AttentionHeads::naive(NaiveRun& run, int64_t reach) const {
  const bool cross = run.pattern == Pattern::cross;
  const naive::Matrix& source = cross ? *run.memory : run.x;
  Naive m;
  m.plain_q = naive_plain(run, run.x, "q", heads);
  m.plain_k = naive_plain(run, source, "k", kv_heads);
  m.q = naive_turned(m.plain_q, heads, run.position);
  m.k = naive_turned(m.plain_k, kv_heads, cross ? 0 : run.position);
  m.v = naive::linear(source, run.w, "v");
  m.offset = run.position;
  if (cross) return m;
  for (auto [name, rows] : {std::pair{"k", &m.k}, std::pair{"v", &m.v}}) {
    naive::Matrix& kept = run.state[name];
    kept.cols = rows->cols;
    kept.a.insert(kept.a.end(), rows->a.begin(), rows->a.end());
    kept.rows += rows->rows;
    *rows = kept;
    const int64_t drop = reach ? rows_dropped(kept.rows, reach) : 0;
    kept.a.erase(kept.a.begin(), kept.a.begin() + drop * kept.cols);
    kept.rows -= drop;
  }
  m.offset = m.k.rows - run.x.rows;
  return m;
}

double AttentionHeads::naive_score(const Naive& m, int64_t head, int64_t i, int64_t j) const {
  const int64_t kv = head * kv_heads / heads;
  double s = 0;
  for (int64_t p = 0; p < head_dim; ++p) s += m.q(i, head * head_dim + p) * m.k(j, kv * head_dim + p);
  const double distance = std::fabs(static_cast<double>(m.offset + i - j));
  return s / std::sqrt(static_cast<double>(head_dim)) - (slopes.empty() ? 0 : slopes[head] * distance);
}

ImplicitMatrix AttentionHeads::implicit(const Var& x, const Context& c, const Weigh& weigh) {
  const Segment whole[] = {{0, x.rows(), 0, nullptr}};
  const Tensor qs = position->turn(plain(q, q_norm, heads, x, c), whole, heads).value();
  const Tensor ks = position->turn(plain(k, k_norm, kv_heads, x, c), whole, kv_heads).value();
  const int64_t n = x.rows(), times = group();
  ImplicitMatrix m{Tensor::zeros({heads, n, n}), repeat_groups(v(x, c), kv_heads, times).value()};
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t i = 0; i < n; ++i) {
      std::vector<double> row(i + 1);
      for (int64_t j = 0; j <= i; ++j) {
        double s = 0;
        for (int64_t p = 0; p < head_dim; ++p)
          s += double{qs.data()[(i * heads + h) * head_dim + p]} * ks.data()[(j * kv_heads + h / times) * head_dim + p];
        row[j] = s * scale() - (slopes.empty() ? 0 : slopes[h] * static_cast<double>(i - j));
      }
      weigh(h, i, row);
      for (int64_t j = 0; j <= i; ++j) m.weights.data()[(h * n + i) * n + j] = static_cast<float>(row[j]);
    }
  return m;
}

void naive_softmax(std::vector<double>& scores) {
  double top = -INFINITY, total = 0;
  for (const double s : scores) top = std::fmax(top, s);
  for (double& s : scores) total += s = top == -INFINITY ? 0 : std::exp(s - top);
  for (double& s : scores) s = total > 0 ? s / total : 0;
}

}  // namespace sennit::mixers
