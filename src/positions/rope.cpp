// RoFormer: Enhanced Transformer with Rotary Position Embedding (Su et al., arXiv:2104.09864), equation 34.
//   pair i of the first `dims` numbers of a head turns by the angle position * base^(-2i/dims)
// with the stretched frequencies of sequence/rope_scaling.h for long contexts.
#include <cmath>
#include <nlohmann/json.hpp>

#include "positions/position.h"
#include "sequence/rope_scaling.h"
#include "sequence/rotary.h"

namespace sennit::positions {
namespace {

std::vector<double> factors_of(const Json& factors, const char* key, int64_t pairs) {
  const auto it = factors.is_object() ? factors.find(key) : factors.end();
  if (it == factors.end() || !it->is_array() || std::ssize(*it) != pairs)
    fail({"rope", fmt::format("factors.{} to be a list of {} numbers", key, pairs),
          it == factors.end() ? "none" : "another list"});
  std::vector<double> all;
  for (const Json& f : *it) {
    if (!f.is_number() || !(f.get<double>() > 0))
      fail({"rope", fmt::format("numbers above 0 in factors.{}", key), json_text(f)});
    all.push_back(f.get<double>());
  }
  return all;
}

struct Rope : Position {
  struct Options {
    double base = 10000, fraction = 1;
    bool interleaved = false;
    RopeScaling scaling;
    Json factors = Json::object();
    Fields fields() {
      return {{"base", &base, "the slowest pair turns once in about 2 pi base tokens", {.min = 1}},
              {"fraction", &fraction, "the part of each head that turns", {.min = 0, .max = 1}},
              {"interleaved", &interleaved, "pairs are neighbours (2i, 2i+1) instead of halves (i, i + dims/2)"},
              {"scaling",
               &scaling.kind,
               "how it is stretched to long contexts",
               {.choices = {"none", "linear", "dynamic", "yarn", "llama3", "longrope"}}},
              {"factor", &scaling.factor, "how many times longer they are", {.min = 1e-3, .max = 1e6}},
              {"original", &scaling.original, "tokens in pretraining", {.min = 0, .max = 1e12}},
              {"length",
               &scaling.length,
               "dynamic, longrope: tokens to be ready for; 0: original",
               {.min = 0, .max = 1e12}},
              {"low",
               &scaling.low,
               "yarn, llama3: pairs that turn less often in `original` tokens are stretched",
               {.min = 1e-3, .max = 1e6}},
              {"high", &scaling.high, "and pairs that turn more often are not", {.min = 1e-3, .max = 1e6}},
              {"attention",
               &scaling.attention,
               "multiplies turned queries and keys; 0: as the method says",
               {.min = 0, .max = 1e3}},
              {"factors", &factors, "longrope: {\"short\": [...], \"long\": [...]}, a number for each pair"}};
    }
  };
  static Info info() { return {"Rotary position embedding", "arXiv:2104.09864"}; }

  Rope(const Dims& d, const Options& o, Rng)
      : options(o), dims(static_cast<int64_t>(std::llround(o.fraction * static_cast<double>(d.head_dim))) / 2 * 2) {
    RopeScaling& s = options.scaling;
    if (s.kind != "none" && s.kind != "linear" && s.original < 1)
      fail({"rope", "`original`: the tokens in pretraining", "none"});
    if (s.kind == "llama3" && !(s.high > s.low))
      fail({"rope", "`high` above `low`", fmt::format("{} and {}", s.high, s.low)});
    if (s.kind == "dynamic" && dims < 4) fail({"rope", "at least two pairs", "one"});
    if (s.kind == "longrope")
      s.short_factors = factors_of(o.factors, "short", dims / 2),
      s.long_factors = factors_of(o.factors, "long", dims / 2);
    frequencies = rope_frequencies(dims, o.base, s);
    magnitude = rope_magnitude(s);
  }

  Var turn(const Var& x, std::span<const Segment> segments, int64_t heads) const override {
    return rotary(x, segments,
                  {.heads = heads,
                   .dims = dims,
                   .interleaved = options.interleaved,
                   .frequencies = frequencies,
                   .magnitude = magnitude});
  }

  void naive_turn(double* row, int64_t position, int64_t, int64_t) const override {
    for (int64_t i = 0; i < dims / 2; ++i) {
      const double plain = std::pow(options.base, -2.0 * static_cast<double>(i) / static_cast<double>(dims));
      const double angle = static_cast<double>(position) * (options.scaling.kind == "none" ? plain : frequencies[i]);
      double& a = row[options.interleaved ? 2 * i : i];
      double& b = row[options.interleaved ? 2 * i + 1 : i + dims / 2];
      const double a0 = a * magnitude, b0 = b * magnitude;
      a = a0 * std::cos(angle) - b0 * std::sin(angle);
      b = a0 * std::sin(angle) + b0 * std::cos(angle);
    }
  }

  Options options;
  int64_t dims;
  std::vector<double> frequencies;
  double magnitude;
};

}  // namespace

void register_rope(Registry<Position>& r) {
  r.add<Rope>("rope");
}

}  // namespace sennit::positions
