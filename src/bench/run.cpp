#include <fmt/ranges.h>

#include <algorithm>
#include <istream>
#include <map>
#include <memory>
#include <ostream>

#include "base/error.h"
#include "base/parallel.h"
#include "bench/case.h"
#include "bench/ceilings.h"
#include "bench/cores.h"
#include "bench/peer.h"

namespace sennit::bench {
namespace {

constexpr double kLong = 0.5;  // seconds from which on a cold run tells nothing that a warm one does not

struct Timed {
  Case c;
  Work work;
  double error = 0;
  std::vector<double> floors, cold, warm, peers;

  void prepare() {
    work = c.prepare();
    error = work.error();
    if (!(error <= c.allowed))
      fail({"bench", fmt::format("`{}` within {:.1e} of its definition", c.name, c.allowed),
            fmt::format("{:.1e}", error), "a wrong result has no speed"});
    seconds_of(work.run);
  }

  void time(Ceilings& ceilings) {
    const double compute = c.flops / (c.int8 ? ceilings.whole_products() : ceilings.products(c.precision)),
                 update = c.updated > 0 ? c.updated / ceilings.update(thread_count()) : 0,
                 read = c.bytes / ceilings.read(thread_count());  // last: small things have left the caches then
    floors.push_back(std::max(compute, read + update));
    const double first = seconds_of(work.run);
    if (first < kLong) cold.push_back(first);
    warm.push_back(first < kLong ? seconds_of(work.run) : first);
  }

  Result result() const {
    return {.name = c.name,
            .floor = median(floors),
            .warm = median(warm),
            .cold = median(cold),
            .fastest = *std::min_element(warm.begin(), warm.end()),
            .flops = c.flops,
            .bytes = c.bytes + c.updated,
            .tokens = c.tokens,
            .error = error,
            .peer = median(peers)};
  }
};

bool wanted(const std::string& name, const std::vector<std::string>& filters) {
  return filters.empty() || std::any_of(filters.begin(), filters.end(),
                                        [&](const std::string& part) { return name.find(part) != std::string::npos; });
}

struct Samples {
  std::vector<double> one, all;
};

void sample(const Ceilings& ceilings, std::vector<Samples>& samples) {
  samples.resize(ceilings.all().size());
  for (size_t i = 0; i < samples.size(); ++i) {
    samples[i].one.push_back(ceilings.all()[i].measure(1));
    samples[i].all.push_back(ceilings.all()[i].measure(thread_count()));
  }
}

std::vector<Ceiling> summary(const Ceilings& ceilings, const std::vector<Samples>& samples) {
  std::vector<Ceiling> out;
  for (size_t i = 0; i < samples.size(); ++i)
    out.push_back({ceilings.all()[i].name, ceilings.all()[i].bytes, median(samples[i].one), median(samples[i].all),
                   *std::min_element(samples[i].one.begin(), samples[i].one.end()),
                   *std::min_element(samples[i].all.begin(), samples[i].all.end())});
  return out;
}

}  // namespace

std::vector<Ceiling> measure_ceilings(int repeats) {
  const Ceilings ceilings;
  std::vector<Samples> samples;
  for (int r = 0; r < repeats; ++r) sample(ceilings, samples);
  return summary(ceilings, samples);
}

Report run(std::vector<Case> cases, const Options& options, const Progress& progress) {
  FlushDenormals flush;
  std::vector<Timed> timed;
  for (Case& c : cases)
    if (wanted(c.name, options.filters))
      timed.push_back({.c = std::move(c), .work = {}, .error = 0, .floors = {}, .cold = {}, .warm = {}, .peers = {}});
  if (timed.empty())
    fail({"bench", "part of a case's name (see --list)", fmt::format("{}", fmt::join(options.filters, ", "))});
  std::unique_ptr<Peer> peer;
  if (!options.peer.empty()) peer = std::make_unique<Peer>(options.peer);
  const auto ask = [&](Timed& t) {
    const std::string& name = options.peer_is_sennit ? t.c.name : t.c.peer;
    return peer && !name.empty() ? peer->seconds(name) : -1;
  };

  Ceilings ceilings;
  std::vector<Samples> samples;
  Report report;
  const int total = static_cast<int>(timed.size()) * (options.repeats + 1);
  int done = 0;
  for (int r = -1; r < options.repeats; ++r) {  // the first round prepares and warms up
    sample(ceilings, samples);
    for (const double d : core_distances()) report.distances.push_back(d);
    for (Timed& t : timed) {
      if (progress) progress(done++, total, t.c.name);
      if (r < 0) {
        t.prepare();
        ask(t);
        continue;
      }
      t.time(ceilings);
      if (const double other = ask(t); other > 0) t.peers.push_back(other);
    }
  }
  report.ceilings = summary(ceilings, samples);
  for (const Timed& t : timed) report.results.push_back(t.result());
  return report;
}

void answer(std::istream& names, std::ostream& seconds) {
  FlushDenormals flush;
  std::map<std::string, Timed> known;
  for (Case& c : all_cases())
    known[c.name] = {.c = c, .work = {}, .error = 0, .floors = {}, .cold = {}, .warm = {}, .peers = {}};
  seconds << "ready" << std::endl;
  for (std::string name; std::getline(names, name);) {
    const auto it = known.find(name);
    if (it == known.end()) {
      seconds << "none" << std::endl;
      continue;
    }
    if (!it->second.work.run) it->second.prepare();
    seconds << fmt::format("{:.9f}", seconds_of(it->second.work.run)) << std::endl;
  }
}

}  // namespace sennit::bench
