// Grouped queries with free head counts (Chen et al., "Cost-Optimal Grouped-Query Attention", arXiv:2503.09579).
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/parallel.h"
#include "measure/head_plan.h"
#include "ops/count.h"
#include "tensor/allocator.h"

namespace sennit::systems_p302_test {

using measure::HeadShape;
using measure::Rung;

Json model_file(int64_t d_model, int64_t blocks, int64_t heads, int64_t kv_heads, int64_t vocab = 256) {
  return {{"vocab", vocab},
          {"d_model", d_model},
          {"blocks",
           {{{"repeat", blocks}, {"mixer", "softmax"}, {"heads", heads}, {"kv_heads", kv_heads}, {"head_dim", 32}}}}};
}
ModelSpec spec_of(const Json& file) {
  return read_model_spec(file, "test");
}

std::unique_ptr<Mixer> attention_of(int64_t kv_heads) {
  return mixers::registry().make({{"name", "softmax"}, {"heads", 4}, {"kv_heads", kv_heads}, {"head_dim", 24}},
                                 {.d_model = 32}, Rng(1), "test");
}

// Fewer key heads are all key heads with equal weights.
TEST(SystemsP302, SharedKeysAreEqualKeys) {
  for (const int64_t shared : {1, 2, 4}) {
    auto few = attention_of(shared), all = attention_of(4);
    std::map<std::string, Tensor> weights;
    few->parameters([&](const std::string& name, Parameter& p) { weights[name] = p.value(); });
    all->parameters([&](const std::string& name, Parameter& p) {
      const Tensor& w = weights.at(name);
      Tensor spread(p.value().shape());
      const int64_t head = w.shape() == p.value().shape() ? w.elements() : w.elements() / shared;
      for (int64_t h = 0; h * head < spread.elements(); ++h)
        std::memcpy(spread.data() + h * head,
                    w.data() + (w.elements() == spread.elements() ? h : h * shared / 4) * head,
                    static_cast<size_t>(head) * sizeof(float));
      p.init(spread);
    });
    Tensor x({50, 32});
    Rng rng(2);
    for (float& v : x.span()) v = static_cast<float>(rng.normal());
    const Context context;
    const Segment whole[] = {{0, 50, 0, nullptr}};
    NoGrad off;
    const Tensor a = few->forward(Var(x), {whole, &context}).value(),
                 b = all->forward(Var(x), {whole, &context}).value();
    for (int64_t i = 0; i < a.elements(); ++i) ASSERT_NEAR(a.data()[i], b.data()[i], 1e-6) << shared << " at " << i;
    int64_t bytes = 0;
    for (const StateField& f : few->state_spec()) bytes += f.bytes(100);
    EXPECT_EQ(bytes, 2 * shared * 24 * 4 * 100);
  }
}

// A token's operations where they are done, and the bytes of weights and state where they lie.
TEST(SystemsP302, CostsAreWhatIsCounted) {
  for (const bool tied : {true, false})
    for (const int64_t context : {100, 1000}) {
      Json file = model_file(192, 3, 6, 2, 1000);
      file["tie_embeddings"] = tied;
      const int64_t before = memory_counters().live;
      Model model(spec_of(file), Rng(1));
      const double weights = static_cast<double>(memory_counters().live - before);
      SequenceState state;
      const Context c;
      NoGrad off;
      const std::vector<int32_t> tokens(static_cast<size_t>(context), 1);
      const Segment prompt[] = {{0, context - 1, 0, &state}}, last[] = {{0, 1, context - 1, &state}};
      model.hidden(std::span(tokens).first(tokens.size() - 1), {prompt, &c});
      operation_count().flops = 0;
      model.logits(model.hidden(std::span(tokens).first(1), {last, &c}), c);
      const auto counted = static_cast<double>(operation_count().flops);
      const auto cost = measure::token_cost(measure::head_shape(model.spec(), "test"), context);
      EXPECT_NEAR(cost.flops / counted, 1, 0.01) << context;
      EXPECT_NEAR(cost.bytes / (weights + static_cast<double>(state.bytes())), 1, 0.01) << context;
    }
}

TEST(SystemsP302, RefusesModelsThatAreNotOfEqualFullAttention) {
  Json mixed = model_file(64, 2, 2, 1), windowed = mixed, other = mixed;
  mixed["blocks"].push_back({{"mixer", "softmax"}});
  windowed["blocks"][0]["window"] = 9;
  other["blocks"] = {{{"mixer", "gla"}}};
  for (const Json& file : {mixed, windowed, other}) EXPECT_THROW(measure::head_shape(spec_of(file), "test"), Error);
}

// With a channel that grows with the square of the width to the last number, and the parameters counted by hand.
Json square_file(int64_t d_model, int64_t heads, int64_t kv_heads) {
  Json file = model_file(d_model, 2, heads, kv_heads);
  file["blocks"][0]["channel"] = {{"name", "mlp"}, {"bias", false}};
  return file;
}
HeadShape shape(int64_t d_model, int64_t heads, int64_t kv_heads) {
  return {d_model, 2,
          heads,   kv_heads,
          32,      256 * d_model + 2 * (2 * d_model * 32 * (heads + kv_heads) + 8 * d_model * d_model) + 5 * d_model};
}
std::vector<Rung> planted_ladder(const std::function<double(const HeadShape&)>& loss) {
  std::vector<Rung> ladder;
  for (const auto& [d, heads, kv] : {std::array<int64_t, 3>{64, 4, 4},
                                     {128, 4, 4},
                                     {96, 4, 4},
                                     {96, 1, 1},
                                     {96, 2, 2},
                                     {96, 4, 1},
                                     {96, 4, 2},
                                     {96, 8, 4}})
    ladder.push_back({shape(d, heads, kv), 128, loss(shape(d, heads, kv))});
  return ladder;
}
double planted_loss(const HeadShape& s) {
  return 1.5 + 20 / std::sqrt(static_cast<double>(s.parameters)) + 0.05 / static_cast<double>(s.heads) +
         0.02 / static_cast<double>(s.kv_heads * s.kv_heads);
}

TEST(SystemsP302, TheFitFindsAPlantedLaw) {
  const auto ladder = planted_ladder(planted_loss);
  const measure::HeadLoss fit(ladder);
  EXPECT_LE(fit.residual(), 1e-9);
  for (const auto& s : {shape(160, 3, 3), shape(256, 8, 2), shape(48, 2, 1)})
    EXPECT_NEAR(fit(s, 128), planted_loss(s), 1e-6);
  EXPECT_THROW(measure::HeadLoss({&ladder[3], 3}), Error);  // parameters, heads and key heads differ
}

// Against all shapes in the searched range, tried one by one.
TEST(SystemsP302, TheSearchFindsTheCheapestShape) {
  const auto ladder = planted_ladder(planted_loss);
  const ModelSpec given = spec_of(square_file(128, 8, 8));
  const HeadShape first = shape(128, 8, 8);
  EXPECT_EQ(measure::head_shape(given, "test").parameters, first.parameters);
  const auto plan = measure::plan_heads(given, ladder, {}, "test");
  const auto cost = [](const HeadShape& s) { return measure::token_cost(s, 32768); };
  const auto share = [&](const HeadShape& s) {
    return (cost(s).flops / cost(first).flops + cost(s).bytes / cost(first).bytes) / 2;
  };
  EXPECT_EQ(plan.shape.parameters, measure::head_shape(plan.model, "test").parameters);
  EXPECT_NEAR(plan.share, share(plan.shape), 1e-12);
  EXPECT_LE(planted_loss(plan.shape), planted_loss(first) + 1e-9);
  EXPECT_LE(cost(plan.shape).flops, cost(first).flops);
  EXPECT_LE(cost(plan.shape).bytes, cost(first).bytes);
  EXPECT_LE(plan.share, 0.7);
  int64_t most = first.parameters;
  for (const Rung& r : ladder) most = std::max(most, r.shape.parameters);
  double best = 1;
  for (int64_t d = 32; d <= 288; d += 16)
    for (int64_t heads = 1; heads <= 8; ++heads)
      for (int64_t kv = 1; kv <= heads; ++kv) {
        if (heads % kv || heads > 4 * kv) continue;  // the ladder has groups of up to 4
        const HeadShape s = shape(d, heads, kv);
        if (s.parameters <= 2 * most && planted_loss(s) <= planted_loss(first) && cost(s).flops <= cost(first).flops &&
            cost(s).bytes <= cost(first).bytes)
          best = std::min(best, share(s));
      }
  EXPECT_NEAR(plan.share, best, 1e-3);

  // Where heads are all that counts, no fewer will do.
  const auto costly = planted_ladder([](const HeadShape& s) { return 1 + 8 / static_cast<double>(s.heads); });
  const auto kept = measure::plan_heads(spec_of(square_file(96, 8, 1)), costly, {}, "test");
  EXPECT_EQ(kept.shape.heads, 8);

  Json wide_heads = square_file(96, 8, 8);
  wide_heads["blocks"][0]["head_dim"] = 64;
  EXPECT_THROW(measure::plan_heads(spec_of(wide_heads), ladder, {}, "test"), Error);
}

// Rates from models with other head counts and widths. All are timed in turn, twelve times, and the shortest counts:
// what else the machine does only adds.
struct Timed {
  bool known;
  std::unique_ptr<Model> model;
  measure::TimedToken token;
  Timed(const Json& file, int64_t context, bool is_known)
      : known(is_known), model(std::make_unique<Model>(spec_of(file), Rng(1))) {
    token = {measure::head_shape(model->spec(), "test"), context, INFINITY};
  }
};
TEST(SystemsP302, SpeedOfATokenIsForetold) {
  const int threads = thread_count();
  set_thread_count(1);
  const Json known_files[] = {model_file(96, 4, 4, 4), model_file(192, 4, 2, 1), model_file(128, 2, 8, 2),
                              model_file(192, 3, 2, 2), model_file(128, 3, 6, 3)},
             asked_files[] = {model_file(160, 3, 4, 2), model_file(160, 3, 3, 3)};
  std::vector<Timed> all;
  for (const int64_t context : {1024, 8192, 32768}) {  // neighbours in time, since others may use the machine too
    for (const Json& file : known_files) all.emplace_back(file, context, true);
    for (const Json& file : asked_files) all.emplace_back(file, context, false);
  }
  for (int round = 0; round < 12; ++round)
    for (Timed& t : all)
      t.token.seconds = std::min(t.token.seconds, measure::token_seconds(*t.model, t.token.context, 5));
  set_thread_count(threads);
  std::vector<measure::TimedToken> known;
  for (const Timed& t : all)
    if (t.known) known.push_back(t.token);
  const measure::TokenTime time(known);
  for (const Timed& t : all) {
    const measure::TimedToken& m = t.token;
    const double foretold = time.seconds(m.shape, m.context);
    std::printf("%s: %lld heads of %lld at %lld: %.3f ms, foretold %.3f ms (%.2f)\n", t.known ? "known" : "asked",
                static_cast<long long>(m.shape.heads), static_cast<long long>(m.shape.kv_heads),
                static_cast<long long>(m.context), 1e3 * m.seconds, 1e3 * foretold, foretold / m.seconds);
    if (!t.known) {
      EXPECT_NEAR(foretold / m.seconds, 1, 0.25);
    }
  }
}

}  // namespace sennit::systems_p302_test
