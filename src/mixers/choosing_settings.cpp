#include "mixers/choosing_settings.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/count.h"
#include "ops/layout.h"
#include "ops/pool.h"
#include "sequence/per_head.h"

namespace sennit::mixers {
namespace {

constexpr int64_t kMostScored = 128;  // queries at a time
constexpr size_t kSummary = 2;        // the state's field

}  // namespace

Fields ChoosingSettings::fields() {
  Fields all = HeadSettings::fields();
  const Fields own = {{"block", &block, "keys a block", {.min = 1, .max = 1e6}},
                      {"top", &top, "blocks that a query sees in all", {.min = 1, .max = 1e6}},
                      {"sink", &sink, "first blocks that are among them", {.min = 0, .max = 1e6}},
                      {"local", &local, "last blocks that are among them, its own first", {.min = 1, .max = 1e6}}};
  all.insert(all.end(), own.begin(), own.end());
  return all;
}

ChoosingMixer::ChoosingMixer(const char* name, const Dims& d, const ChoosingSettings& settings, Rng rng)
    : heads(name, d, settings, rng), settings_(settings) {
  if (settings.top < settings.sink + settings.local)
    fail({name, fmt::format("top blocks that hold sink and local: {} or more", settings.sink + settings.local),
          fmt::format("top = {}", settings.top)});
}

StateSpec ChoosingMixer::state_spec() const {
  StateSpec spec = heads.state_spec();
  spec.push_back(
      {.name = "summary", .shape = {1, layout_.summary}, .growth = Growth::per_token, .every = layout_.unit});
  return spec;
}

Var ChoosingMixer::summaries_of(const Var& keys) const {
  return pool_runs(keys, layout_.unit, Pooling::mean);
}

Pooled<Var> ChoosingMixer::summarise(const AttentionHeads::Operands& m, const Batch& batch) {
  Pooled<Var> all;
  for (size_t i = 0; i < m.segments.size(); ++i) {
    const AttentionSegment& a = m.segments[i];
    LayerState* state = batch.state(batch.segments[i]);
    const int64_t known = state && state->has(kSummary) ? state->get(kSummary).rows() : 0;
    const int64_t whole = a.keys / layout_.unit * layout_.unit, begin = known * layout_.unit;
    const Var& keys = m.keys[a.source];
    if (state) {
      const Var kept = rows(keys, a.key_begin + begin, whole - begin);
      const bool floats = keys.value().dtype() == DType::f32;
      all.push_back(state->append(kSummary, summaries_of(floats ? kept : Var(widened(kept.value(), heads.kv_heads)))));
    } else {
      NoGrad off;
      all.push_back(summaries_of(rows(keys.detach(), a.key_begin, whole)));
    }
  }
  return all;
}

// Few enough that the last of them sees hardly more blocks than the first.
int64_t ChoosingMixer::rows_at_a_time() const {
  return std::clamp<int64_t>(2 * settings_.block, 16, kMostScored);
}

int64_t ChoosingMixer::scored(int64_t n, int64_t run) const {
  int64_t pairs = 0;
  for (int64_t first = 0; first < n; first += rows_at_a_time()) {
    const int64_t rows = std::min(rows_at_a_time(), n - first), last = first + rows - 1;
    if (most_blocks(last) <= last / settings_.block)
      pairs += rows * (run == settings_.block ? last / run : (last + 1) / run);
  }
  return pairs;
}

BlockChoice ChoosingMixer::choose(const Scoring& of) const {
  const AttentionSegment& a = of.segment;
  int64_t all = 0;
  while (all < a.queries && most_blocks(a.offset + all) > (a.offset + all) / settings_.block) ++all;
  BlockChoice choice(a, layout_.groups, settings_.block, settings_.top, all);
  if (all == a.queries) return choice;
  const int64_t rows = std::min(rows_at_a_time(), a.queries), ranges = (a.queries + rows - 1) / rows;
  const int64_t scratch_floats = (rows + 2) * (a.keys / settings_.block + 1) + score_scratch(a.keys, rows);
  Pooled<int64_t> operations(ranges * layout_.groups);
  each_with_scratch(std::ssize(operations), scratch_floats, [&](int64_t job, float* scratch) {
    Scoring part = of;
    part.group = job / ranges;
    part.first = job % ranges * rows;
    part.rows = std::min(rows, a.queries - part.first);
    part.blocks = (a.offset + part.first + part.rows - 1) / settings_.block;
    if (part.first + part.rows > all) operations[job] = choose_rows(part, choice, scratch);
  });
  for (const int64_t n : operations) count_flops(n);
  return choice;
}

int64_t ChoosingMixer::choose_rows(const Scoring& part, BlockChoice& choice, float* scratch) const {
  const int64_t stride = part.segment.keys / settings_.block + 1, end = part.first + part.rows;
  float *scores = scratch, *spare = scores + part.rows * stride;
  const int64_t operations = score(part, scores, stride, spare + 2 * stride);
  for (int64_t query = std::max(choice.all(), part.first); query < end; ++query) {
    const int64_t own = choice.own(query);
    float* row = scores + (query - part.first) * stride;
    for (int64_t b = 0; b < std::min(settings_.sink, own); ++b) row[b] = INFINITY;
    for (int64_t b = std::max<int64_t>(0, own - settings_.local + 1); b <= own; ++b) row[b] = INFINITY;
    choice.take_highest(part.group, query, row, spare);
  }
  return operations;
}

void ChoosingMixer::follow(size_t segment, int64_t position, BlockChoice& choice, int64_t queries) const {
  for (int64_t g = 0; g < layout_.groups; ++g)
    for (int64_t i = 0; i < queries; ++i) {
      const Choices::Query query{static_cast<int64_t>(segment), g, position + i};
      if (i < choice.all()) {
        std::vector<int32_t> everything(choice.own(i) + 1);
        std::iota(everything.begin(), everything.end(), 0);
        choices->blocks.try_emplace(query, std::move(everything));
        continue;
      }
      const auto mine = choice.taken(g, i);
      const auto [taken, first] = choices->blocks.try_emplace(query, mine.begin(), mine.end());
      if (!first) choice.take(g, i, taken->second);
    }
}

SparseAttentionOptions ChoosingMixer::attention_options() const {
  return {.heads = heads.heads, .kv_heads = heads.kv_heads, .scale = heads.scale(), .slopes = heads.slopes};
}

Var ChoosingMixer::attend(const Var& x, const Batch& batch) {
  const auto m = heads.operands(x, batch);
  const Pooled<Var> summaries = summarise(m, batch);
  const Tensor queries = scoring_queries(m, batch).value();
  struct Made {
    Pooled<BlockChoice> choices;
    int64_t together;
  };
  const auto made = std::allocate_shared<Made>(PoolAllocator<Made>());
  made->together = heads.heads / layout_.groups;
  for (size_t i = 0; i < m.segments.size(); ++i) {
    made->choices.push_back(choose({m.segments[i], queries, summaries[i].value(), 0, 0, 0, 0}));
    if (choices) follow(i, batch.segments[i].position, made->choices.back(), m.segments[i].queries);
  }
  if (batch.context->losses) teach(m, batch, summaries);
  // A function that holds only a pointer asks the system for nothing; backward needs what it points to for longer.
  const Made* const chosen = made.get();
  TileSource source = [chosen](size_t segment, int64_t head, TileList& list) {
    chosen->choices[segment].add_tiles(head / chosen->together, list);
  };
  if (recording())
    source = [made, source](size_t segment, int64_t head, TileList& list) { source(segment, head, list); };
  const Var core = sparse_attention(m.queries, m.keys, m.values, m.segments, attention_options(), std::move(source));
  return output(x, core, *batch.context);
}

int64_t ChoosingMixer::flops(int64_t n) const {
  int64_t pairs = 0;
  for (int64_t i = 0; i < n; ++i)
    pairs += (std::min(most_blocks(i), i / settings_.block + 1) - 1) * settings_.block + i % settings_.block + 1;
  return heads.flops(n) + 4 * pairs * heads.heads * heads.head_dim + score_flops(n);
}

void ChoosingMixer::naive_summarise(NaiveRun&, const AttentionHeads::Naive& m, naive::Matrix& summaries) const {
  const int64_t unit = layout_.unit;
  summaries.cols = m.k.cols;
  for (; (summaries.rows + 1) * unit <= m.k.rows; ++summaries.rows)
    for (int64_t c = 0; c < m.k.cols; ++c) {
      double sum = 0;
      for (int64_t j = summaries.rows * unit; j < (summaries.rows + 1) * unit; ++j) sum += m.k(j, c);
      summaries.a.push_back(sum / static_cast<double>(unit));
    }
}

std::vector<int32_t> ChoosingMixer::naive_choice(NaiveRun& run, const AttentionHeads::Naive& m,
                                                 const naive::Matrix& summaries, int64_t group, int64_t i) const {
  const int64_t place = m.offset + i, own = place / settings_.block;
  std::vector<double> scores = naive_scores(run, m, summaries, group, i, own);
  scores.resize(own + 1);
  for (int64_t b = 0; b <= own; ++b)
    if (b < settings_.sink || own - b < settings_.local) scores[b] = INFINITY;
  std::vector<int32_t> order(own + 1);
  for (int64_t b = 0; b <= own; ++b) order[b] = static_cast<int32_t>(b);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  order.resize(std::min<int64_t>(own + 1, most_blocks(place)));
  std::sort(order.begin(), order.end());
  if (!choices) return order;
  const Choices::Query query{0, group, run.position + i};
  choices->scores[query] = scores;
  return choices->blocks.try_emplace(query, order).first->second;
}

naive::Matrix ChoosingMixer::naive(NaiveRun& run) const {
  const auto m = heads.naive(run);
  naive::Matrix& summaries = run.state["summary"];
  naive_summarise(run, m, summaries);
  if (run.auxiliary) *run.auxiliary += naive_teach(run, m, summaries);
  const int64_t dim = heads.head_dim, together = heads.heads / layout_.groups;
  naive::Matrix core(run.x.rows, heads.heads * dim);
  for (int64_t i = 0; i < run.x.rows; ++i)
    for (int64_t g = 0; g < layout_.groups; ++g) {
      const std::vector<int32_t> blocks = naive_choice(run, m, summaries, g, i);
      for (int64_t h = g * together; h < (g + 1) * together; ++h) {
        std::vector<double> weights(m.k.rows, -INFINITY);
        for (int64_t j = 0; j <= m.offset + i; ++j)
          if (std::binary_search(blocks.begin(), blocks.end(), j / settings_.block))
            weights[j] = heads.naive_score(m, h, i, j);
        naive_softmax(weights);
        for (int64_t j = 0; j < m.k.rows; ++j)
          for (int64_t p = 0; p < dim; ++p)
            core(i, h * dim + p) += weights[j] * m.v(j, h * heads.kv_heads / heads.heads * dim + p);
      }
    }
  return naive::linear(core, run.w, "out");
}

std::optional<ImplicitMatrix> ChoosingMixer::implicit(const Var& x, const Context& c) {
  Choices made;
  Choices* const before = std::exchange(choices, &made);
  const Segment whole[] = {{0, x.rows(), 0, nullptr}};
  forward(x, {whole, &c});
  choices = before;
  const int64_t together = heads.heads / layout_.groups;
  return heads.implicit(x, c, [&](int64_t h, int64_t i, std::vector<double>& scores) {
    const std::vector<int32_t>& blocks = made.blocks.at({0, h / together, i});
    for (int64_t j = 0; j <= i; ++j)
      if (!std::binary_search(blocks.begin(), blocks.end(), j / settings_.block)) scores[j] = -INFINITY;
    naive_softmax(scores);
  });
}

}  // namespace sennit::mixers
