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
    const double difference = std::fabs(a.data()[i] - at(i)), off = std::isnan(difference) ? INFINITY : difference / size;
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
  return a.shape() == b.shape() && (a.bytes() == 0 || std::memcmp(a.raw(), b.raw(), static_cast<size_t>(a.bytes())) == 0);
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
    for (float& x : p.var.value().span()) x = static_cast<float>(std::clamp(factor * x + 0.1 * r.normal(), -20.0, 20.0));
    ++p.version;
  });
}

Tensor run_pieces(Mixer& mixer, const Tensor& x, const std::vector<int64_t>& lengths, const Context& context, SequenceState& state) {
  NoGrad off;
  Tensor y(x.shape());
  int64_t at = 0;
  for (const int64_t length : lengths) {
    const Segment piece[] = {{0, length, state.position, &state}};
    const Var part = mixer.forward(Var(x.slice(at, length)), {piece, &context});
    SENNIT_CHECK(part.rows() == length, "{} rows for {}", part.rows(), length);
    y.slice(at, length).copy_from(part.value().reshape(y.slice(at, length).shape()));
    state.position += length;
    at += length;
  }
  SENNIT_CHECK(at == x.rows());
  return y;
}

Tensor run_whole(Mixer& mixer, const Tensor& x, const Context& context, Pattern pattern) {
  NoGrad off;
  const Segment whole[] = {{0, x.rows(), 0, nullptr}};
  return mixer.forward(Var(x), {whole, &context, pattern}).value();
}

naive::Matrix run_naive(Mixer& mixer, const Tensor& x) {
  const naive::Weights w = weights_of(mixer);
  const naive::Matrix rows = to_matrix(x.reshape({x.rows(), x.row_size()}));
  NaiveRun run{.w = w, .x = rows};
  return mixer.naive(run);
}

std::vector<int64_t> token_by_token(int64_t n) { return std::vector<int64_t>(static_cast<size_t>(n), 1); }

namespace {

// How far the definition moves when the last digits of its input do. A nonlinear recurrence with large weights is chaotic: no form in
// f32 can follow it closer than this.
double sensitivity(Mixer& mixer, const Tensor& x, const naive::Matrix& definition) {
  Tensor nudged = x.clone();
  Rng rng(61);
  for (float& v : nudged.span()) v *= 1 + static_cast<float>(rng.normal()) * 0x1p-23f;
  const naive::Matrix moved = run_naive(mixer, nudged);
  Tensor y(x.shape());
  for (int64_t i = 0; i < y.elements(); ++i) y.data()[i] = static_cast<float>(moved.a[static_cast<size_t>(i)]);
  return distance(y, definition).relative;
}

}  // namespace

double budget(Mixer& mixer, const Tensor& x, const naive::Matrix& definition) {
  constexpr double kMost = 3e-4, kFloor = 2e-5;
  SequenceState state;
  const Context context;
  const Tensor steps = run_pieces(mixer, x, token_by_token(x.rows()), context, state);
  const Distance d = distance(steps, definition);
  if (!(d.relative <= kMost || d.relative <= 16 * sensitivity(mixer, x, definition)))
    throw fmt::format("token by token over {} tokens is {:.2g} off its definition at row {}", x.rows(), d.relative, d.worst / x.row_size());
  return std::max(4 * d.relative, kFloor);
}

std::vector<MixerCase> registered_mixers() {
  std::vector<MixerCase> cases;
  for (const auto& entry : mixers::registry().entries()) {
    auto add = [&](const std::string& name, Json part) {
      part["name"] = entry.name;
      cases.push_back({name, [part](Rng rng) { return mixers::registry().make(part, {.d_model = 32}, rng, "laws"); }, 32});
    };
    add(entry.name, Json::object());
    for (const auto& [setting, options] : entry.info.settings) add(entry.name + " (" + setting + ")", Json::parse(options));
  }
  return cases;
}

}  // namespace sennit::laws
