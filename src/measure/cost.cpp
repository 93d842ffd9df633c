#include "measure/cost.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "decoding/generate.h"
#include "measure/size.h"
#include "optimizers/optimizer.h"
#include "tensor/allocator.h"

namespace sennit::measure {
namespace {

constexpr int kTries = 5, kDecoded = 33;
constexpr double kLongTry = 0.5;  // seconds: longer ones are not repeated

double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + std::ssize(x) / 2, x.end());
  return x[x.size() / 2];
}

std::vector<int32_t> random_tokens(int64_t n, int64_t vocab) {
  Rng rng(1);
  std::vector<int32_t> ids(n);
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.below(vocab));
  return ids;
}

PrefillCost prefill_cost(Session& session, std::span<const int32_t> tokens) {
  std::vector<double> times;
  int64_t peak = 0;
  for (int i = 0; i < kTries; ++i) {
    session.restore(SequenceState(session.state().cache()));
    const int64_t before = memory_counters().live;
    reset_memory_peak();
    const double start = seconds_now();
    session.feed(tokens);
    times.push_back(seconds_now() - start);
    peak = memory_counters().peak - before;
    if (times.back() > kLongTry) break;
  }
  return {std::ssize(tokens), median(times), peak};
}

DecodeCost decode_cost(Session& session, int64_t position, int32_t token) {
  std::vector<double> times;
  for (int i = 0; i < kDecoded; ++i) {
    const double start = seconds_now();
    session.feed({&token, 1});
    times.push_back(seconds_now() - start);
  }
  return {position, median(times), session.state().bytes()};
}

}  // namespace

InferenceCost inference_cost(Model& model, const Context& context, const std::vector<int64_t>& lengths,
                             const Watch& watch) {
  InferenceCost cost;
  Session session(model, context);
  const auto warm_up = random_tokens(64, model.spec().vocab);
  session.feed(warm_up);
  for (const int64_t n : lengths) {
    if (watch && !watch(fmt::format("{} tokens", n))) break;
    const auto tokens = random_tokens(n, model.spec().vocab);
    cost.prefill.push_back(prefill_cost(session, tokens));
    cost.decode.push_back(decode_cost(session, n, tokens[0]));
  }
  return cost;
}

TrainingCost training_cost(Model& model, Context context, int64_t rows, int64_t length, int tries) {
  context.training = true;
  const std::vector<NamedParameter> parameters = named_parameters(model);
  const auto optimizer = optimizers::registry().make(Json("adamw"), {}, Rng(), "training cost");
  const auto tokens = random_tokens(rows * length, model.spec().vocab);
  std::vector<Segment> segments;
  for (int64_t r = 0; r < rows; ++r) segments.push_back({r * length, length, 0, nullptr});
  double best = 1e30;
  reset_memory_peak();
  for (int i = 0; i < tries; ++i) {
    const double start = seconds_now();
    for (const auto& p : parameters) p.parameter->var.clear_grad();
    const Var loss = model.loss(model.hidden(tokens, {segments, &context}), tokens, context);
    backward(loss);
    optimizer->step(parameters, {.step = 1 + i, .rate = 0, .gradient_scale = 1});
    best = std::min(best, seconds_now() - start);
  }
  const int64_t peak = memory_counters().peak;
  for (const auto& p : parameters) p.parameter->var.clear_grad();
  return {best, rows * length, peak};
}

TrainingCost estimate_training(const ModelSpec& spec, const Context& context, int64_t rows, int64_t length,
                               const std::string& where) {
  TrainingCost total{0, rows * length, 0};
  bool first = true;
  for (const BlockKind& kind : block_kinds(spec)) {
    TrainingCost cost[2];
    for (int blocks = 1; blocks <= 2; ++blocks) {
      ModelSpec few = spec;
      few.blocks.assign(blocks, kind.spec);
      const int64_t before = memory_counters().live;
      Model model(few, Rng(), where);
      cost[blocks - 1] = training_cost(model, context, rows, length, 3);
      cost[blocks - 1].peak_bytes -= before;
    }
    const double seconds = std::max(0.0, cost[1].seconds - cost[0].seconds);
    const int64_t bytes = cost[1].peak_bytes - cost[0].peak_bytes;
    if (first) total.seconds = std::max(0.0, cost[0].seconds - seconds), total.peak_bytes = cost[0].peak_bytes - bytes;
    total.seconds += static_cast<double>(kind.count) * seconds, total.peak_bytes += kind.count * bytes;
    first = false;
  }
  return total;
}

}  // namespace sennit::measure
