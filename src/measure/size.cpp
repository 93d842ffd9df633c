#include "measure/size.h"

#include <nlohmann/json.hpp>

namespace sennit::measure {
namespace {

bool same(const BlockSpec& a, const BlockSpec& b) {
  return *a.block == *b.block && *a.mixer == *b.mixer && *a.channel == *b.channel && *a.norm == *b.norm;
}

}  // namespace

std::string part_of(const std::string& name) {
  for (const char* part : {"norm", "mixer", "channel", "embedding", "head"}) {
    // A norm that stands in the block itself is one; a norm inside a mixer is the mixer's.
    if (std::string(part) == "norm" ? name.find("mixer_norm.") != std::string::npos ||
                                          name.find("channel_norm.") != std::string::npos || name.rfind("norm.", 0) == 0
                                    : name.find(std::string(part) + ".") != std::string::npos)
      return std::string(part) == "head" ? "embedding" : part;
  }
  return "other";
}

std::vector<BlockKind> block_kinds(const ModelSpec& spec) {
  std::vector<BlockKind> kinds;
  for (const BlockSpec& b : spec.blocks) {
    bool known = false;
    for (BlockKind& k : kinds)
      if (same(k.spec, b)) ++k.count, known = true;
    if (!known) kinds.push_back({b, 1});
  }
  return kinds;
}

ModelSize::ModelSize(const ModelSpec& spec, const std::string& where) : vocab_(spec.vocab), d_model_(spec.d_model) {
  parts_["embedding"] = spec.vocab * spec.d_model * (spec.tie_embeddings ? 1 : 2);
  const auto last = norms::registry().make(*spec.norm, {spec.d_model}, Rng(), where + ": norm");
  parts_["norm"] = last->parameter_count();
  for (const BlockKind& kind : block_kinds(spec)) {
    const Block::Dims dims{.d_model = spec.d_model,
                           .mixer = kind.spec.mixer.get(),
                           .channel = kind.spec.channel.get(),
                           .norm = kind.spec.norm.get(),
                           .where = where};
    kinds_.push_back({blocks::registry().make(*kind.spec.block, dims, Rng(), where), kind.count});
    kinds_.back().block->parameters(
        [&](const std::string& name, Parameter& p) { parts_[part_of(name)] += kind.count * p.value().elements(); });
  }
}

int64_t ModelSize::parameters() const {
  int64_t n = 0;
  for (const auto& [part, count] : parts_) n += count;
  return n;
}

int64_t ModelSize::state_bytes(int64_t tokens, CacheFormat cache) const {
  int64_t n = 0;
  for (const Kind& k : kinds_)
    for (const StateSpec& spec : k.block->state_specs())
      for (const StateField& f : spec) n += k.count * f.bytes(tokens, cache);
  return n;
}

int64_t ModelSize::flops(int64_t n) const {
  int64_t total = 2 * n * vocab_ * d_model_;
  for (const Kind& k : kinds_) total += k.count * k.block->flops(n);
  return total;
}

}  // namespace sennit::measure
