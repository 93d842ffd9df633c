#include "laws/mixer_laws.h"

#include <algorithm>

#include "base/cpu.h"
#include "base/parallel.h"
#include "laws/auxiliary_law.h"
#include "laws/differences.h"
#include "laws/harness.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/count.h"

namespace sennit::laws {
namespace {

constexpr double kViolences[] = {1, 4, 40};  // what parameters are multiplied by, at most

std::string off_by(const char* what, const Distance& d, double allowed, int64_t n) {
  return fmt::format("{}: {:.3g} off (allowed {:.3g}) at number {} of a sequence of {}", what, d.relative, allowed, d.worst, n);
}

// Runs `body(mixer, x, definition, allowed)` over lengths and violences, in hostile memory; stops at the first complaint.
template <class Body>
std::string over_lengths(const MixerCase& c, Body&& body) {
  HostileMemory hostile;
  uint64_t seed = 0;
  for (const double violence : kViolences)
    for (const int64_t n : lengths()) {
      const Rng rng = Rng(11).fork(c.name).fork(++seed);
      auto mixer = c.make(rng.fork("init"));
      shake(*mixer, rng.fork("shake"), violence);
      Choices choices;
      mixer->choices = &choices;
      const Tensor x = random_rows(n, c.d_model, rng.fork("x"));
      const naive::Matrix definition = run_naive(*mixer, x);
      try {
        const double allowed = budget(*mixer, x, definition);
        const std::string broken = body(*mixer, x, definition, allowed, rng);
        if (!broken.empty()) return broken + fmt::format(" (parameters x{})", violence);
      } catch (const std::string& broken) {
        return broken;
      }
    }
  return "";
}

std::string forward_is_naive(const MixerCase& c) {
  const IsaLevel before = isa_level();
  std::string broken;
  for (int level = 0; level < kIsaLevels && broken.empty(); ++level) {
    if (!isa_level_refusal(static_cast<IsaLevel>(level)).empty()) continue;
    set_isa_level(static_cast<IsaLevel>(level));
    broken = over_lengths(c, [](Mixer& m, const Tensor& x, const naive::Matrix& definition, double allowed, Rng) -> std::string {
      const Distance d = distance(run_whole(m, x, {}), definition);
      return d.relative <= allowed ? "" : off_by("forward", d, allowed, x.rows());
    });
    if (!broken.empty()) broken += fmt::format(" at level {}", to_string(isa_level()));
  }
  set_isa_level(before);
  return broken;
}

std::string empty_sequences(const MixerCase& c) {
  HostileMemory hostile;
  auto mixer = c.make(Rng(3));
  const Context context;
  if (run_whole(*mixer, Tensor({0, c.d_model}), context).rows() != 0) return "an empty sequence has outputs";
  SequenceState a, b;
  const Tensor x = random_rows(5, c.d_model, Rng(4));
  const Tensor with = run_pieces(*mixer, x, {0, 2, 0, 3, 0}, context, a), without = run_pieces(*mixer, x, {2, 3}, context, b);
  return bits_differ(with, without);
}

std::string any_split(const MixerCase& c) {
  return over_lengths(c, [](Mixer& m, const Tensor& x, const naive::Matrix& definition, double allowed, Rng rng) -> std::string {
    std::vector<int64_t> pieces;
    for (int64_t left = x.rows(); left > 0; left -= pieces.back()) pieces.push_back(std::min(left, 1 + rng.below(rng.below(2) ? 80 : 20)));
    SequenceState state;
    const Distance d = distance(run_pieces(m, x, pieces, {}, state), definition);
    if (d.relative > allowed) return off_by(fmt::format("split into {}", pieces.size()).c_str(), d, allowed, x.rows());

    // What is kept must be what the definition keeps, as far as keeping it token by token loses.
    SequenceState stepped;
    run_pieces(m, x, token_by_token(x.rows()), {}, stepped);
    const naive::Weights w = weights_of(m);
    const naive::Matrix rows = to_matrix(x);
    NaiveRun run{.w = w, .x = rows};
    m.naive(run);
    const StateSpec spec = m.state_spec();
    for (size_t f = 0; f < spec.size(); ++f) {
      const auto kept = run.state.find(spec[f].name);
      if (kept == run.state.end()) return "the definition keeps no field " + spec[f].name;
      const double step = distance(stepped.layer(0).get(f).value(), kept->second).relative, limit = std::max(allowed, 4 * std::min(step, 3e-4));
      const Distance s = distance(state.layer(0).get(f).value(), kept->second);
      if (s.relative > limit) return off_by(("state " + spec[f].name).c_str(), s, limit, x.rows());
    }
    return "";
  });
}

// Several sequences in one batch, with and without states, against each alone.
std::string packed_is_alone(const MixerCase& c) {
  HostileMemory hostile;
  for (const bool exact : {true, false})
    for (uint64_t seed = 0; seed < 6; ++seed) {
      NoGrad off;
      Rng rng = Rng(17).fork(c.name).fork(seed);
      auto mixer = c.make(rng.fork("init"));
      shake(*mixer, rng.fork("shake"), 4);
      const Context context{.exact = exact};
      const int64_t count = 1 + rng.below(5);
      std::vector<Segment> segments;
      std::vector<SequenceState> together(count), alone(count);
      int64_t n = 0;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t length = rng.below(3) ? rng.below(70) : 1;
        segments.push_back({n, length, 0, rng.below(2) ? &together[i] : nullptr});
        n += length;
      }
      for (int round = 0; round < 2; ++round) {
        const Tensor x = random_rows(n, c.d_model, rng.fork("x").fork(round));
        for (auto& s : segments) s.position = s.state ? s.state->position : 0;
        const Tensor y = mixer->forward(Var(x), {segments, &context}).value();
        for (int64_t i = 0; i < count; ++i) {
          const Segment& s = segments[i];
          const Segment by_itself[] = {{0, s.length, s.position, s.state ? &alone[i] : nullptr}};
          const Tensor part = mixer->forward(Var(x.slice(s.begin, s.length).clone()), {by_itself, &context}).value();
          const Tensor packed = y.slice(s.begin, s.length);
          if (exact && !same_bits(packed, part)) return fmt::format("exact mode, segment {} of {}: {}", i, count, bits_differ(packed, part));
          if (distance(packed, part).relative > 1e-4) return off_by("packed", distance(packed, part), 1e-4, s.length);
          if (s.state) s.state->position += s.length;
        }
      }
    }
  return "";
}

// Exact mode: the same bits however a sequence is cut.
std::string exact_splits(const MixerCase& c) {
  HostileMemory hostile;
  const Context exact{.exact = true};
  for (const int64_t n : {5, 33, 70, 130}) {
    Rng rng = Rng(19).fork(c.name).fork(static_cast<uint64_t>(n));
    auto mixer = c.make(rng.fork("init"));
    shake(*mixer, rng.fork("shake"), 4);
    const Tensor x = random_rows(n, c.d_model, rng.fork("x"));
    SequenceState a, b, s;
    const Tensor whole = run_pieces(*mixer, x, {n}, exact, s);
    const std::string steps = bits_differ(whole, run_pieces(*mixer, x, token_by_token(n), exact, a));
    if (!steps.empty()) return fmt::format("whole and token by token differ over {} tokens: {}", n, steps);
    const int64_t cut = 1 + rng.below(n - 1);
    const std::string halves = bits_differ(whole, run_pieces(*mixer, x, {cut, n - cut}, exact, b));
    if (!halves.empty()) return fmt::format("cut at {} of {}: {}", cut, n, halves);
  }
  return "";
}

std::string causal_to_the_bit(const MixerCase& c) {
  HostileMemory hostile;
  for (const bool exact : {false, true})
    for (const int64_t n : {2, 17, 65, 130}) {
      Rng rng = Rng(23).fork(c.name).fork(static_cast<uint64_t>(n));
      auto mixer = c.make(rng.fork("init"));
      shake(*mixer, rng.fork("shake"), 4);
      const Context context{.exact = exact};
      const Tensor x = random_rows(n, c.d_model, rng.fork("x"));
      const Tensor before = run_whole(*mixer, x, context);
      for (int trial = 0; trial < 4; ++trial) {
        const int64_t t = trial == 0 ? n - 1 : rng.below(n);
        Tensor changed = x.clone();
        for (float& v : changed.slice(t, 1).span()) v = static_cast<float>(8 * rng.normal());
        const std::string differ = bits_differ(before.slice(0, t), run_whole(*mixer, changed, context).slice(0, t));
        if (!differ.empty()) return fmt::format("changing token {} of {} changed {}", t, n, differ);
      }
    }
  return "";
}

std::string snapshots(const MixerCase& c) {
  HostileMemory hostile;
  for (const int64_t cut : {1, 16, 33}) {
    Rng rng = Rng(29).fork(c.name).fork(static_cast<uint64_t>(cut));
    auto mixer = c.make(rng.fork("init"));
    shake(*mixer, rng.fork("shake"), 2);
    const Context context;
    const Tensor x = random_rows(cut, c.d_model, rng.fork("x")), next = random_rows(21, c.d_model, rng.fork("next"));
    const Tensor other = random_rows(9, c.d_model, rng.fork("other"));
    SequenceState state;
    run_pieces(*mixer, x, {cut}, context, state);
    SequenceState kept = state.clone();
    const Tensor first = run_pieces(*mixer, next, {4, 17}, context, state);
    run_pieces(*mixer, other, {9}, context, state);
    SequenceState again = kept.clone();
    const std::string differ = bits_differ(first, run_pieces(*mixer, next, {4, 17}, context, kept));
    if (!differ.empty()) return fmt::format("a snapshot at token {} continues differently: {}", cut, differ);
    const std::string twice = bits_differ(first, run_pieces(*mixer, next, {4, 17}, context, again));
    if (!twice.empty()) return fmt::format("a second snapshot at token {} continues differently: {}", cut, twice);
    if (!mixer->rewinds()) continue;
    for (size_t f = 0; const StateField& field : mixer->state_spec()) again.layer(0).truncate(f++, field.rows(cut));
    again.position = cut;
    const std::string rewound = bits_differ(first, run_pieces(*mixer, next, {4, 17}, context, again));
    if (!rewound.empty()) return fmt::format("rewound to token {}: {}", cut, rewound);
  }
  return "";
}

// Gradients are checked on L = <y, a> + <last state, b> over one sequence that starts from a given state and is run in
// two pieces, so that they also flow through the state between.
struct Objective {
  Tensor x, a;
  std::vector<Tensor> first_state, b;  // by field
};

double definition_of(Mixer& m, const naive::Weights& w, const naive::Matrix& x, const std::map<std::string, naive::Matrix>& state, int64_t position,
                     const Objective& o) {
  NaiveRun run{.w = w, .x = x, .position = position, .state = state};
  const naive::Matrix y = m.naive(run);
  double loss = 0;
  for (int64_t i = 0; i < o.a.elements(); ++i) loss += y.a[static_cast<size_t>(i)] * o.a.data()[i];
  const StateSpec spec = m.state_spec();
  for (size_t f = 0; f < spec.size(); ++f)
    for (int64_t i = 0; i < o.b[f].elements(); ++i) loss += run.state.at(spec[f].name).a[static_cast<size_t>(i)] * o.b[f].data()[i];
  return loss;
}

Var recorded_objective(Mixer& m, const Var& x, const std::vector<Var>& first_state, int64_t position, int64_t cut, const Objective& o) {
  const Context context;
  SequenceState state;
  state.position = position;
  for (size_t f = 0; f < first_state.size(); ++f) state.layer(0).set(f, first_state[f]);
  const Segment head[] = {{0, cut, position, &state}}, tail[] = {{0, x.rows() - cut, position + cut, &state}};
  const Var y1 = m.forward(rows(x, 0, cut), {head, &context});
  const Var y2 = m.forward(rows(x, cut, x.rows() - cut), {tail, &context});
  Var loss = add(sum(multiply(y1, Var(o.a.slice(0, cut)))), sum(multiply(y2, Var(o.a.slice(cut, x.rows() - cut)))));
  for (size_t f = 0; f < o.b.size(); ++f) loss = add(loss, sum(multiply(state.layer(0).get(f), Var(o.b[f]))));
  return loss;
}

std::string gradients(const MixerCase& c) {
  HostileMemory hostile;
  for (const int64_t n : {2, 9, 24, 75})
    for (const double violence : {1.0, 2.0}) {
      Rng rng = Rng(31).fork(c.name).fork(static_cast<uint64_t>(n)).fork(static_cast<uint64_t>(violence));
      auto mixer = c.make(rng.fork("init"));
      shake(*mixer, rng.fork("shake"), violence);
      Choices choices;
      mixer->choices = &choices;
      const StateSpec spec = mixer->state_spec();
      constexpr int64_t kPast = 6;
      SequenceState past;
      run_pieces(*mixer, random_rows(kPast, c.d_model, rng.fork("past")), {kPast}, {}, past);
      Objective o{random_rows(n, c.d_model, rng.fork("x")), random_rows(n, c.d_model, rng.fork("a")), {}, {}};
      std::vector<Var> first;
      SequenceState shape_of_last = past.clone();
      run_pieces(*mixer, o.x, {n}, {}, shape_of_last);
      for (size_t f = 0; f < spec.size(); ++f) {
        o.first_state.push_back(past.layer(0).get(f).value().clone());
        first.push_back(Var::leaf(o.first_state.back().clone()));
        Tensor b(shape_of_last.layer(0).get(f).shape());
        Rng draw = rng.fork("b").fork(f);
        for (float& v : b.span()) v = static_cast<float>(0.3 * draw.normal());
        o.b.push_back(b);
      }
      const Var x = Var::leaf(o.x);
      mixer->parameters([](const std::string&, Parameter& p) { p.var.clear_grad(); });
      backward(recorded_objective(*mixer, x, first, kPast, 1 + rng.below(n - 1), o));

      naive::Weights w = weights_of(*mixer);
      naive::Matrix rows_of_x = to_matrix(o.x);
      std::map<std::string, naive::Matrix> state;
      for (size_t f = 0; f < spec.size(); ++f) state[spec[f].name] = to_matrix(o.first_state[f]);
      const auto loss = [&] { return definition_of(*mixer, w, rows_of_x, state, kPast, o); };
      std::string broken;
      auto check = [&](const std::string& name, const Tensor& gradient, naive::Matrix& place) {
        if (!broken.empty() || place.a.empty()) return;
        if (!gradient) broken = "no gradient reached " + name;
        else broken = compare_gradient(name, gradient, place, loss, rng.fork(name));
      };
      check("the input", x.grad(), rows_of_x);
      for (size_t f = 0; f < spec.size(); ++f) check("first state " + spec[f].name, first[f].grad(), state[spec[f].name]);
      mixer->parameters([&](const std::string& name, Parameter& p) {
        if (!mixer->taught(name)) check(name, p.var.grad(), w[name]);
      });
      if (!broken.empty()) return fmt::format("{} tokens, parameters x{}: {}", n, violence, broken);
    }
  return "";
}

// Forward and backward with a packed batch of several sequences, on different numbers of threads.
std::string threads_change_nothing(const MixerCase& c) {
  const int before = thread_count();
  std::vector<Tensor> reference;
  std::string broken;
  for (const int threads : {1, 2, 3, 8}) {
    set_thread_count(threads);
    Rng rng = Rng(37).fork(c.name);
    auto mixer = c.make(rng.fork("init"));
    const std::vector<Segment> segments = {{0, 70, 0, nullptr}, {70, 1, 0, nullptr}, {71, 33, 0, nullptr}, {104, 96, 0, nullptr}};
    const Context context;
    const Var x = Var::leaf(random_rows(200, c.d_model, rng.fork("x")));
    const Var y = mixer->forward(x, {segments, &context});
    backward(y, random_rows(200, c.d_model, rng.fork("a")));
    std::vector<Tensor> got = {y.value(), x.grad()};
    mixer->parameters([&](const std::string& name, Parameter& p) {
      if (!mixer->taught(name)) got.push_back(p.var.grad());
    });
    if (reference.empty()) reference = got;
    for (size_t i = 0; i < got.size() && broken.empty(); ++i)
      if (!same_bits(got[i], reference[i])) broken = fmt::format("{} threads, tensor {}: {}", threads, i, bits_differ(got[i], reference[i]));
  }
  set_thread_count(before);
  return broken;
}

std::string costs_as_declared(const MixerCase& c) {
  NoGrad off;
  auto mixer = c.make(Rng(41));
  for (const int64_t n : {64, 256, 512}) {
    operation_count() = {};
    run_whole(*mixer, random_rows(n, c.d_model, Rng(42)), {});
    const double counted = static_cast<double>(operation_count().flops), declared = static_cast<double>(mixer->flops(n));
    if (std::fabs(counted - declared) > 0.2 * declared) return fmt::format("{} operations over {} tokens, {} declared", counted, n, declared);
    SequenceState state;
    run_pieces(*mixer, random_rows(n, c.d_model, Rng(42)), {n - 3, 3}, {}, state);
    int64_t bytes = 0;
    for (const StateField& f : mixer->state_spec()) bytes += f.bytes(n);
    if (state.bytes() != bytes) return fmt::format("{} bytes of state after {} tokens, {} declared", state.bytes(), n, bytes);
  }
  // Working memory grows no faster than the sequence.
  const auto peak = [&](int64_t n) {
    const Tensor x = random_rows(n, c.d_model, Rng(43));
    reset_memory_peak();
    const int64_t base = memory_counters().live;
    run_whole(*mixer, x, {});
    return static_cast<double>(memory_counters().peak - base);
  };
  peak(512);
  const double small = peak(512), large = peak(2048);
  return large <= 4.4 * small ? "" : fmt::format("{} bytes for 512 tokens, {} for 2048", small, large);
}

std::string implicit_matrix(const MixerCase& c) {
  NoGrad off;
  HostileMemory hostile;
  const Context context;
  for (const int64_t n : {1, 8, 40}) {
    Rng rng = Rng(47).fork(c.name).fork(static_cast<uint64_t>(n));
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
            core.data()[(i * heads + h) * width + p] += m->weights.data()[(h * n + i) * n + j] * m->values.data()[(j * heads + h) * width + p];
    const Distance d = distance(mixer->output(x, Var(core), context).value(), run_whole(*mixer, x.value(), context));
    if (d.relative > 1e-4) return off_by("matrix times values", d, 1e-4, n);
  }
  return "";
}

// Patterns other than causal: against the definition, and packed against alone.
std::string other_patterns(const MixerCase& c) {
  NoGrad off;
  HostileMemory hostile;
  const auto& entries = mixers::registry().entries();
  const auto entry = std::find_if(entries.begin(), entries.end(), [&](const auto& e) { return c.name.rfind(e.name, 0) == 0; });
  if (entry == entries.end()) return "";
  for (const Pattern pattern : entry->info.patterns) {
    if (pattern == Pattern::causal) continue;
    Rng rng = Rng(53).fork(c.name);
    auto mixer = c.make(rng.fork("init"));
    shake(*mixer, rng.fork("shake"), 2);
    const Context context;
    const std::vector<Segment> segments = {{0, 20, 0, nullptr}, {20, 1, 0, nullptr}, {21, 0, 0, nullptr}, {21, 67, 0, nullptr}};
    const std::vector<Segment> memories = {{0, 33, 0, nullptr}, {33, 5, 0, nullptr}, {38, 2, 0, nullptr}, {40, 64, 0, nullptr}};
    const Var x(random_rows(88, c.d_model, rng.fork("x"))), memory(random_rows(104, c.d_model, rng.fork("memory")));
    const Tensor y = mixer->forward(x, {segments, &context, pattern, &memory, memories}).value();
    const naive::Weights w = weights_of(*mixer);
    for (size_t i = 0; i < segments.size(); ++i) {
      const naive::Matrix rows_of_x = to_matrix(x.value().slice(segments[i].begin, segments[i].length));
      const naive::Matrix rows_of_memory = to_matrix(memory.value().slice(memories[i].begin, memories[i].length));
      NaiveRun run{.w = w, .x = rows_of_x, .pattern = pattern, .memory = &rows_of_memory};
      const Distance d = distance(y.slice(segments[i].begin, segments[i].length), mixer->naive(run));
      if (d.relative > 5e-5) return off_by(to_string(pattern), d, 5e-5, segments[i].length);
    }
  }
  return "";
}

std::string bf16_products(const MixerCase& c) {
  Rng rng = Rng(59).fork(c.name);
  auto mixer = c.make(rng.fork("init"));
  Choices choices;
  mixer->choices = &choices;
  const Tensor x = random_rows(100, c.d_model, rng.fork("x"));
  const Distance d = distance(run_whole(*mixer, x, {.precision = Precision::bf16}), run_naive(*mixer, x));
  return d.relative < 0.05 ? "" : off_by("bf16 products", d, 0.05, 100);
}

// What the definition chooses for a sequence, with its scores.
Choices defined_choices(Mixer& m, const Tensor& x) {
  Choices made;
  m.choices = &made;
  run_naive(m, x);
  return made;
}

// No block that was taken scores worse than one that was left, as far as the scores can be known: they move with the last
// digits of the input.
std::string worse_than_left(const std::vector<int32_t>& taken, const std::vector<double>& scores, const std::vector<double>& nudged) {
  double worst = INFINITY, best_left = -INFINITY, size = 0, doubt = 0;
  for (size_t b = 0; b < scores.size(); ++b) {
    (std::binary_search(taken.begin(), taken.end(), b) ? worst : best_left) =
        std::binary_search(taken.begin(), taken.end(), b) ? std::min(worst, scores[b]) : std::max(best_left, scores[b]);
    if (std::isfinite(scores[b])) size = std::max(size, std::fabs(scores[b])), doubt = std::max(doubt, std::fabs(scores[b] - nudged[b]));
  }
  if (worst >= best_left - 1e-6 * size - 16 * doubt) return "";
  return fmt::format("a block that scores {} is taken, one of {} is left", worst, best_left);
}

// A mixer that chooses takes as many blocks as its definition, and the best ones, however a sequence is cut.
std::string choices_are_best(const MixerCase& c) {
  if (!c.make(Rng(1))->chooses()) return "";
  return over_lengths(c, [](Mixer& m, const Tensor& x, const naive::Matrix&, double, Rng rng) -> std::string {
    Tensor nudged = x.clone();
    for (float& v : nudged.span()) v *= 1 + static_cast<float>(rng.normal()) * 0x1p-23f;
    const Choices right = defined_choices(m, x), moved = defined_choices(m, nudged);
    const int64_t cut = rng.below(x.rows() + 1);
    for (const std::vector<int64_t>& pieces : {std::vector<int64_t>{x.rows()}, {cut, x.rows() - cut}, token_by_token(x.rows())}) {
      Choices taken;
      m.choices = &taken;
      SequenceState state;
      run_pieces(m, x, pieces, {}, state);
      if (taken.blocks.size() != right.blocks.size()) return fmt::format("{} choices, {} by the definition", taken.blocks.size(), right.blocks.size());
      for (const auto& [query, blocks] : taken.blocks) {
        const auto where = fmt::format(" (group {}, token {} of {} in {} pieces)", query[1], query[2], x.rows(), pieces.size());
        const auto& defined = right.blocks.at(query);
        if (blocks.size() != defined.size()) return fmt::format("{} blocks taken, {} by the definition", blocks.size(), defined.size()) + where;
        const std::string worse = worse_than_left(blocks, right.scores.at(query), moved.scores.at(query));
        if (!worse.empty()) return worse + where;
      }
    }
    return "";
  });
}

}  // namespace

const std::vector<MixerLaw>& mixer_laws() {
  static const std::vector<MixerLaw> laws = {{"ForwardIsNaive", forward_is_naive},
                                             {"EmptySequences", empty_sequences},
                                             {"AnySplit", any_split},
                                             {"PackedIsAlone", packed_is_alone},
                                             {"ExactSplits", exact_splits},
                                             {"CausalToTheBit", causal_to_the_bit},
                                             {"Snapshots", snapshots},
                                             {"Gradients", gradients},
                                             {"ThreadsChangeNothing", threads_change_nothing},
                                             {"CostsAsDeclared", costs_as_declared},
                                             {"ImplicitMatrix", implicit_matrix},
                                             {"OtherPatterns", other_patterns},
                                             {"Bf16Products", bf16_products},
                                             {"ChoicesAreBest", choices_are_best},
                                             {"AuxiliaryLosses", auxiliary_losses}};
  return laws;
}

}  // namespace sennit::laws
