#include "measure/head_plan.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "measure/non_negative.h"

namespace sennit::measure {
namespace {

constexpr double kExponents[] = {0.25, 0.5, 1, 2};

using Value = int64_t (*)(const HeadShape& shape, int64_t context);
constexpr Value kValues[] = {
    [](const HeadShape& s, int64_t) { return s.parameters; }, [](const HeadShape& s, int64_t) { return s.heads; },
    [](const HeadShape& s, int64_t) { return s.kv_heads; }, [](const HeadShape&, int64_t context) { return context; }};

double power_of(Value value, double exponent, const HeadShape& shape, int64_t context) {
  return std::pow(static_cast<double>(value(shape, context)), -exponent);
}

// What differs among the rungs, and not as another of these does.
std::vector<Value> told_apart(std::span<const Rung> ladder) {
  std::vector<Value> values;
  std::set<std::vector<int64_t>> known;
  for (const Value value : kValues) {
    std::vector<int64_t> column;
    for (const Rung& r : ladder) column.push_back(value(r.shape, r.context));
    const bool differs = std::set<int64_t>(column.begin(), column.end()).size() > 1;
    if (differs && known.insert(std::move(column)).second) values.push_back(value);
  }
  return values;
}

// A model of the same blocks with other counts.
ModelSpec reshaped(const ModelSpec& given, int64_t d_model, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  ModelSpec spec = given;
  spec.d_model = d_model;
  Json mixer = *given.blocks[0].mixer, channel = *given.blocks[0].channel;
  mixer["heads"] = heads, mixer["kv_heads"] = kv_heads, mixer["head_dim"] = head_dim;
  if (channel.value("hidden", int64_t{0}))
    channel["hidden"] = std::max<int64_t>(1, channel.at("hidden").get<int64_t>() * d_model / given.d_model);
  for (BlockSpec& block : spec.blocks)
    block.mixer = std::make_shared<Json>(mixer), block.channel = std::make_shared<Json>(channel);
  return spec;
}

// How many parameters that has, about: maps of heads grow with the width, channels with its square.
class Parameters {
 public:
  Parameters(const ModelSpec& given, const HeadShape& shape) {
    const int64_t tables = given.vocab * (given.tie_embeddings ? 1 : 2);
    per_width_ = static_cast<double>(tables);
    const double rest = static_cast<double>(shape.parameters - tables * shape.d_model) - maps(shape);
    per_square_ = rest / (static_cast<double>(shape.d_model) * static_cast<double>(shape.d_model));
  }
  double of(const HeadShape& s) const {
    const auto d = static_cast<double>(s.d_model);
    return per_width_ * d + maps(s) + per_square_ * d * d;
  }

 private:
  static double maps(const HeadShape& s) {
    return static_cast<double>(2 * s.blocks * s.d_model) * static_cast<double>((s.heads + s.kv_heads) * s.head_dim);
  }
  double per_width_, per_square_;
};

struct Range {
  int64_t low = INT64_MAX, high = 0;
  void add(int64_t x) { low = std::min(low, x), high = std::max(high, x); }
};

class Search {
 public:
  Search(const ModelSpec& given, std::span<const Rung> ladder, const HeadPlanOptions& options, std::string where)
      : given_(given), options_(options), where_(std::move(where)), loss_(ladder), first_(head_shape(given, where_)) {
    heads_.add(first_.heads), kv_heads_.add(first_.kv_heads), parameters_.add(first_.parameters);
    for (const Rung& r : ladder) {
      if (r.shape.head_dim != first_.head_dim)
        fail({"head counts", fmt::format("a ladder of heads of {} numbers, as those of the model", first_.head_dim),
              fmt::format("heads of {}", r.shape.head_dim), where_});
      heads_.add(r.shape.heads), kv_heads_.add(r.shape.kv_heads), parameters_.add(r.shape.parameters);
      groups_.add(r.shape.heads / r.shape.kv_heads);
    }
    most_loss_ = loss_(first_, options.context) + options.slack;
    first_cost_ = token_cost(first_, options.context, options.bytes);
  }

  HeadPlan best() const {
    auto all = candidates();
    std::sort(all.begin(), all.end(), [&](const HeadShape& a, const HeadShape& b) { return share(a) < share(b); });
    for (const HeadShape& s : all) {
      if (share(s) >= 1) break;
      ModelSpec spec = reshaped(given_, s.d_model, s.heads, s.kv_heads, s.head_dim);
      const HeadShape exact = head_shape(spec, where_);
      if (fits(exact)) return planned(std::move(spec), exact);
    }
    return planned(given_, first_);
  }

 private:
  std::vector<HeadShape> candidates() const {
    std::vector<HeadShape> all;
    const Parameters parameters(given_, first_);
    for (int64_t heads = heads_.low; heads <= heads_.high; ++heads)
      for (int64_t kv = kv_heads_.low; kv <= std::min(heads, kv_heads_.high); ++kv) {
        if (heads % kv || heads / kv < groups_.low || heads / kv > groups_.high) continue;
        HeadShape s = first_;
        s.heads = heads, s.kv_heads = kv;
        for (s.d_model = 16;; s.d_model += 16) {
          s.parameters = std::llround(parameters.of(s)), s.looked_up = first_.looked_up / first_.d_model * s.d_model;
          if (static_cast<double>(s.parameters) > options_.reach * static_cast<double>(parameters_.high)) break;
          if (s.parameters >= parameters_.low && fits(s)) all.push_back(s);
        }
      }
    return all;
  }
  bool fits(const HeadShape& s) const {
    const TokenCost c = token_cost(s, options_.context, options_.bytes);
    return c.flops <= first_cost_.flops && c.bytes <= first_cost_.bytes && loss_(s, options_.context) <= most_loss_;
  }
  double share(const HeadShape& s) const {
    const TokenCost c = token_cost(s, options_.context, options_.bytes);
    return (c.flops / first_cost_.flops + c.bytes / first_cost_.bytes) / 2;
  }
  HeadPlan planned(ModelSpec spec, const HeadShape& s) const {
    return {std::move(spec), s, token_cost(s, options_.context, options_.bytes), loss_(s, options_.context), share(s)};
  }

  const ModelSpec& given_;
  HeadPlanOptions options_;
  std::string where_;
  HeadLoss loss_;
  HeadShape first_;
  TokenCost first_cost_;
  Range heads_, kv_heads_, groups_, parameters_;
  double most_loss_;
};

}  // namespace

HeadLoss::HeadLoss(std::span<const Rung> ladder) {
  const std::vector<Value> differing = told_apart(ladder);
  if (ladder.size() < differing.size() + 1)
    fail({"loss by head counts", fmt::format("at least {} trained models", differing.size() + 1),
          fmt::format("{}", ladder.size())});
  std::vector<double> losses;
  for (const Rung& r : ladder) losses.push_back(r.loss);
  residual_ = INFINITY;
  const size_t choices = std::size(kExponents);
  size_t all = 1;
  for (size_t i = 0; i < differing.size(); ++i) all *= choices;
  for (size_t choice = 0; choice < all; ++choice) {
    std::vector<Term> terms;
    for (size_t i = 0, rest = choice; i < differing.size(); ++i, rest /= choices)
      terms.push_back({differing[i], kExponents[rest % choices], 0});
    std::vector<std::vector<double>> rows;
    for (const Rung& r : ladder) {
      rows.push_back({1});
      // Against the first rung, so that all columns are of one size.
      for (const Term& t : terms)
        rows.back().push_back(power_of(t.value, t.exponent, r.shape, r.context) /
                              power_of(t.value, t.exponent, ladder[0].shape, ladder[0].context));
    }
    const auto fit = fit_non_negative(rows, losses);
    const double off = std::sqrt(fit.residual / static_cast<double>(ladder.size()));
    if (off >= residual_) continue;
    residual_ = off, constant_ = fit.x[0], terms_ = terms;
    for (size_t i = 0; i < terms_.size(); ++i)
      terms_[i].factor = fit.x[i + 1] / power_of(terms[i].value, terms[i].exponent, ladder[0].shape, ladder[0].context);
  }
}

double HeadLoss::operator()(const HeadShape& shape, int64_t context) const {
  double loss = constant_;
  for (const Term& t : terms_) loss += t.factor * power_of(t.value, t.exponent, shape, context);
  return loss;
}

HeadPlan plan_heads(const ModelSpec& given, std::span<const Rung> ladder, const HeadPlanOptions& options,
                    const std::string& where) {
  return Search(given, ladder, options, where).best();
}

}  // namespace sennit::measure
