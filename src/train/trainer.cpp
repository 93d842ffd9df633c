#include "train/trainer.h"

#include <cmath>

#include "base/clock.h"
#include "base/parallel.h"
#include "io/json_file.h"
#include "metrics/event_file.h"
#include "metrics/run_store.h"
#include "train/gradient_norm.h"
#include "train/losses.h"

namespace sennit::train {
namespace {

// Runs that differ in these alone are the same run.
const char* const kMayChange[] = {"eval_every", "eval_tokens", "save_every", "keep", "minutes"};

class Run {
 public:
  Run(const RunSettings& settings, const Watcher& watcher, const std::atomic<bool>& stop)
      : settings_(settings), options_(settings.options), watcher_(watcher), stop_(stop), folder_(settings.out) {
    tokenizer_ = tokenizers::load_tokenizer(settings.data);
    train_ = open_split("train");
    valid_ = open_split("valid");
    spec_ = read_model_spec(settings.model, settings.model_path);
    if (tokenizer_->vocab_size() > spec_.vocab)
      fail({"training", fmt::format("a vocabulary of at least {} (the tokenizer's)", tokenizer_->vocab_size()), fmt::format("vocab = {}", spec_.vocab), settings.model_path});
    check_predicts(spec_, settings.model_path);
    const Rng rng(static_cast<uint64_t>(options_.seed));
    model_ = std::make_unique<Model>(spec_, rng.fork("init"), settings.model_path);
    model_->require_causal("train");
    parameters_ = named_parameters(*model_);
    optimizer_ = optimizers::registry().make(Json{{"name", options_.optimizer}, {"weight_decay", options_.weight_decay}}, {}, rng, "--optimizer");
    if (options_.carry && options_.checkpointed) fail({"training", "either carry or checkpointed", "both"});
    if (options_.steps == 0 && options_.minutes == 0) fail({"training", "steps or minutes", "neither"});
    context_.precision = parse_precision(options_.precision, "training");
    context_.training = true;
    if (options_.carry) streams_.resize(options_.rows * options_.accumulate), ending_.resize(streams_.size());
  }

  RunResult go() {
    resume_or_begin();
    metrics::RunStore store(folder_.path());
    store.truncate_after(step_);
    metrics::EventFile events(folder_.path(), step_);
    store_ = &store, events_ = &events;
    RunResult result;
    result.step = step_;
    while (step_ < options_.steps && !stop_) {
      ++step_;
      train_step();
      const bool last = step_ == options_.steps;
      if (last || due(options_.eval_every)) result.evaluation = evaluate_now();
      if (last || due(options_.save_every) || stop_) save();
    }
    if (step_ > 0 && step_ != saved_) save();
    result.step = step_;
    result.loss = loss_;
    result.finished = step_ >= options_.steps;
    store.set("status", result.finished ? "finished" : "stopped");
    return result;
  }

 private:
  std::shared_ptr<const data::TokenFile> open_split(const std::string& name) {
    auto file = std::make_shared<data::TokenFile>(settings_.data + "/" + name + ".tokens");
    file->check_tokenizer(*tokenizer_);
    if (file->tokens() < 2) fail({"training", "at least two tokens", std::to_string(file->tokens()), file->path()});
    return file;
  }

  bool due(int64_t every) const { return every > 0 && step_ % every == 0; }

  RunFolder::Parts parts() { return {*model_, *optimizer_, parameters_, *tokenizer_, options_.carry ? &streams_ : nullptr}; }

  Json settings_json() {
    return Json{{"model", write_model_spec(spec_)}, {"data", settings_.data}, {"train_tokens", train_->tokens()},
                {"tokenizer", fmt::format("{:016x}", tokenizer_->fingerprint())}, {"options", write_fields(options_.fields())}};
  }

  void resume_or_begin() {
    if (folder_.begun()) {
      const Json before = folder_.read_settings();
      if (!before.is_object() || !before.contains("options")) fail({"training run", "its settings", "something else", folder_.path() + "/run.json"});
      if (options_.steps == 0) options_.steps = before.at("options").value("steps", int64_t{0});
      check_same_run(before);
      step_ = saved_ = folder_.last_step();
      if (step_ > 0) folder_.load(step_, parts());
      if (step_ > 0 && watcher_.note) watcher_.note(fmt::format("going on after step {}", step_));
    }
    if (options_.steps == 0) options_.steps = steps_that_fit();
    folder_.write_settings(settings_json());
  }

  void check_same_run(const Json& before) {
    Json a = before, b = settings_json();
    for (const char* key : kMayChange) a["options"].erase(key), b["options"].erase(key);
    a.erase("data"), b.erase("data");  // the folder may have moved; its tokens and tokenizer may not have changed
    for (const auto& [key, value] : b.items())
      if (a.value(key, Json()) != value) {
        std::string what = key, was = json_text(a.value(key, Json())), is = json_text(value);
        if (key == "options")
          for (const auto& [name, v] : value.items())
            if (a["options"].value(name, Json()) != v) what = name, was = json_text(a["options"].value(name, Json())), is = json_text(v);
        fail({"training run", fmt::format("{} = {}, as the run began", what, was.substr(0, 80)), is.substr(0, 80), folder_.path() + "/run.json"});
      }
  }

  // Tries steps on throw-away copies of nothing: the weights are restored afterwards.
  int64_t steps_that_fit() {
    constexpr int kTries = 3;
    std::vector<Tensor> before;
    for (const auto& p : parameters_) before.push_back(p.parameter->value().clone());
    double best = 1e30;
    for (int i = 0; i < kTries; ++i) {
      const double start = seconds_now();
      accumulate_gradients(1 + i);
      clip_and_apply(1, 0);
      best = std::min(best, seconds_now() - start);
    }
    for (size_t i = 0; i < before.size(); ++i) parameters_[i].parameter->var.value().copy_from(before[i]);
    optimizer_->visit_state(parameters_, [](const std::string&, Tensor& t) { t = Tensor::zeros(t.shape()); });
    for (SequenceState& s : streams_) s = SequenceState();
    const auto steps = std::max<int64_t>(1, static_cast<int64_t>(options_.minutes * 60 / best));
    if (watcher_.note) watcher_.note(fmt::format("{:.3f} s a step: {} steps in {:g} minutes", best, steps, options_.minutes));
    return steps;
  }

  data::PackedBatch batch_at(int64_t step, int64_t micro) const {
    const int64_t all_rows = options_.rows * options_.accumulate;
    const data::RowRange range{micro * options_.rows, options_.rows};
    if (options_.carry) return data::StreamedBatches(train_, all_rows, options_.length).at(step - 1, range);
    return data::ShuffledBatches(train_, all_rows, options_.length, static_cast<uint64_t>(options_.seed)).at(step - 1, range);
  }

  // A segment that goes on or ends at a row's border belongs to that row's stream.
  std::vector<Segment> segments_for(const data::PackedBatch& batch, int64_t micro) {
    std::vector<Segment> segments = segments_of(batch);
    if (!options_.carry) return segments;
    for (size_t i = 0; i < segments.size(); ++i) {
      Segment& s = segments[i];
      const int64_t row = micro * options_.rows + s.begin / options_.length;
      const bool continues = batch.segments[i].continues, at_end = (s.begin + s.length) % options_.length == 0;
      if (!continues && !at_end) continue;
      if (continues && !at_end) ending_[row] = std::exchange(streams_[row], SequenceState());
      if (!continues) streams_[row] = SequenceState();
      s.state = at_end ? &streams_[row] : &ending_[row];
      s.position = s.state->position;
    }
    return segments;
  }

  double accumulate_gradients(int64_t step) {
    double loss = 0;
    auxiliary_ = 0;
    for (const auto& p : parameters_) p.parameter->var.clear_grad();
    for (int64_t m = 0; m < options_.accumulate; ++m) {
      const data::PackedBatch batch = batch_at(step, m);
      context_.rng = Rng(static_cast<uint64_t>(options_.seed)).fork("step").fork(static_cast<uint64_t>(step)).fork(static_cast<uint64_t>(m));
      for (auto& s : streams_) s.detach();
      const std::vector<Segment> segments = segments_for(batch, m);
      std::vector<Var> losses;
      context_.losses = &losses;
      const Var hidden = model_->hidden(batch.tokens, {segments, &context_}, options_.checkpointed);
      const Var value = model_->loss(hidden, batch.targets, context_);
      loss += value.value().data()[0] / static_cast<double>(options_.accumulate);
      context_.losses = nullptr;
      auxiliary_ += backward_all(value, losses, 1 / static_cast<float>(options_.accumulate)) / static_cast<double>(options_.accumulate);
    }
    for (auto& s : streams_) s.detach();
    return loss;
  }

  double clip_and_apply(int64_t step, double rate) {
    const double norm = gradient_norm(parameters_);
    const double scale = options_.clip > 0 && norm > options_.clip ? options_.clip / norm : 1;
    optimizer_->step(parameters_, {.step = step, .rate = rate, .gradient_scale = scale});
    return norm;
  }

  void train_step() {
    const double start = seconds_now();
    loss_ = accumulate_gradients(step_);
    const double rate = rate_at(options_, step_);
    if (!std::isfinite(loss_))
      fail({"training", "a finite loss", fmt::format("{} at step {}", loss_, step_), fmt::format("{}; the last checkpoint is of step {}", folder_.path(), saved_)});
    const double norm = clip_and_apply(step_, rate);
    if (!std::isfinite(norm))
      fail({"training", "a finite gradient", fmt::format("norm {} at step {}", norm, step_), fmt::format("{}; the last checkpoint is of step {}", folder_.path(), saved_)});
    const double seconds = seconds_now() - start, step_tokens = static_cast<double>(options_.rows * options_.length * options_.accumulate);
    smooth_ = smooth_ > 0 ? 0.9 * smooth_ + 0.1 * seconds : seconds;
    const StepReport report{step_, options_.steps, loss_, rate, norm, seconds, step_tokens / smooth_, step_ * static_cast<int64_t>(step_tokens)};
    for (const auto& [name, value] : {std::pair{"train/loss", loss_}, {"train/rate", rate}, {"train/gradient_norm", norm}, {"train/tokens_per_second", step_tokens / seconds}}) {
      store_->add(step_, name, value);
      events_->add(step_, name, value);
    }
    if (auxiliary_ != 0) store_->add(step_, "train/auxiliary_loss", auxiliary_), events_->add(step_, "train/auxiliary_loss", auxiliary_);
    if (step_ % 20 == 0) store_->flush(), events_->flush();
    if (watcher_.step) watcher_.step(report);
  }

  Evaluation evaluate_now() {
    Context context;
    context.precision = context_.precision;
    const Evaluation e = evaluate(*model_, *tokenizer_, valid_, {.rows = options_.rows, .length = options_.length, .max_tokens = options_.eval_tokens, .context = context});
    for (const auto& [name, value] : {std::pair{"valid/loss", e.loss}, {"valid/bits_per_byte", e.bits_per_byte}}) {
      store_->add(step_, name, value);
      events_->add(step_, name, value);
    }
    if (watcher_.evaluation) watcher_.evaluation(step_, e);
    return e;
  }

  void save() {
    store_->flush(), events_->flush();
    folder_.save(step_, parts(), options_.keep);
    saved_ = step_;
    if (watcher_.saved) watcher_.saved(step_, folder_.checkpoint(step_));
  }

  const RunSettings& settings_;
  Options options_;
  const Watcher& watcher_;
  const std::atomic<bool>& stop_;
  RunFolder folder_;
  std::unique_ptr<tokenizers::Tokenizer> tokenizer_;
  std::shared_ptr<const data::TokenFile> train_, valid_;
  ModelSpec spec_;
  std::unique_ptr<Model> model_;
  std::vector<NamedParameter> parameters_;
  std::unique_ptr<Optimizer> optimizer_;
  std::vector<SequenceState> streams_, ending_;  // one a row: carried on, and read for the last time in this step
  Context context_;
  metrics::RunStore* store_ = nullptr;
  metrics::EventFile* events_ = nullptr;
  int64_t step_ = 0, saved_ = 0;
  double loss_ = 0, auxiliary_ = 0, smooth_ = 0;
};

}  // namespace

RunResult run(const RunSettings& settings, const Watcher& watcher, const std::atomic<bool>& stop) {
  FlushDenormals flush;
  Run r(settings, watcher, stop);
  return r.go();
}

}  // namespace sennit::train
