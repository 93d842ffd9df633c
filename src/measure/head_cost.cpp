#include "measure/head_cost.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/clock.h"
#include "decoding/generate.h"
#include "measure/non_negative.h"
#include "measure/size.h"

namespace sennit::measure {
namespace {

void check_attention(const Json& mixer, const std::string& where) {
  if (mixer.at("name") != "softmax")
    fail({"head counts", "blocks of softmax attention", mixer.at("name").get<std::string>(), where});
  for (const char* limit : {"window", "block"})
    if (mixer.value(limit, int64_t{0}))
      fail({"head counts", "attention to all keys", fmt::format("a {} of {}", limit, json_text(mixer.at(limit))),
            where});
}

std::vector<double> time_terms(const HeadShape& s, int64_t context, double near, double far) {
  const TokenCost all = token_cost(s, context), weights = token_cost(s, 0);
  return {static_cast<double>(s.blocks), weights.bytes, all.flops - weights.flops, std::max(0.0, all.bytes - near),
          all.bytes > far ? all.bytes : 0};
}

}  // namespace

HeadShape head_shape(const ModelSpec& spec, const std::string& where) {
  const auto kinds = block_kinds(spec);
  if (kinds.size() != 1)
    fail({"head counts", "blocks that are all alike", fmt::format("{} kinds", kinds.size()), where});
  const Json& mixer = *kinds[0].spec.mixer;
  check_attention(mixer, where);
  HeadShape s{.d_model = spec.d_model, .blocks = kinds[0].count, .heads = mixer.value("heads", int64_t{4})};
  s.kv_heads = mixer.value("kv_heads", int64_t{0});
  if (!s.kv_heads) s.kv_heads = s.heads;
  s.head_dim = mixer.value("head_dim", int64_t{0});
  if (!s.head_dim) s.head_dim = spec.d_model / s.heads;
  s.parameters = ModelSize(spec, where).parameters();
  s.looked_up = spec.tie_embeddings ? 0 : spec.vocab * spec.d_model;
  return s;
}

TokenCost token_cost(const HeadShape& s, int64_t context, const NumberBytes& bytes) {
  const double each = static_cast<double>(s.blocks * s.head_dim) * static_cast<double>(context);
  return {2 * static_cast<double>(s.parameters - s.looked_up) + 4 * static_cast<double>(s.heads) * each,
          static_cast<double>(s.parameters) * bytes.weight + 2 * static_cast<double>(s.kv_heads) * each * bytes.cache};
}

double token_seconds(Model& model, int64_t context, int tries) {
  SENNIT_CHECK(context >= 1 && tries >= 1);
  NoGrad off;
  SequenceState before;
  before.position = context - 1;
  const Rng rng(1);
  std::vector<float> drawn(4093);  // prime, so that rows differ
  for (size_t i = 0; i < drawn.size(); ++i) drawn[i] = static_cast<float>(rng.uniform_at(i) - 0.5);
  for (size_t slot = 0; slot < model.state_specs().size(); ++slot)
    for (size_t f = 0; f < model.state_specs()[slot].size(); ++f) {
      const StateField& field = model.state_specs()[slot][f];
      SENNIT_CHECK(field.growth == Growth::per_token);
      Tensor rows(field.kept_shape(context - 1, CacheFormat::f32));
      for (int64_t i = 0; i < rows.elements(); ++i) rows.data()[i] = drawn[static_cast<size_t>(i) % drawn.size()];
      if (context > 1) before.layer(slot).append(f, Var(rows), 0, field.heads);
    }
  Session session(model, Context{});
  session.restore(std::move(before));
  const int32_t token = 0;
  std::vector<double> times;
  for (int i = 0; i <= tries; ++i) {
    const double start = seconds_now();
    session.feed({&token, 1});
    if (i) times.push_back(seconds_now() - start);  // the first packs weights and makes room
  }
  std::nth_element(times.begin(), times.begin() + std::ssize(times) / 2, times.end());
  return times[times.size() / 2];
}

TokenTime::TokenTime(std::span<const TimedToken> measured) {
  if (measured.empty()) fail({"time of a token", "at least one that was measured", "none"});
  double least = INFINITY;
  const std::vector<double> whole(measured.size(), 1.0);
  for (double near = 1 << 18; near <= 1 << 24; near *= M_SQRT2)
    for (double far = near; far <= 1 << 28; far *= M_SQRT2) {
      std::vector<std::vector<double>> rows;
      for (const TimedToken& m : measured) {
        rows.push_back(time_terms(m.shape, m.context, near, far));
        for (double& x : rows.back()) x /= m.seconds;
      }
      const auto fit = fit_non_negative(rows, whole);
      if (fit.residual >= least) continue;
      least = fit.residual, near_ = near, far_ = far;
      std::copy(fit.x.begin(), fit.x.end(), rates_);
    }
}

double TokenTime::seconds(const HeadShape& shape, int64_t context) const {
  const auto terms = time_terms(shape, context, near_, far_);
  return std::inner_product(terms.begin(), terms.end(), rates_, 0.0);
}

}  // namespace sennit::measure
