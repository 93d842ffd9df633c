// Laws of sequences that are cut: what a state keeps, and what a token may see.
#include <algorithm>

#include "laws/cases.h"

namespace sennit::laws {
namespace {

std::vector<int64_t> random_pieces(int64_t n, Rng& rng) {
  std::vector<int64_t> pieces;
  for (int64_t left = n; left > 0; left -= pieces.back())
    pieces.push_back(std::min(left, 1 + rng.below(rng.below(2) ? 80 : 20)));
  return pieces;
}

std::string any_split(const MixerCase& c, Pattern pattern) {
  return over_lengths(
      c, pattern,
      [](Mixer& m, const Sample& x, const naive::Matrix& definition, double allowed, Rng rng) -> std::string {
        const int64_t n = x.x.rows();
        const std::vector<int64_t> pieces = random_pieces(n, rng);
        SequenceState state;
        const Distance d = distance(run_pieces(m, x, pieces, {}, state), definition);
        if (d.relative > allowed) return off_by(fmt::format("split into {}", pieces.size()).c_str(), d, allowed, n);

        // What is kept must be what the definition keeps, as far as keeping it token by token loses.
        SequenceState stepped;
        run_pieces(m, x, token_by_token(n), {}, stepped);
        const naive::Weights w = weights_of(m);
        const naive::Matrix rows = to_matrix(x.x);
        NaiveRun run{.w = w, .x = rows};
        m.naive(run);
        const StateSpec spec = m.state_spec();
        for (size_t f = 0; f < spec.size(); ++f) {
          const auto kept = run.state.find(spec[f].name);
          if (kept == run.state.end()) return "the definition keeps no field " + spec[f].name;
          const double step = distance(stepped.layer(0).get(f).value(), kept->second).relative,
                       limit = std::max(allowed, 4 * std::min(step, 3e-4));
          const Distance s = distance(state.layer(0).get(f).value(), kept->second);
          if (s.relative > limit) return off_by(("state " + spec[f].name).c_str(), s, limit, n);
        }
        return "";
      });
}

// Exact mode: the same bits however a sequence is cut.
std::string exact_splits(const MixerCase& c, Pattern pattern) {
  HostileMemory hostile;
  const Context exact{.exact = true};
  for (const int64_t n : {5, 33, 70, 130}) {
    Rng rng = Rng(19).fork(c.name).fork(static_cast<uint64_t>(n));
    auto mixer = c.make(rng.fork("init"));
    shake(*mixer, rng.fork("shake"), 4);
    const Sample x = random_sample(c, pattern, n, 0, rng);
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

std::string causal_to_the_bit(const MixerCase& c, Pattern pattern) {
  HostileMemory hostile;
  for (const bool exact : {false, true})
    for (const int64_t n : {2, 17, 65, 130}) {
      Rng rng = Rng(23).fork(c.name).fork(static_cast<uint64_t>(n));
      auto mixer = c.make(rng.fork("init"));
      shake(*mixer, rng.fork("shake"), 4);
      const Context context{.exact = exact};
      const Sample x = random_sample(c, pattern, n, 0, rng);
      const Tensor before = run_whole(*mixer, x, context);
      for (int trial = 0; trial < 4; ++trial) {
        const int64_t t = trial == 0 ? n - 1 : rng.below(n);
        Sample changed{pattern, x.x.clone(), {}};
        for (float& v : changed.x.slice(t, 1).span()) v = static_cast<float>(8 * rng.normal());
        const std::string differ = bits_differ(before.slice(0, t), run_whole(*mixer, changed, context).slice(0, t));
        if (!differ.empty()) return fmt::format("changing token {} of {} changed {}", t, n, differ);
      }
    }
  return "";
}

std::string snapshots(const MixerCase& c, Pattern pattern) {
  HostileMemory hostile;
  for (const int64_t cut : {1, 16, 33}) {
    Rng rng = Rng(29).fork(c.name).fork(static_cast<uint64_t>(cut));
    auto mixer = c.make(rng.fork("init"));
    shake(*mixer, rng.fork("shake"), 2);
    const Context context;
    const Sample x = random_sample(c, pattern, cut, 0, rng), next = random_sample(c, pattern, 21, 0, rng.fork("next"));
    const Sample other = random_sample(c, pattern, 9, 0, rng.fork("other"));
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

// Across, the rows of x do not see each other: a decoder reads its memory anew for each piece of what it writes.
std::string cross_splits(const MixerCase& c, Pattern pattern) {
  return over_lengths(
      c, pattern,
      [](Mixer& m, const Sample& sample, const naive::Matrix& definition, double allowed, Rng rng) -> std::string {
        SequenceState state;
        const std::vector<int64_t> pieces = random_pieces(sample.x.rows(), rng);
        const Distance d = distance(run_pieces(m, sample, pieces, {}, state), definition);
        if (d.relative > allowed)
          return off_by(fmt::format("split into {}", pieces.size()).c_str(), d, allowed, sample.x.rows());
        SequenceState a, b;
        const Tensor whole = run_pieces(m, sample, {sample.x.rows()}, {.exact = true}, a);
        return bits_differ(whole, run_pieces(m, sample, pieces, {.exact = true}, b));
      });
}

}  // namespace

std::vector<MixerLaw> state_laws() {
  return {{"AnySplit", LawFor::states, any_split},
          {"ExactSplits", LawFor::states, exact_splits},
          {"Snapshots", LawFor::states, snapshots},
          {"CausalToTheBit", LawFor::causal, causal_to_the_bit},
          {"CrossSplits", LawFor::cross, cross_splits}};
}

}  // namespace sennit::laws
