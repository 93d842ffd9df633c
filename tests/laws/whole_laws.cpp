// Laws of sequences that are run whole, in every pattern.
#include <algorithm>

#include "base/cpu.h"
#include "base/parallel.h"
#include "laws/cases.h"
#include "ops/count.h"

namespace sennit::laws {
namespace {

std::string forward_is_naive(const MixerCase& c, Pattern pattern) {
  const IsaLevel before = isa_level();
  std::string broken;
  for (int level = 0; level < kIsaLevels && broken.empty(); ++level) {
    if (!isa_level_refusal(static_cast<IsaLevel>(level)).empty()) continue;
    set_isa_level(static_cast<IsaLevel>(level));
    broken = over_lengths(
        c, pattern,
        [](Mixer& m, const Sample& sample, const naive::Matrix& definition, double allowed, Rng) -> std::string {
          for (const bool exact : {false, true}) {
            const Distance d = distance(run_whole(m, sample, {.exact = exact}), definition);
            if (d.relative > allowed) return off_by(exact ? "forward, exact" : "forward", d, allowed, sample.x.rows());
          }
          return "";
        });
    if (!broken.empty()) broken += fmt::format(" at level {}", to_string(isa_level()));
  }
  set_isa_level(before);
  return broken;
}

// Sequences in one batch, with what each looks at across.
struct Packed {
  Pattern pattern;
  std::vector<Segment> segments, memories;
  Var x, memory;

  Packed(const MixerCase& c, Pattern p, const std::vector<int64_t>& lengths, Rng rng) : pattern(p) {
    int64_t n = 0, m = 0;
    for (int64_t length : lengths) {
      length = c.whole(p, length);
      const int64_t memory_length = 1 + rng.below(70);
      segments.push_back({n, length, 0, nullptr}), memories.push_back({m, memory_length, 0, nullptr});
      n += length, m += memory_length;
    }
    draw(c, rng);
  }
  void draw(const MixerCase& c, Rng rng) {
    const int64_t n = segments.back().begin + segments.back().length,
                  m = memories.back().begin + memories.back().length;
    x = Var::leaf(random_rows(n, c.d_model, rng.fork("x")));
    if (pattern == Pattern::cross) memory = Var::leaf(random_rows(m, c.d_model, rng.fork("memory")));
  }
  Batch batch(const Context& context) const {
    if (pattern == Pattern::cross) return {segments, &context, pattern, &memory, memories};
    return {segments, &context, pattern};
  }
  // Runs a segment by itself, going on from `state`.
  Tensor alone(Mixer& mixer, size_t i, const Context& context, SequenceState* state) const {
    const Segment &s = segments[i], &m = memories[i];
    const Segment by_itself[] = {{0, s.length, s.position, state}}, its_memory[] = {{0, m.length, 0, nullptr}};
    const Var rows(x.value().slice(s.begin, s.length).clone());
    if (pattern != Pattern::cross) return mixer.forward(rows, {by_itself, &context, pattern}).value();
    const Var seen(memory.value().slice(m.begin, m.length).clone());
    return mixer.forward(rows, {by_itself, &context, pattern, &seen, its_memory}).value();
  }
};

std::string empty_sequences(const MixerCase& c, Pattern pattern) {
  HostileMemory hostile;
  NoGrad off;
  auto mixer = c.make(Rng(3));
  const Context context;
  for (const int64_t memory : {0, 5})
    if (run_whole(*mixer, random_sample(c, pattern, 0, memory, Rng(4)), context).rows() != 0)
      return "an empty sequence has outputs";
  const Packed with(c, pattern, {0, 2, 0, 3, 0}, Rng(4));
  const Tensor y = mixer->forward(with.x, with.batch(context)).value();
  for (const size_t i : {1, 3}) {
    const std::string differ =
        bits_differ(y.slice(with.segments[i].begin, with.segments[i].length), with.alone(*mixer, i, context, nullptr));
    if (!differ.empty()) return "beside empty sequences: " + differ;
  }
  if (pattern == Pattern::cross) {  // nothing to look at
    const Sample blind = random_sample(c, pattern, 3, 0, Rng(5));
    const Distance d = distance(run_whole(*mixer, blind, context), run_naive(*mixer, blind));
    return d.relative > 2e-5 ? off_by("a memory of no rows", d, 2e-5, 3) : "";
  }
  if (pattern != Pattern::causal || !c.stateful) return "";
  SequenceState a, b;
  const Sample x = random_sample(c, pattern, 5, 0, Rng(4));
  return bits_differ(run_pieces(*mixer, x, {0, 2, 0, 3, 0}, context, a), run_pieces(*mixer, x, {2, 3}, context, b));
}

// Several sequences in one batch, with and without states, against each alone.
std::string packed_is_alone(const MixerCase& c, Pattern pattern) {
  HostileMemory hostile;
  NoGrad off;
  const bool states = pattern == Pattern::cross || (pattern == Pattern::causal && c.stateful);
  for (const bool exact : {true, false})
    for (uint64_t seed = 0; seed < 6; ++seed) {
      Rng rng = Rng(17).fork(c.name).fork(seed);
      auto mixer = c.make(rng.fork("init"));
      shake(*mixer, rng.fork("shake"), 4);
      const Context context{.exact = exact};
      std::vector<int64_t> lengths(1 + rng.below(5));
      for (int64_t& length : lengths) length = rng.below(3) ? rng.below(70) : 1;
      const size_t count = lengths.size();
      Packed packed(c, pattern, lengths, rng.fork("rows"));
      std::vector<SequenceState> together(count), alone(count);
      for (size_t i = 0; i < count; ++i) packed.segments[i].state = states && rng.below(2) ? &together[i] : nullptr;
      for (int round = 0; round < 2; ++round) {
        packed.draw(c, rng.fork("rows").fork(round));
        for (auto& s : packed.segments) s.position = s.state ? s.state->position : 0;
        const Tensor y = mixer->forward(packed.x, packed.batch(context)).value();
        for (size_t i = 0; i < count; ++i) {
          const Segment& s = packed.segments[i];
          const Tensor one = packed.alone(*mixer, i, context, s.state ? &alone[i] : nullptr),
                       of_all = y.slice(s.begin, s.length);
          if (exact && !same_bits(of_all, one))
            return fmt::format("exact mode, segment {} of {}: {}", i, count, bits_differ(of_all, one));
          if (distance(of_all, one).relative > 1e-4) return off_by("packed", distance(of_all, one), 1e-4, s.length);
          if (s.state) s.state->position += s.length;
        }
      }
    }
  return "";
}

// Forward and backward with a packed batch of several sequences, on different numbers of threads.
std::string threads_change_nothing(const MixerCase& c, Pattern pattern) {
  const int before = thread_count();
  std::vector<Tensor> reference;
  std::string broken;
  for (const int threads : {1, 2, 3, 8}) {
    set_thread_count(threads);
    Rng rng = Rng(37).fork(c.name);
    auto mixer = c.make(rng.fork("init"));
    const Packed packed(c, pattern, {70, 1, 33, 96}, rng);
    const Context context;
    const Var y = mixer->forward(packed.x, packed.batch(context));
    backward(y, random_rows(y.rows(), c.d_model, rng.fork("a")));
    std::vector<Tensor> got = {y.value(), packed.x.grad()};
    if (packed.memory) got.push_back(packed.memory.grad());
    mixer->parameters([&](const std::string& name, Parameter& p) {
      if (p.learned && !mixer->taught(name)) got.push_back(p.var.grad());
    });
    if (reference.empty()) reference = got;
    for (size_t i = 0; i < got.size() && broken.empty(); ++i)
      if (!same_bits(got[i], reference[i]))
        broken = fmt::format("{} threads, tensor {}: {}", threads, i, bits_differ(got[i], reference[i]));
  }
  set_thread_count(before);
  return broken;
}

constexpr int64_t kMostFlops = int64_t{1} << 32;  // of one pass

// Each thread has memory of its own, a short sequence has no work for many, and which of their pieces meet is chance: of
// one, memory follows the sequence.
struct OneThread {
  const int before = thread_count();
  OneThread() { set_thread_count(1); }
  ~OneThread() { set_thread_count(before); }
};

std::string costs_as_declared(const MixerCase& c, Pattern pattern) {
  const NoGrad off;
  const OneThread one;
  auto mixer = c.make(Rng(41));
  for (const int64_t least : {64, 256, 512}) {
    const int64_t n = c.whole(pattern, least), m = pattern == Pattern::cross ? 3 * n / 4 : 0;
    if (!affordable(*mixer, pattern, n, m, kMostFlops)) break;
    const Sample sample = random_sample(c, pattern, n, m, Rng(42));
    operation_count() = {};
    run_whole(*mixer, sample, {});
    const double counted = static_cast<double>(operation_count().flops),
                 declared = static_cast<double>(mixer->pattern_flops(pattern, n, m));
    if (std::fabs(counted - declared) > 0.2 * declared)
      return fmt::format("{} operations over {} tokens, {} declared", counted, n, declared);
    if (pattern != Pattern::causal || !c.stateful) continue;
    SequenceState state;
    run_pieces(*mixer, sample, {n - 3, 3}, {}, state);
    int64_t bytes = 0;
    for (const StateField& f : mixer->state_spec()) bytes += f.bytes(n);
    if (state.bytes() != bytes)
      return fmt::format("{} bytes of state after {} tokens, {} declared", state.bytes(), n, bytes);
  }
  // Working memory grows no faster than the sequence.
  const auto peak = [&](int64_t n) {
    const Sample sample = random_sample(c, pattern, n, n, Rng(43));
    reset_memory_peak();
    const int64_t base = memory_counters().live;
    run_whole(*mixer, sample, {});
    return static_cast<double>(memory_counters().peak - base);
  };
  int64_t n = 512;
  while (!affordable(*mixer, pattern, 4 * n, 4 * n, kMostFlops)) n /= 2;
  peak(n);
  // Parts that only begin at some length make the first step look steep; what grows faster stays so at any length.
  for (;; n *= 2) {
    const double small = peak(n), large = peak(4 * n);
    if (large <= 4.4 * small) return "";
    if (n >= 2048 || !affordable(*mixer, pattern, 8 * n, 8 * n, kMostFlops))
      return fmt::format("{} bytes for {} tokens, {} for four times as many", small, n, large);
  }
}

std::string implicit_matrix(const MixerCase& c, Pattern pattern) {
  NoGrad off;
  HostileMemory hostile;
  const Context context;
  for (const int64_t least : {1, 8, 40}) {
    const int64_t n = c.whole(pattern, least);
    Rng rng = Rng(47).fork(c.name).fork(static_cast<uint64_t>(least));
    auto mixer = c.make(rng.fork("init"));
    shake(*mixer, rng.fork("shake"), 2);
    const Var x(random_rows(n, c.d_model, rng.fork("x")));
    const auto m = mixer->implicit(x, context);
    if (!m) return "";  // none declared
    const int64_t heads = m->weights.shape(0), width = m->values.row_size() / heads;
    Tensor core = Tensor::zeros({n, heads * width});
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < n; ++j)
          for (int64_t p = 0; p < width; ++p)
            core.data()[(i * heads + h) * width + p] +=
                m->weights.data()[(h * n + i) * n + j] * m->values.data()[(j * heads + h) * width + p];
    const Distance d =
        distance(mixer->output(x, Var(core), context).value(), run_whole(*mixer, {pattern, x.value(), {}}, context));
    if (d.relative > 1e-4) return off_by("matrix times values", d, 1e-4, n);
  }
  return "";
}

// Near: as far off as rounding the operands to 8 bits makes it.
std::string bf16_products(const MixerCase& c, Pattern pattern) {
  Rng rng = Rng(59).fork(c.name);
  auto mixer = c.make(rng.fork("init"));
  Choices choices;
  mixer->choices = &choices;
  const Sample sample = random_sample(c, pattern, 100, 80, rng);
  const naive::Matrix definition = run_naive(*mixer, sample);
  const double allowed = std::max(0.05, 4 * sensitivity(*mixer, sample, definition, 0x1p-9));
  const Distance d = distance(run_whole(*mixer, sample, {.precision = Precision::bf16}), definition);
  return d.relative < allowed ? "" : off_by("bf16 products", d, allowed, sample.x.rows());
}

template <class F>
bool refuses(F&& f) {
  try {
    f();
  } catch (const Error&) {
    return true;
  }
  return false;
}

// What a mixer does not declare it refuses with an Error, before it changes anything.
std::string refusals(const MixerCase& c, Pattern) {
  NoGrad off;
  auto mixer = c.make(Rng(3));
  for (const Pattern p : {Pattern::causal, Pattern::bidirectional, Pattern::cross}) {
    const Sample sample = random_sample(c, p, 5, 4, Rng(4));
    const bool declared = std::find(c.patterns.begin(), c.patterns.end(), p) != c.patterns.end();
    if (refuses([&] { run_whole(*mixer, sample, {}); }) == declared)
      return fmt::format("a {} batch is {}", to_string(p), declared ? "refused" : "not refused, nor declared");
    if (!declared || p == Pattern::cross) continue;
    SequenceState state;
    const bool keeps = p == Pattern::causal && c.stateful;
    const int64_t n = sample.x.rows(), cut = std::min<int64_t>(3, n - 1);
    const std::vector<int64_t> pieces = keeps ? std::vector{cut, n - cut} : std::vector{n};
    if (refuses([&] { run_pieces(*mixer, sample, pieces, {}, state); }) == keeps)
      return fmt::format("a state in a {} batch is {}", to_string(p), keeps ? "refused" : "not refused");
    const Sample ragged{p, random_rows(c.columns + 1, c.d_model, Rng(4)), {}};
    if (p == Pattern::bidirectional && c.columns > 1 && !refuses([&] { run_whole(*mixer, ragged, {}); }))
      return fmt::format("{} tokens on a grid of {} columns are not refused", c.columns + 1, c.columns);
  }
  return !c.stateful && !mixer->state_spec().empty() ? "declares a state and that it keeps none" : "";
}

}  // namespace

std::vector<MixerLaw> whole_laws() {
  return {{"ForwardIsNaive", LawFor::every_pattern, forward_is_naive},
          {"EmptySequences", LawFor::every_pattern, empty_sequences},
          {"PackedIsAlone", LawFor::every_pattern, packed_is_alone},
          {"ThreadsChangeNothing", LawFor::every_pattern, threads_change_nothing},
          {"CostsAsDeclared", LawFor::every_pattern, costs_as_declared},
          {"ImplicitMatrix", LawFor::first_pattern, implicit_matrix},
          {"Bf16Products", LawFor::every_pattern, bf16_products},
          {"Refusals", LawFor::first_pattern, refusals}};
}

}  // namespace sennit::laws
