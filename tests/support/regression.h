#pragma once
#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "blocks/block.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "train/descent.h"

// One mixer, or some blocks of it, between two linear maps, trained to follow real numbers.
namespace sennit::regression {

// Sequences back to back. What is asked: `answers` at the rows `asked`.
struct Series {
  Tensor inputs;   // [N, inputs]
  Tensor answers;  // [asked, outputs]
  std::vector<int64_t> asked;
  std::vector<Segment> segments;
};
// Room for `count` sequences of `length`, each asked at every row or at its last one alone.
inline Series series(int64_t count, int64_t length, int64_t inputs, int64_t outputs, bool everywhere) {
  Series s{
      Tensor::zeros({count * length, inputs}), Tensor::zeros({count * (everywhere ? length : 1), outputs}), {}, {}};
  for (int64_t i = 0; i < count; ++i) {
    s.segments.push_back({i * length, length, 0, nullptr});
    for (int64_t t = everywhere ? 0 : length - 1; t < length; ++t) s.asked.push_back(i * length + t);
  }
  return s;
}

struct Settings {
  Json mixer;
  int64_t inputs = 1, outputs = 1, width = 32;
  int64_t blocks = 0;  // each with a two-layer network; 0: the mixer alone
  int64_t steps = 1000;
  double rate = 1e-2;  // warmed up over a twentieth of the steps, then a cosine
  uint64_t seed = 1;
  Pattern pattern = Pattern::causal;
};

class Follower {
 public:
  explicit Follower(const Settings& settings)
      : settings_(settings),
        in_(settings.inputs, settings.width, Rng(settings.seed).fork("in"), {.bias = true}),
        out_(settings.width, settings.outputs, Rng(settings.seed).fork("out"), {.bias = true}) {
    std::vector<NamedParameter> parameters;
    const auto take = [&](const std::string& part, Module& module) {
      const auto more = named_parameters(module, part);
      parameters.insert(parameters.end(), more.begin(), more.end());
    };
    take("in.", in_), take("out.", out_);
    const Rng rng = Rng(settings.seed).fork("mixer");
    if (!settings.blocks) {
      mixer_ = mixers::registry().make(settings.mixer, {.d_model = settings.width}, rng, "test");
      take("mixer.", *mixer_);
    }
    const Json channel = "mlp", norm = "rmsnorm";
    for (int64_t b = 0; b < settings.blocks; ++b) {
      blocks_.push_back(sennit::blocks::registry().make("prenorm",
                                                        {.d_model = settings.width,
                                                         .depth = b,
                                                         .mixer = &settings.mixer,
                                                         .channel = &channel,
                                                         .norm = &norm,
                                                         .where = "test"},
                                                        rng.fork(static_cast<uint64_t>(b)), "test"));
      take(fmt::format("blocks.{}.", b), *blocks_.back());
    }
    descent_.emplace(std::move(parameters),
                     train::Options{.steps = settings.steps, .rate = settings.rate, .warmup = settings.steps / 20},
                     Json{{"name", "adamw"}, {"weight_decay", 0}});
  }

  void train(const std::function<Series(Rng rng)>& draw) {
    for (int64_t step = 1; step <= settings_.steps; ++step) {
      const Series s = draw(Rng(settings_.seed).fork("train").fork(static_cast<uint64_t>(step)));
      const Context context{.training = true};
      const Var apart = answers(s, context) - Var(s.answers);
      descent_->step(mean(apart * apart), {}, step);
    }
  }

  // The mean square of what the answers miss.
  double error(const Series& s) {
    NoGrad off;
    const Context context;
    const Var apart = answers(s, context) - Var(s.answers);
    return mean(apart * apart).value().data()[0];
  }
  // Of every row asked.
  Var answers(const Series& s, const Context& context) {
    const Batch batch{s.segments, &context, settings_.pattern};
    Var rows = in_(Var(s.inputs), context);
    if (mixer_) rows = mixer_->forward(rows, batch);
    for (const auto& block : blocks_) rows = block->forward(rows, batch);
    return out_(gather_rows(rows, s.asked), context);
  }
  int64_t parameter_count() {
    int64_t count = 0;
    for (const auto& q : descent_->parameters()) count += q.parameter->value().elements();
    return count;
  }

 private:
  Settings settings_;
  Linear in_, out_;
  std::unique_ptr<Mixer> mixer_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::optional<train::Descent> descent_;
};

}  // namespace sennit::regression
