// Laws of mixers that choose what they read, and of losses that teach them how.
#include <algorithm>

#include "laws/auxiliary_law.h"
#include "laws/cases.h"

namespace sennit::laws {
namespace {

// What the definition chooses for a sequence, with its scores.
Choices defined_choices(Mixer& m, const Sample& x) {
  Choices made;
  m.choices = &made;
  run_naive(m, x);
  return made;
}

// No block that was taken scores worse than one that was left, as far as the scores can be known: they move with the
// last digits of the input.
std::string worse_than_left(const std::vector<int32_t>& taken, const std::vector<double>& scores,
                            const std::vector<double>& nudged) {
  double worst = INFINITY, best_left = -INFINITY, size = 0, doubt = 0;
  for (size_t b = 0; b < scores.size(); ++b) {
    (std::binary_search(taken.begin(), taken.end(), b) ? worst : best_left) =
        std::binary_search(taken.begin(), taken.end(), b) ? std::min(worst, scores[b]) : std::max(best_left, scores[b]);
    if (std::isfinite(scores[b]))
      size = std::max(size, std::fabs(scores[b])), doubt = std::max(doubt, std::fabs(scores[b] - nudged[b]));
  }
  if (worst >= best_left - 1e-6 * size - 16 * doubt) return "";
  return fmt::format("a block that scores {} is taken, one of {} is left", worst, best_left);
}

// A mixer that chooses takes as many blocks as its definition, and the best ones, however a sequence is cut.
std::string choices_are_best(const MixerCase& c, Pattern pattern) {
  if (!c.make(Rng(1))->chooses()) return "";
  return over_lengths(c, pattern, [](Mixer& m, const Sample& x, const naive::Matrix&, double, Rng rng) -> std::string {
    const int64_t n = x.x.rows();
    Sample nudged{x.pattern, x.x.clone(), {}};
    for (float& v : nudged.x.span()) v *= 1 + static_cast<float>(rng.normal()) * 0x1p-23f;
    const Choices right = defined_choices(m, x), moved = defined_choices(m, nudged);
    const int64_t cut = rng.below(n + 1);
    for (const std::vector<int64_t>& pieces : {std::vector<int64_t>{n}, {cut, n - cut}, token_by_token(n)}) {
      Choices taken;
      m.choices = &taken;
      SequenceState state;
      run_pieces(m, x, pieces, {}, state);
      if (taken.blocks.size() != right.blocks.size())
        return fmt::format("{} choices, {} by the definition", taken.blocks.size(), right.blocks.size());
      for (const auto& [query, blocks] : taken.blocks) {
        const auto where =
            fmt::format(" (group {}, token {} of {} in {} pieces)", query[1], query[2], n, pieces.size());
        const auto& defined = right.blocks.at(query);
        if (blocks.size() != defined.size())
          return fmt::format("{} blocks taken, {} by the definition", blocks.size(), defined.size()) + where;
        const std::string worse = worse_than_left(blocks, right.scores.at(query), moved.scores.at(query));
        if (!worse.empty()) return worse + where;
      }
    }
    return "";
  });
}

}  // namespace

std::vector<MixerLaw> choice_laws() {
  return {{"ChoicesAreBest", LawFor::states, choices_are_best}, {"AuxiliaryLosses", LawFor::causal, auxiliary_losses}};
}

}  // namespace sennit::laws
