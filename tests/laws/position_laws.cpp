#include "laws/position_laws.h"

#include <nlohmann/json.hpp>

#include "base/parallel.h"
#include "laws/differences.h"
#include "laws/harness.h"

namespace sennit::laws {
namespace {

constexpr int64_t kWidth = kPositionHeads * kPositionDim;
constexpr double kPositionAllowed = 2e-6;

// Sequences at different positions, one far along, one empty.
std::vector<Segment> some_segments() {
  return {{0, 5, 0, nullptr}, {5, 1, 1000, nullptr}, {6, 0, 7, nullptr}, {6, 60, 31, nullptr}};
}
constexpr int64_t kRows = 66;

naive::Matrix defined(const Position& position, naive::Matrix x) {
  for (const Segment& s : some_segments())
    for (int64_t t = 0; t < s.length; ++t)
      for (int64_t h = 0; h < x.cols / kPositionDim; ++h)
        position.naive_turn(&x(s.begin + t, h * kPositionDim), s.position + t, h, x.cols / kPositionDim);
  return x;
}

std::string turn_is_naive_turn(const PositionCase& c) {
  HostileMemory hostile;
  const auto position = c.make();
  for (const int64_t heads : {kPositionHeads, int64_t{1}}) {
    const Tensor x = random_rows(kRows, heads * kPositionDim, Rng(1).fork(c.name));
    const Distance d =
        distance(position->turn(Var(x), some_segments(), heads).value(), defined(*position, to_matrix(x)));
    if (d.relative > kPositionAllowed) return fmt::format("{:.3g} off at number {} of {} heads", d.relative, d.worst, heads);
  }
  return "";
}

std::string rows_are_alone(const PositionCase& c) {
  const auto position = c.make();
  const Tensor x = random_rows(kRows, kWidth, Rng(2).fork(c.name));
  const Tensor all = position->turn(Var(x), some_segments(), kPositionHeads).value();
  for (const Segment& s : some_segments())
    for (int64_t t = 0; t < s.length; ++t) {
      const Segment one[] = {{0, 1, s.position + t, nullptr}};
      const std::string differ = bits_differ(
          all.slice(s.begin + t, 1), position->turn(Var(x.slice(s.begin + t, 1).clone()), one, kPositionHeads).value());
      if (!differ.empty()) return fmt::format("position {} alone: {}", s.position + t, differ);
    }
  return "";
}

// The score of a query and a key, less the slope's share, depends on how far apart they stand alone.
std::string scores_depend_on_the_distance(const PositionCase& c) {
  const auto position = c.make();
  if (!position->relative()) return "";
  Rng rng = Rng(3).fork(c.name);
  for (int trial = 0; trial < 50; ++trial) {
    const Tensor rows = random_rows(2, kPositionDim, rng.fork(static_cast<uint64_t>(trial)));
    const int64_t distance = rng.below(200);
    double first = 0, most = 0;
    for (const int64_t shift : {0, 1, 17, 3000}) {
      std::vector<double> q(rows.data(), rows.data() + kPositionDim),
          k(rows.data() + kPositionDim, rows.data() + 2 * kPositionDim);
      position->naive_turn(q.data(), shift + distance, 1, kPositionHeads);
      position->naive_turn(k.data(), shift, 1, kPositionHeads);
      double score = 0;
      for (int64_t i = 0; i < kPositionDim; ++i) score += q[i] * k[i], most += std::fabs(q[i] * k[i]);
      if (shift == 0)
        first = score;
      else if (std::fabs(score - first) > 1e-9 * most)
        return fmt::format("distance {} scores {} at 0 and {} at {}", distance, first, score, shift);
    }
  }
  return "";
}

std::string norms_are_kept(const PositionCase& c) {
  const auto position = c.make();
  if (!position->relative()) return "";
  for (const int64_t at : {0, 1, 100, 100000}) {
    const Tensor x = random_rows(1, kPositionDim, Rng(4).fork(c.name));
    std::vector<double> row(x.data(), x.data() + kPositionDim);
    double before = 0, after = 0;
    for (const double v : row) before += v * v;
    position->naive_turn(row.data(), at, 1, kPositionHeads);
    for (const double v : row) after += v * v;
    if (std::fabs(after - before) > 1e-12 * before)
      return fmt::format("length {} becomes {} at position {}", before, after, at);
  }
  return "";
}

std::string slopes_fit_the_heads(const PositionCase& c) {
  const auto slopes = c.make()->slopes();
  if (!slopes.empty() && std::ssize(slopes) != kPositionHeads)
    return fmt::format("{} slopes for {} heads", slopes.size(), kPositionHeads);
  for (const float s : slopes)
    if (!(s >= 0 && std::isfinite(s))) return fmt::format("a slope of {}", s);
  return "";
}

std::string gradients(const PositionCase& c) {
  HostileMemory hostile;
  const auto position = c.make();
  const Var x = Var::leaf(random_rows(kRows, kWidth, Rng(5).fork(c.name)));
  const Tensor a = random_rows(kRows, kWidth, Rng(6).fork(c.name));
  const Var y = position->turn(x, some_segments(), kPositionHeads);
  if (!y.needs_grad()) return "turned rows are off the tape";
  if (y.node().get() == x.node().get()) return "";  // nothing was done
  backward(y, a);
  naive::Matrix rows = to_matrix(x.value());
  return compare_gradient(
      "the rows", x.grad(), rows,
      [&] {
        const naive::Matrix out = defined(*position, rows);
        double total = 0;
        for (int64_t i = 0; i < a.elements(); ++i) total += out.a[static_cast<size_t>(i)] * a.data()[i];
        return total;
      },
      Rng(7));
}

std::string threads_change_nothing(const PositionCase& c) {
  const int before = thread_count();
  const Tensor x = random_rows(500, kWidth, Rng(8).fork(c.name));
  const Segment whole[] = {{0, 500, 3, nullptr}};
  Tensor reference;
  std::string broken;
  for (const int threads : {1, 2, 3, 8}) {
    set_thread_count(threads);
    const Tensor y = c.make()->turn(Var(x), whole, kPositionHeads).value();
    if (!reference) reference = y;
    if (broken.empty() && !same_bits(y, reference))
      broken = fmt::format("{} threads: {}", threads, bits_differ(y, reference));
  }
  set_thread_count(before);
  return broken;
}

}  // namespace

const std::vector<PositionLaw>& position_laws() {
  static const std::vector<PositionLaw> laws = {{"TurnIsNaiveTurn", turn_is_naive_turn},
                                                {"RowsAreAlone", rows_are_alone},
                                                {"ScoresDependOnTheDistance", scores_depend_on_the_distance},
                                                {"NormsAreKept", norms_are_kept},
                                                {"SlopesFitTheHeads", slopes_fit_the_heads},
                                                {"Gradients", gradients},
                                                {"ThreadsChangeNothing", threads_change_nothing}};
  return laws;
}

std::vector<PositionCase> registered_positions() {
  std::vector<PositionCase> cases;
  auto add = [&](const Json& part) {
    cases.push_back({json_text(part), [part] {
                       return positions::registry().make(part, {kPositionHeads, kPositionDim}, Rng(), "laws");
                     }});
  };
  for (const auto& name : positions::registry().names()) add(Json{{"name", name}});
  add(Json{{"name", "rope"}, {"interleaved", true}});
  add(Json{{"name", "rope"}, {"fraction", 0.5}, {"base", 500}});
  add(Json{{"name", "fope"}, {"length", 40}});
  add(Json{{"name", "fope"}, {"length", 40}, {"noise", 0.3}});
  return cases;
}

}  // namespace sennit::laws
