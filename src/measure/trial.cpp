#include "measure/trial.h"

#include <algorithm>
#include <cmath>

#include "base/clock.h"
#include "data/packer.h"
#include "mixers/mixer.h"
#include "model/model.h"
#include "tensor/allocator.h"
#include "train/descent.h"

namespace sennit::measure {
namespace {

constexpr int64_t kPoints = 10;          // of the accuracy curve
constexpr int64_t kAskedOnTheWay = 128;  // sequences at those before the last

struct Packed {
  std::vector<int32_t> tokens, targets;
  std::vector<Segment> segments;
};

Packed pack(const Task& task, int64_t rows, const Rng& rng) {
  Packed p;
  for (int64_t r = 0; r < rows; ++r) {
    const TaskSequence s = task.sequence(rng.fork(static_cast<uint64_t>(r)));
    p.segments.push_back({std::ssize(p.tokens), std::ssize(s.tokens), 0, nullptr});
    p.tokens.insert(p.tokens.end(), s.tokens.begin(), s.tokens.end());
    p.targets.insert(p.targets.end(), s.targets.begin(), s.targets.end());
  }
  return p;
}

// Whether it sums the tokens before its own with learned weights before it does anything else.
bool convolves(const Json& mixer, int64_t d_model) {
  const StateSpec spec = mixers::registry().make(mixer, {.d_model = d_model}, Rng(), "trial")->state_spec();
  return std::any_of(spec.begin(), spec.end(), [](const StateField& f) { return f.name.rfind("conv", 0) == 0; });
}

Json model_file(const Json& mixer, const TrialOptions& o, int64_t vocab) {
  const auto blocks = [](int64_t repeat, const Json& of) {
    return Json{{"repeat", repeat}, {"mixer", of}, {"channel", "swiglu"}};
  };
  return {{"vocab", vocab},
          {"d_model", o.d_model},
          {"blocks", o.first.is_null() || convolves(mixer, o.d_model)
                         ? Json::array({blocks(o.blocks, mixer)})
                         : Json::array({blocks(1, o.first), blocks(o.blocks - 1, mixer)})}};
}

class Trial {
 public:
  Trial(const Json& file, const TrialOptions& options)
      : options_(options),
        rng_(static_cast<uint64_t>(options.seed)),
        task_(tasks::registry().make(options.task, {}, rng_, "--task")),
        model_(read_model_spec(file, "trial"), rng_.fork("init"), "trial"),
        descent_(named_parameters(model_),
                 {.steps = options.steps, .rate = options.rate, .warmup = options.steps / 20}) {
    context_.precision = options.precision;
  }

  // The loss of this step. A sequence is a function of the seed and its number: no step repeats one.
  double step(int64_t at) {
    const Packed p = pack(*task_, options_.rows, rng_.fork("train").fork(static_cast<uint64_t>(at)));
    context_.training = true;
    std::vector<Var> losses;
    context_.losses = &losses;
    const Var loss = model_.loss(model_.hidden(p.tokens, {p.segments, &context_}), p.targets, context_);
    context_.losses = nullptr;
    descent_.step(loss, losses, at);
    return loss.value().data()[0];
  }

  struct Score {
    double accuracy, loss;
  };
  Score score(int64_t sequences) {
    NoGrad off;
    context_.training = false;
    int64_t right = 0, asked = 0;
    double loss = 0;
    for (int64_t from = 0; from < sequences; from += options_.rows) {
      const int64_t rows = std::min(options_.rows, sequences - from);
      const Packed p = pack(*task_, rows, rng_.fork("asked").fork(static_cast<uint64_t>(from)));
      const Var hidden = model_.hidden(p.tokens, {p.segments, &context_});
      const Tensor logits = model_.logits(hidden, context_).value();
      Tensor losses;
      model_.loss(hidden, p.targets, context_, &losses);
      for (size_t t = 0; t < p.targets.size(); ++t) {
        if (p.targets[t] == data::kIgnored) continue;
        const auto row =
            logits.span().subspan(t * static_cast<size_t>(logits.row_size()), static_cast<size_t>(logits.row_size()));
        right += std::max_element(row.begin(), row.end()) - row.begin() == p.targets[t];
        loss += losses.data()[t];
        ++asked;
      }
    }
    return {static_cast<double>(right) / static_cast<double>(asked), loss / static_cast<double>(asked)};
  }

  Model& model() { return model_; }
  const Task& task() const { return *task_; }

 private:
  const TrialOptions& options_;
  Rng rng_;
  std::unique_ptr<Task> task_;
  Model model_;
  train::Descent descent_;
  Context context_;
};

}  // namespace

std::optional<TrialResult> trial(const std::string& name, const Json& mixer, const TrialOptions& options,
                                 const Watch& watch) {
  const auto task = tasks::registry().make(options.task, {}, Rng(), "--task");
  TrialResult r;
  r.name = name;
  r.model = model_file(mixer, options, task->vocab());
  Trial t(r.model, options);
  r.parameters = t.model().parameter_count();
  r.state_bytes = t.model().state_bytes(task->length());
  r.state_bytes_64k = t.model().state_bytes(65536);
  reset_memory_peak();
  for (int64_t step = 1; step <= options.steps; ++step) {
    if (watch && !watch(fmt::format("{} step {}/{}", name, step, options.steps))) return std::nullopt;
    const double start = seconds_now();
    r.loss = t.step(step);
    r.seconds += seconds_now() - start;
    if (!std::isfinite(r.loss))
      fail({"trial", "a finite loss", fmt::format("{} at step {} of {}", r.loss, step, name)});
    if (step == options.steps) r.peak_bytes = memory_counters().peak;
    if (step % std::max<int64_t>(1, options.steps / kPoints) == 0 || step == options.steps) {
      const bool last = step == options.steps;
      const auto [accuracy, loss] = t.score(last ? options.asked : std::min(options.asked, kAskedOnTheWay));
      r.accuracy = accuracy, r.loss = loss;
      r.accuracy_by_steps.push_back({static_cast<double>(step), accuracy});
    }
  }
  r.tokens_per_second = static_cast<double>(options.steps * options.rows * task->length()) / r.seconds;
  return r;
}

Json to_json(const TrialResult& r) {
  if (!r.failed.empty()) return {{"mixer", r.name}, {"failed", r.failed}};
  return {{"mixer", r.name},
          {"parameters", r.parameters},
          {"accuracy", r.accuracy},
          {"loss", r.loss},
          {"accuracy_by_steps", r.accuracy_by_steps},
          {"seconds", r.seconds},
          {"tokens_per_second", r.tokens_per_second},
          {"peak_bytes", r.peak_bytes},
          {"state_bytes", r.state_bytes},
          {"state_bytes_64k", r.state_bytes_64k},
          {"model", r.model}};
}

TrialResult trial_from_json(const Json& j) {
  TrialResult r;
  try {
    j.at("mixer").get_to(r.name);
    if (j.contains("failed")) return j.at("failed").get_to(r.failed), r;
    r.model = j.at("model");
    j.at("parameters").get_to(r.parameters);
    j.at("accuracy").get_to(r.accuracy);
    j.at("loss").get_to(r.loss);
    j.at("accuracy_by_steps").get_to(r.accuracy_by_steps);
    j.at("seconds").get_to(r.seconds);
    j.at("tokens_per_second").get_to(r.tokens_per_second);
    j.at("peak_bytes").get_to(r.peak_bytes);
    j.at("state_bytes").get_to(r.state_bytes);
    j.at("state_bytes_64k").get_to(r.state_bytes_64k);
  } catch (const Json::exception& e) {
    fail({"trial", "a result as `sennit compare --mixers --json` prints it", e.what()});
  }
  return r;
}

Json to_json(const TrialOptions& o) {
  return {{"task", o.task},     {"d_model", o.d_model},
          {"blocks", o.blocks}, {"first", o.first},
          {"steps", o.steps},   {"sequences", o.rows},
          {"rate", o.rate},     {"asked", o.asked},
          {"seed", o.seed},     {"precision", to_string(o.precision)}};
}

}  // namespace sennit::measure
