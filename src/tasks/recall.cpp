// Zoology: Measuring and Improving Recall in Efficient Language Models (Arora et al., arXiv:2312.04927), section 4:
// multi-query associative recall. A sequence begins with `pairs` key-value pairs, all keys different; each key comes once
// more, at a place whose distance follows a power law, and its value is asked for. All other tokens are noise.
#include <algorithm>
#include <cmath>

#include "data/packer.h"
#include "tasks/task.h"

namespace sennit::tasks {
namespace {

struct Recall : Task {
  struct Options {
    int64_t pairs = 8, length = 32, vocab = 64;
    double power = 0.01;
    Fields fields() {
      return {{"pairs", &pairs, "key-value pairs to remember", {.min = 1, .max = 1 << 20}},
              {"length", &length, "tokens of a sequence", {.min = 4, .max = 1 << 24}},
              {"vocab", &vocab, "token ids: the lower half keys, the upper half values", {.min = 4, .max = 1 << 24}},
              {"power", &power, "exponent of the distances' power law; smaller: nearer", {.min = 1e-6, .max = 1}}};
    }
  };
  static Info info() {
    return {"Multi-query associative recall", "arXiv:2312.04927", "k1 v1 k2 v2 ... noise k2 ? noise k1 ?"};
  }

  Recall(const Dims&, const Options& o, Rng) : options(o) {
    if (o.pairs > o.vocab / 2) fail({"recall", fmt::format("at most {} pairs, half the vocabulary", o.vocab / 2), std::to_string(o.pairs)});
    if (4 * o.pairs > o.length) fail({"recall", fmt::format("a length of at least {}, four times the pairs", 4 * o.pairs), std::to_string(o.length)});
  }

  int64_t vocab() const override { return options.vocab; }
  int64_t length() const override { return options.length; }

  TaskSequence sequence(Rng rng) const override {
    const int64_t half = options.vocab / 2, pairs = options.pairs;
    const std::vector<int64_t> keys = distinct(pairs, std::vector<double>(static_cast<size_t>(half), 1), rng);
    TaskSequence s;
    s.targets.assign(static_cast<size_t>(options.length), data::kIgnored);
    for (int64_t i = 0; i < options.length; ++i) s.tokens.push_back(static_cast<int32_t>(rng.below(options.vocab)));
    std::vector<double> weights;
    for (int64_t slot = 0; slot < (options.length - 2 * pairs) / 2; ++slot)
      weights.push_back(options.power * std::pow(static_cast<double>(slot + 1), options.power - 1));
    const std::vector<int64_t> slots = distinct(pairs, weights, rng);
    for (int64_t i = 0; i < pairs; ++i) {
      const auto key = static_cast<int32_t>(keys[i]), value = static_cast<int32_t>(half + rng.below(half));
      const int64_t asked = 2 * pairs + 2 * slots[i];
      s.tokens[2 * i] = s.tokens[asked] = key;
      s.tokens[2 * i + 1] = s.tokens[asked + 1] = s.targets[asked] = value;
    }
    return s;
  }

  // n different indices, drawn one after another with these weights: the n largest of u^(1/w) (Efraimidis & Spirakis).
  static std::vector<int64_t> distinct(int64_t n, const std::vector<double>& weights, Rng& rng) {
    std::vector<std::pair<double, int64_t>> keyed;
    for (size_t i = 0; i < weights.size(); ++i) keyed.push_back({std::log(1 - rng.uniform()) / weights[i], static_cast<int64_t>(i)});
    std::partial_sort(keyed.begin(), keyed.begin() + n, keyed.end(), std::greater<>());
    std::vector<int64_t> drawn;
    for (int64_t i = 0; i < n; ++i) drawn.push_back(keyed[i].second);
    return drawn;
  }

  Options options;
};

}  // namespace

void register_recall(Registry<Task>& r) { r.add<Recall>("recall"); }

}  // namespace sennit::tasks
