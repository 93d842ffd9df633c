#pragma once
#include <memory>
#include <nlohmann/json.hpp>

#include "blocks/block.h"
#include "nn/init.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/pool.h"
#include "ops/products.h"
#include "support/digits.h"
#include "train/descent.h"

// Small images of digits that are drawn here, and classifiers of them: patches as tokens of a grid, blocks of any
// mixer.
namespace sennit::images {

constexpr int64_t kSide = 16, kPatch = 2, kColumns = kSide / kPatch, kTokens = kColumns * kColumns,
                  kPatchSize = kPatch * kPatch, kClasses = 10;

// Images as tokens [count tokens, numbers of a patch], and the class of each.
struct Images {
  Tensor patches;
  std::vector<int32_t> classes;

  int64_t count() const { return std::ssize(classes); }
  Images taken(std::span<const int64_t> which) const {
    Images some{Tensor({std::ssize(which) * kTokens, kPatchSize}), {}};
    for (size_t i = 0; i < which.size(); ++i) {
      some.patches.slice(static_cast<int64_t>(i) * kTokens, kTokens)
          .copy_from(patches.slice(which[i] * kTokens, kTokens));
      some.classes.push_back(classes[static_cast<size_t>(which[i])]);
    }
    return some;
  }
};

// What is done to a digit before it is shown.
struct Look {
  double noise = 0.3;     // the deviation of what is added to every pixel
  bool negative = false;  // as often dark on light as light on dark
};

inline Images drawn(int64_t count, const Look& look, Rng rng) {
  Images all{Tensor({count * kTokens, kPatchSize}), {}};
  for (int64_t n = 0; n < count; ++n) {
    Rng one = rng.fork(static_cast<uint64_t>(n));
    all.classes.push_back(static_cast<int32_t>(one.below(kClasses)));
    const std::vector<float> ink = digits::drawn(all.classes.back(), kSide, one.fork("strokes"));
    const double sign = look.negative && one.below(2) ? -1 : 1;
    for (int64_t y = 0; y < kSide; ++y)
      for (int64_t x = 0; x < kSide; ++x) {
        const int64_t token = y / kPatch * kColumns + x / kPatch, place = y % kPatch * kPatch + x % kPatch;
        all.patches.data()[(n * kTokens + token) * kPatchSize + place] =
            static_cast<float>(sign * (2.0 * ink[static_cast<size_t>(y * kSide + x)] - 1) + look.noise * one.normal());
      }
  }
  return all;
}

struct Settings {
  std::vector<Json> blocks;  // each {"mixer", "channel"}
  int64_t width = 32;
  int64_t class_at = -1;  // where the class token stands among the others; -1: there is none, and rows are averaged
  int64_t steps = 300, batch = 32;
  double rate = 5e-3;  // warmed up over a tenth of the steps, then a cosine
  uint64_t seed = 1;
};

class Classifier {
 public:
  explicit Classifier(const Settings& settings)
      : settings_(settings), in_(kPatchSize, settings.width, Rng(settings.seed).fork("in"), {.bias = true}) {
    const Rng rng(settings.seed);
    const int64_t d = settings.width;
    positions_.init(normal_init({kTokens + 1, d}, 0.1, rng.fork("positions")));
    class_token_.init(normal_init({1, d}, 0.1, rng.fork("class")));
    head_.init(normal_init({kClasses, d}, 1 / std::sqrt(static_cast<double>(d)), rng.fork("head")));
    const Json norm = "layernorm";
    norm_ = norms::registry().make(norm, {d}, rng, "test");
    take("in.", in_), take("norm.", *norm_);
    parameters_.push_back({"positions", &positions_}), parameters_.push_back({"head", &head_});
    if (settings.class_at >= 0) parameters_.push_back({"class", &class_token_});
    for (size_t b = 0; b < settings.blocks.size(); ++b) {
      const Json &mixer = settings.blocks[b]["mixer"], &channel = settings.blocks[b]["channel"];
      blocks_.push_back(sennit::blocks::registry().make("prenorm",
                                                        {.d_model = d,
                                                         .depth = static_cast<int64_t>(b),
                                                         .mixer = &mixer,
                                                         .channel = &channel,
                                                         .norm = &norm,
                                                         .where = "test"},
                                                        rng.fork("block").fork(b), "test"));
      take("block.", *blocks_.back());
    }
    descent_.emplace(parameters_,
                     train::Options{.steps = settings.steps, .rate = settings.rate, .warmup = settings.steps / 10});
  }

  void train(const Images& from) {
    for (int64_t step = 1; step <= settings_.steps; ++step) {
      Rng rng = Rng(settings_.seed).fork("train").fork(static_cast<uint64_t>(step));
      std::vector<int64_t> which;
      while (std::ssize(which) < settings_.batch) which.push_back(rng.below(from.count()));
      const Images some = from.taken(which);
      const Context context{.training = true};
      descent_->step(linear_cross_entropy(seen(some, context), head_, some.classes), {}, step);
    }
  }
  // The part of them that is told right.
  double accuracy(const Images& of) {
    NoGrad off;
    int64_t right = 0;
    for (int64_t first = 0; first < of.count(); first += 100) {
      std::vector<int64_t> which;
      for (int64_t i = first; i < std::min(first + 100, of.count()); ++i) which.push_back(i);
      const Images some = of.taken(which);
      const Tensor said = matmul(seen(some, {}), head_, {.transpose_b = true}).value();
      for (int64_t i = 0; i < some.count(); ++i) {
        const auto row = said.span().subspan(static_cast<size_t>(i * kClasses), kClasses);
        right += std::max_element(row.begin(), row.end()) - row.begin() == some.classes[static_cast<size_t>(i)];
      }
    }
    return static_cast<double>(right) / static_cast<double>(of.count());
  }
  int64_t parameter_count() const {
    int64_t count = 0;
    for (const auto& q : parameters_) count += q.parameter->value().elements();
    return count;
  }

 private:
  void take(const std::string& part, Module& module) {
    const auto more = named_parameters(module, part);
    parameters_.insert(parameters_.end(), more.begin(), more.end());
  }
  // A row of each image, from which its class is told.
  Var seen(const Images& some, const Context& context) {
    const int64_t length = kTokens + (settings_.class_at >= 0), count = some.count();
    std::vector<int64_t> order, places, told;
    std::vector<Segment> segments;
    for (int64_t n = 0; n < count; ++n) {
      segments.push_back({n * length, length, 0, nullptr});
      for (int64_t t = 0; t < length; ++t) {
        const int64_t before = settings_.class_at >= 0 && t > settings_.class_at;
        order.push_back(t == settings_.class_at ? count * kTokens : n * kTokens + t - before);
        places.push_back(t);
        if (t == settings_.class_at) told.push_back(n * length + t);
      }
    }
    const Var parts[] = {in_(Var(some.patches), context), class_token_.var};
    Var x = gather_rows(concat_rows(parts), order) + gather_rows(positions_, places);
    for (const auto& block : blocks_) x = block->forward(x, {segments, &context, Pattern::bidirectional});
    x = norm_->forward(x);
    return told.empty() ? pool_runs(x, length, Pooling::mean) : gather_rows(x, told);
  }

  Settings settings_;
  Linear in_;
  Parameter positions_, class_token_, head_;
  std::unique_ptr<Norm> norm_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<NamedParameter> parameters_;
  std::optional<train::Descent> descent_;
};

// `count` blocks alike.
inline std::vector<Json> blocks_of(const Json& mixer, int64_t count = 2, const Json& channel = "mlp") {
  return std::vector<Json>(static_cast<size_t>(count), Json{{"mixer", mixer}, {"channel", channel}});
}

}  // namespace sennit::images
