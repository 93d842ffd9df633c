#include "laws/cases.h"

namespace sennit::laws {
namespace {

constexpr double kViolences[] = {1, 4, 40};  // what parameters are multiplied by, at most
constexpr int64_t kMostFlops = 1 << 26;      // of a sample: a cubic cost ends at 65 tokens

}  // namespace

std::string off_by(const char* what, const Distance& d, double allowed, int64_t n) {
  return fmt::format("{}: {:.3g} off (allowed {:.3g}) at number {} of a sequence of {}", what, d.relative, allowed,
                     d.worst, n);
}

std::string over_lengths(const MixerCase& c, Pattern pattern, const SampleBody& body) {
  HostileMemory hostile;
  uint64_t seed = 0;
  for (const double violence : kViolences)
    for (const int64_t n : lengths()) {
      const Rng rng = Rng(11).fork(c.name).fork(++seed);
      auto mixer = c.make(rng.fork("init"));
      shake(*mixer, rng.fork("shake"), violence);
      Choices choices;
      mixer->choices = &choices;
      const int64_t memory = lengths()[static_cast<size_t>(rng.fork("memory").below(std::ssize(lengths())))];
      if (!affordable(*mixer, pattern, n, memory, kMostFlops)) break;
      const Sample sample = random_sample(c, pattern, n, memory, rng);
      const naive::Matrix definition = run_naive(*mixer, sample);
      try {
        const double allowed = budget(c, *mixer, sample, definition);
        const std::string broken = body(*mixer, sample, definition, allowed, rng);
        if (!broken.empty()) return broken + fmt::format(" (parameters x{})", violence);
      } catch (const std::string& broken) {
        return broken;
      }
    }
  return "";
}

}  // namespace sennit::laws
