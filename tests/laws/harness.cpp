#include "laws/harness.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

namespace sennit::laws {
namespace {

template <class At>
Distance compare(const Tensor& a, int64_t n, At&& at) {
  SENNIT_CHECK(a.elements() == n, "{} against {} numbers", a.shape().str(), n);
  double square = 0, most = 0;
  for (int64_t i = 0; i < n; ++i) square += at(i) * at(i), most = std::max(most, std::fabs(at(i)));
  const double size = n ? std::sqrt(square / static_cast<double>(n)) + most / 16 + 1e-12 : 1;
  Distance d;
  for (int64_t i = 0; i < n; ++i) {
    const double difference = std::fabs(a.data()[i] - at(i)),
                 off = std::isnan(difference) ? INFINITY : difference / size;
    if (off > d.relative) d = {off, i};
  }
  return d;
}

}  // namespace

Distance distance(const Tensor& a, const naive::Matrix& b) {
  return compare(a, std::ssize(b.a), [&](int64_t i) { return b.a[static_cast<size_t>(i)]; });
}
Distance distance(const Tensor& a, const Tensor& b) {
  return compare(a, b.elements(), [&](int64_t i) { return double{b.data()[i]}; });
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() &&
         (a.bytes() == 0 || std::memcmp(a.raw(), b.raw(), static_cast<size_t>(a.bytes())) == 0);
}

std::string bits_differ(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape()) return fmt::format("shapes {} and {}", a.shape().str(), b.shape().str());
  for (int64_t i = 0; i < a.elements(); ++i)
    if (std::memcmp(a.data() + i, b.data() + i, 4) != 0)
      return fmt::format("row {} column {}: {} and {}", i / a.row_size(), i % a.row_size(), a.data()[i], b.data()[i]);
  return "";
}

naive::Matrix to_matrix(const Tensor& t) {
  naive::Matrix m(t.rank() > 1 ? t.rows() : 1, t.rank() > 1 ? t.row_size() : t.elements());
  for (int64_t i = 0; i < t.elements(); ++i) m.a[static_cast<size_t>(i)] = t.data()[i];
  return m;
}

naive::Weights weights_of(Module& module) {
  naive::Weights w;
  module.parameters([&](const std::string& name, Parameter& p) { w[name] = to_matrix(p.value()); });
  return w;
}

Tensor random_rows(int64_t n, int64_t d, Rng rng, double scale) {
  Tensor t({n, d});
  for (float& x : t.span()) x = static_cast<float>(scale * rng.normal());
  return t;
}

void shake(Module& module, Rng rng, double violence) {
  module.parameters([&](const std::string& name, Parameter& p) {
    Rng r = rng.fork(name);
    const double factor = std::exp(std::log(violence) * (2 * r.uniform() - 1));
    for (float& x : p.var.value().span())
      x = static_cast<float>(std::clamp(factor * x + 0.1 * r.normal(), -20.0, 20.0));
    ++p.version;
  });
}

Sample random_sample(const MixerCase& c, Pattern pattern, int64_t n, int64_t m, Rng rng) {
  Sample s{pattern, random_rows(c.whole(pattern, n), c.d_model, rng.fork("x")), {}};
  if (pattern == Pattern::cross) s.memory = random_rows(m, c.d_model, rng.fork("memory"));
  return s;
}

namespace {

// One segment of the sample's rows, with all of its memory.
Var forward_rows(Mixer& mixer, const Sample& sample, const Tensor& x, const Segment& segment, const Context& context) {
  const Segment segments[] = {segment};
  if (sample.pattern != Pattern::cross) return mixer.forward(Var(x), {segments, &context, sample.pattern});
  const Var memory(sample.memory);
  const Segment all[] = {{0, sample.memory.rows(), 0, nullptr}};
  return mixer.forward(Var(x), {segments, &context, sample.pattern, &memory, all});
}

}  // namespace

Tensor run_pieces(Mixer& mixer, const Sample& sample, const std::vector<int64_t>& lengths, const Context& context,
                  SequenceState& state) {
  NoGrad off;
  Tensor y(sample.x.shape());
  int64_t at = 0;
  for (const int64_t length : lengths) {
    const Var part =
        forward_rows(mixer, sample, sample.x.slice(at, length), {0, length, state.position, &state}, context);
    SENNIT_CHECK(part.rows() == length, "{} rows for {}", part.rows(), length);
    y.slice(at, length).copy_from(part.value().reshape(y.slice(at, length).shape()));
    state.position += length;
    at += length;
  }
  SENNIT_CHECK(at == sample.x.rows());
  return y;
}

Tensor run_whole(Mixer& mixer, const Sample& sample, const Context& context) {
  NoGrad off;
  return forward_rows(mixer, sample, sample.x, {0, sample.x.rows(), 0, nullptr}, context).value();
}

namespace {

naive::Matrix define(Mixer& mixer, const naive::Weights& w, const naive::Matrix& x, const naive::Matrix& memory,
                     Pattern pattern) {
  NaiveRun run{.w = w, .x = x, .pattern = pattern, .memory = pattern == Pattern::cross ? &memory : nullptr};
  return mixer.naive(run);
}
naive::Matrix memory_of(const Sample& s) {
  return s.memory ? to_matrix(s.memory) : naive::Matrix();
}

}  // namespace

double sensitivity(Mixer& mixer, const Sample& sample, const naive::Matrix& definition, double share) {
  constexpr int kTrials = 3;
  Rng rng(61);
  // Up or down: 64 numbers a draw, where normal ones would take most of the time.
  const auto nudge = [&](naive::Matrix& m) {
    uint64_t signs = 0;
    for (size_t i = 0; i < m.a.size(); ++i, signs >>= 1) {
      if (i % 64 == 0) signs = rng.bits();
      m.a[i] *= signs & 1 ? 1 + share : 1 - share;
    }
  };
  double most = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    naive::Weights w = weights_of(mixer);
    naive::Matrix x = to_matrix(sample.x), memory = memory_of(sample);
    for (auto& [name, matrix] : w) nudge(matrix);
    nudge(x), nudge(memory);
    const naive::Matrix moved = define(mixer, w, x, memory, sample.pattern);
    Tensor y(sample.x.shape());
    for (int64_t i = 0; i < y.elements(); ++i) y.data()[i] = static_cast<float>(moved.a[static_cast<size_t>(i)]);
    most = std::max(most, distance(y, definition).relative);
  }
  return most;
}

naive::Matrix run_naive(Mixer& mixer, const Sample& sample) {
  return define(mixer, weights_of(mixer), to_matrix(sample.x), memory_of(sample), sample.pattern);
}

std::vector<int64_t> token_by_token(int64_t n) {
  return std::vector<int64_t>(static_cast<size_t>(n), 1);
}

double budget(const MixerCase& c, Mixer& mixer, const Sample& sample, const naive::Matrix& definition) {
  constexpr double kMost = 3e-4, kFloor = 2e-5;
  if (sample.pattern != Pattern::causal || !c.stateful)
    return std::max(8 * sensitivity(mixer, sample, definition), kFloor);
  SequenceState state;
  const Context context;
  const Tensor steps = run_pieces(mixer, sample, token_by_token(sample.x.rows()), context, state);
  const Distance d = distance(steps, definition);
  if (!(d.relative <= kMost || d.relative <= 16 * sensitivity(mixer, sample, definition)))
    throw fmt::format("token by token over {} tokens is {:.2g} off its definition at row {}", sample.x.rows(),
                      d.relative, d.worst / sample.x.row_size());
  return std::max(4 * d.relative, kFloor);
}

std::vector<MixerCase> registered_mixers() {
  std::vector<MixerCase> cases;
  for (const auto& entry : mixers::registry().entries()) {
    auto add = [&](const std::string& name, Json part) {
      part["name"] = entry.name;
      const auto make = [part](Rng rng) { return mixers::registry().make(part, {.d_model = 32}, rng, "laws"); };
      cases.push_back({name, make, 32, entry.info.patterns, entry.info.no_state.empty(), make(Rng(1))->grid_columns()});
    };
    add(entry.name, Json::object());
    for (const auto& [setting, options] : entry.info.settings)
      add(entry.name + " (" + setting + ")", json_of(options));
  }
  return cases;
}

}  // namespace sennit::laws
