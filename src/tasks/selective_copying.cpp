// Mamba: Linear-Time Sequence Modeling with Selective State Spaces (Gu & Dao, arXiv:2312.00752), section 3.1, figure 2:
// selective copying. Symbols stand among blanks at places that differ from sequence to sequence, and are asked for in
// their order at the end: what cannot tell a symbol from a blank can copy distances alone, and those say nothing here.
#include <algorithm>
#include <vector>

#include "data/packer.h"
#include "tasks/task.h"

namespace sennit::tasks {
namespace {

struct SelectiveCopying : Task {
  struct Options {
    int64_t count = 16, length = 256, symbols = 14;
    Fields fields() {
      return {{"count", &count, "symbols to copy", {.min = 1, .max = 1 << 20}},
              {"length", &length, "tokens of a sequence", {.min = 2, .max = 1 << 24}},
              {"symbols", &symbols, "different symbols; blank and mark are two more", {.min = 2, .max = 1 << 24}}};
    }
  };
  static Info info() { return {"Selective copying", "arXiv:2312.00752", "- a - - b - c - ? ? ?, answered by a b c"}; }

  SelectiveCopying(const Dims&, const Options& o, Rng) : options(o) {
    if (2 * o.count > o.length)
      fail({"selective_copying", fmt::format("a length of at least {}, twice the symbols", 2 * o.count),
            std::to_string(o.length)});
  }

  int64_t vocab() const override { return options.symbols + 2; }
  int64_t length() const override { return options.length; }

  TaskSequence sequence(Rng rng) const override {
    const auto blank = static_cast<int32_t>(options.symbols), mark = blank + 1;
    const int64_t asked = options.length - options.count;
    TaskSequence s;
    s.tokens.assign(static_cast<size_t>(options.length), mark);
    s.targets.assign(s.tokens.size(), data::kIgnored);
    int64_t left = options.count;
    for (int64_t t = 0; t < asked; ++t) {  // each choice of places is as likely as any other
      const bool symbol = rng.below(asked - t) < left;
      s.tokens[static_cast<size_t>(t)] = symbol ? static_cast<int32_t>(rng.below(options.symbols)) : blank;
      if (symbol) s.targets[static_cast<size_t>(options.length - left--)] = s.tokens[static_cast<size_t>(t)];
    }
    return s;
  }

  Options options;
};

}  // namespace

void register_selective_copying(Registry<Task>& r) {
  r.add<SelectiveCopying>("selective_copying");
}

}  // namespace sennit::tasks
