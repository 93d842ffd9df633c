#pragma once
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "data/packer.h"
#include "model/model.h"
#include "tasks/task.h"
#include "train/descent.h"

// Small models trained for what a test says of them: any rows of tokens and targets, and the bytes of English text.
namespace sennit::trained {

// Sequences back to back; a target of data::kIgnored is not asked.
struct Rows {
  std::vector<int32_t> tokens, targets;
  std::vector<Segment> segments;

  void add(const std::vector<int32_t>& sequence, const std::vector<int32_t>& wanted) {
    segments.push_back({std::ssize(tokens), std::ssize(sequence), 0, nullptr});
    tokens.insert(tokens.end(), sequence.begin(), sequence.end());
    targets.insert(targets.end(), wanted.begin(), wanted.end());
  }
};

// `count` sequences of a task.
inline Rows sequences(const Task& task, int64_t count, Rng rng) {
  Rows rows;
  for (int64_t i = 0; i < count; ++i) {
    const TaskSequence s = task.sequence(rng.fork(static_cast<uint64_t>(i)));
    rows.add(s.tokens, s.targets);
  }
  return rows;
}

struct Settings {
  int64_t steps = 1000;
  double rate = 3e-3;  // warmed up over a twentieth of the steps, then a cosine
  uint64_t seed = 1;
  Pattern pattern = Pattern::causal;
};

// A model and its optimizer. `file` is a model file.
class Trainee {
 public:
  Trainee(const Json& file, const Settings& settings)
      : settings_(settings),
        model_(read_model_spec(file, "test"), Rng(settings.seed).fork("init"), "test"),
        descent_(named_parameters(model_),
                 {.steps = settings.steps, .rate = settings.rate, .warmup = settings.steps / 20}) {}

  // One step per call of `rows`, which gets the number of the step and a stream that no other step has.
  void train(const std::function<Rows(int64_t step, Rng rng)>& rows) {
    for (int64_t step = 1; step <= settings_.steps; ++step)
      learn(rows(step, Rng(settings_.seed).fork("train").fork(static_cast<uint64_t>(step))), step);
  }

  // Mean loss in nats over what `rows` ask.
  double loss(const Rows& rows) {
    NoGrad off;
    Context context = fresh(false);
    return loss_of(rows, context).value().data()[0];
  }
  // The part of what `rows` ask that the likeliest token answers.
  double accuracy(const Rows& rows) {
    NoGrad off;
    Context context = fresh(false);
    const Var hidden = model_.hidden(rows.tokens, {rows.segments, &context, settings_.pattern});
    const Tensor logits = model_.logits(hidden, context).value();
    const auto width = static_cast<size_t>(logits.row_size());
    int64_t right = 0, asked = 0;
    for (size_t t = 0; t < rows.targets.size(); ++t) {
      if (rows.targets[t] == data::kIgnored) continue;
      const auto row = logits.span().subspan(t * width, width);
      right += std::max_element(row.begin(), row.end()) - row.begin() == rows.targets[t];
      ++asked;
    }
    return static_cast<double>(right) / static_cast<double>(asked);
  }

  Model& model() { return model_; }

 private:
  Context fresh(bool training) const { return {.training = training, .rng = Rng(settings_.seed).fork("context")}; }
  Var loss_of(const Rows& rows, Context& context) {
    return model_.loss(model_.hidden(rows.tokens, {rows.segments, &context, settings_.pattern}), rows.targets, context);
  }
  void learn(const Rows& rows, int64_t step) {
    Context context = fresh(true);
    context.rng = context.rng.fork(static_cast<uint64_t>(step));
    std::vector<Var> more;
    context.losses = &more;
    const Var loss = loss_of(rows, context);
    descent_.step(loss, more, step);
  }

  Settings settings_;
  Model model_;
  train::Descent descent_;
};

// The bytes of this project's pages: English text that is always at hand. A tenth of it, in one piece, is kept apart.
class Text {
 public:
  Text() {
    std::set<std::filesystem::path> pages;
    for (const auto& entry : std::filesystem::directory_iterator(SENNIT_DOCS))
      if (entry.path().extension() == ".md") pages.insert(entry.path());
    std::string all;
    for (const auto& page : pages) {
      std::ifstream in(page, std::ios::binary);
      all.append(std::istreambuf_iterator<char>(in), {});
    }
    for (const char c : all) bytes_.push_back(static_cast<unsigned char>(c));
    border_ = bytes_.size() * 9 / 10;
  }

  // `count` sequences from places of the training part that `rng` draws.
  Rows drawn(int64_t count, int64_t length, Rng rng) const {
    Rows rows;
    for (int64_t r = 0; r < count; ++r)
      add(rows, static_cast<size_t>(rng.below(static_cast<int64_t>(border_) - length - 1)), length);
    return rows;
  }
  // What was kept apart, cut into sequences, at most `most` of them.
  Rows kept(int64_t length, int64_t most = 64) const {
    Rows rows;
    const auto step = static_cast<size_t>(length);
    for (size_t at = border_; at + step + 1 < bytes_.size() && most-- > 0; at += step) add(rows, at, length);
    return rows;
  }

 private:
  void add(Rows& rows, size_t at, int64_t length) const {
    const auto from = bytes_.begin() + static_cast<std::ptrdiff_t>(at);
    rows.add({from, from + length}, {from + 1, from + length + 1});
  }
  std::vector<int32_t> bytes_;
  size_t border_ = 0;
};

struct TextSettings {
  int64_t rows = 8, length = 128;  // of a step
  int64_t kept_length = 128;       // of the sequences that the loss is measured on
};

// Nats per byte of the text that was kept apart, after training a model of bytes: `file` without "vocab".
inline double text_loss(Json file, const Settings& settings, const TextSettings& text_settings = {}) {
  static const Text text;
  file["vocab"] = 256;
  Trainee trainee(file, settings);
  trainee.train([&](int64_t, Rng rng) { return text.drawn(text_settings.rows, text_settings.length, rng); });
  return trainee.loss(text.kept(text_settings.kept_length));
}

}  // namespace sennit::trained
