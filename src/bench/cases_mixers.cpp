#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "bench/cases.h"
#include "mixers/capabilities.h"

// Whole mixers over one sequence, and their steps at a position.
namespace sennit::bench {
namespace {

constexpr int64_t kWidth = 256, kChecked = 200, kMostTokens = 65536;

using Made = std::shared_ptr<Mixer>;

naive::Matrix in_double(const Tensor& t) {
  naive::Matrix m(t.rows(), t.row_size());
  std::copy(t.span().begin(), t.span().end(), m.a.begin());
  return m;
}

// Over a sequence of kChecked tokens.
double mixer_error(Mixer& mixer, Pattern pattern, bool exact) {
  NoGrad off;
  const Tensor x = random_rows(kChecked, kWidth, "x");
  naive::Weights w;
  mixer.parameters([&](const std::string& name, Parameter& p) { w[name] = in_double(p.value()); });
  const naive::Matrix rows = in_double(x);
  NaiveRun run{.w = w, .x = rows, .pattern = pattern};
  const naive::Matrix definition = mixer.naive(run);
  const Segment whole[] = {{0, kChecked, 0, nullptr}};
  const Context context{.exact = exact};
  const Var y = mixer.forward(Var(x), {whole, &context, pattern});
  Deviation d;
  for (size_t i = 0; i < definition.a.size(); ++i) d.add(y.value().data()[i], definition.a[i]);
  return d.relative();
}

Work whole(const Made& mixer, Pattern pattern, int64_t n, bool exact) {
  const Var x(random_rows(n, kWidth, "x"));
  return {[=] {
            NoGrad off;
            const Segment whole[] = {{0, n, 0, nullptr}};
            const Context context{.exact = exact};
            mixer->forward(x, {whole, &context, pattern});
          },
          [=] { return mixer_error(*mixer, pattern, exact); }};
}

Work steps(const Made& mixer, int64_t position) {
  const auto state = std::make_shared<SequenceState>();
  const Var x(random_rows(position, kWidth, "x")), one(random_rows(1, kWidth, "one"));
  NoGrad off;
  const Context context;
  const Segment past[] = {{0, position, 0, state.get()}};
  mixer->forward(x, {past, &context});
  return {[=] {
            NoGrad quiet;
            const Context c;
            for (int64_t i = 0; i < 64; ++i) {
              const Segment step[] = {{0, 1, position + i, state.get()}};
              mixer->forward(one, {step, &c});
            }
            if (mixer->rewinds())
              for (size_t f = 0; const StateField& field : mixer->state_spec()) state->layer(0).truncate(f++, field.rows(position));
          },
          [=] { return mixer_error(*mixer, Pattern::causal, true); }};
}

constexpr int64_t kMostFlops = 2'000'000'000'000;

}  // namespace

void add_mixers(std::vector<Case>& cases) {
  for (const auto& entry : mixers::registry().entries()) {
    const auto make = [name = entry.name](int64_t tokens) { return Made(mixer_for(name, kWidth, tokens)); };
    const Made mixer = make(kMostTokens);
    const Pattern pattern = entry.info.patterns.front();
    struct Kind {
      int64_t n;
      bool exact;
    };
    for (const auto [n, exact] : {Kind{4096, false}, Kind{4096, true}, Kind{kMostTokens, false}}) {
      if (mixer->flops(n) > 8 * (n / 4096) * mixer->flops(4096) || mixer->flops(n) > kMostFlops) continue;  // minutes
      cases.push_back({.name = fmt::format("mixer {} forward n={}{}", entry.name, n, exact ? " exact" : ""),
                       .flops = static_cast<double>(mixer->flops(n)),
                       .tokens = static_cast<double>(n),
                       .prepare = [make, pattern, n = n, exact = exact] { return whole(make(n), pattern, n, exact); }});
    }
    if (!mixers::decodes(entry.info)) continue;
    for (const int64_t position : {1024, 16384})
      cases.push_back({.name = fmt::format("mixer {} 64 steps at {}", entry.name, position),
                       .flops = 64.0 * static_cast<double>(mixer->flops(1)),
                       .tokens = 64,
                       .prepare = [make, position] { return steps(make(position + 64), position); }});
  }
}

}  // namespace sennit::bench
