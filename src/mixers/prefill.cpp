#include "mixers/prefill.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/registry.h"

namespace sennit::mixers {

Prefill::Prefill(const Json& part, const std::string& where) {
  const std::string name = detail::part_name(part, "prefill", where);
  Fields fields = {{"from", &from_, "tokens of the shortest prompt that it chooses for", {.min = 1, .max = 1e9}}};
  const Field::Limits parts{.min = 1e-9, .max = 1};
  if (name == "stripes") {
    kind_ = Kind::stripes;
    fields.push_back({"window", &stripes_.window, "part of the keys that every query sees before itself", parts});
    fields.push_back({"sampled", &stripes_.sampled, "part of the queries that are asked", parts});
    fields.push_back({"mass", &stripes_.mass, "of their weights that is kept; 1: everything", parts});
  } else if (name == "permuted_blocks") {
    kind_ = Kind::permuted_blocks;
    fields.push_back({"block", &blocks_.block, "keys, and queries, of a block", {.min = 1, .max = 1e6}});
    fields.push_back({"segment", &blocks_.segment, "keys sorted among themselves", {.min = 1, .max = 1e9}});
    fields.push_back({"mass", &blocks_.mass, "of the scores of blocks that is kept; 1: everything", parts});
    fields.push_back({"sorted", &blocks_.sorted, "sort keys by the weight that the last queries give them"});
  } else if (name != "none") {
    fail({"prefill", "none, stripes or permuted_blocks", name, where});
  }
  detail::read_part(part, fields, name, where);
  if (blocks_.segment % blocks_.block)
    fail({name, "a `block` that divides `segment`", fmt::format("{} and {}", blocks_.block, blocks_.segment), where});
}

bool Prefill::concerns(const AttentionSegment& s) const {
  return chooses() && s.offset == 0 && s.queries == s.keys && s.queries >= from_;
}

TileSource Prefill::tiles(const Tensor& q, const Tensor& keys, const AttentionSegment& segment,
                          const SparseAttentionOptions& options) const {
  if (kind_ == Kind::stripes) return striped(sampled_stripes(q, keys, segment, options, stripes_));
  return PermutedBlocks(q, keys, segment, options, blocks_).tiles();
}

Var Prefill::attend(Var attended, const Var& q, std::span<const Var> keys, std::span<const Var> values,
                    std::span<const AttentionSegment> segments, const SparseAttentionOptions& options) const {
  for (const AttentionSegment& s : segments) {
    if (!concerns(s)) continue;
    const Tensor looked_at = widened(keys[s.source].value(), options.kv_heads);
    const Var chosen = sparse_attention(q, keys, values, {&s, 1}, options, tiles(q.value(), looked_at, s, options));
    if (!attended.defined()) {
      attended = chosen;
      continue;
    }
    const int64_t width = chosen.value().row_size();
    std::memcpy(attended.value().data() + s.query_begin * width, chosen.value().data() + s.query_begin * width,
                static_cast<size_t>(s.queries * width) * sizeof(float));
  }
  return attended;
}

}  // namespace sennit::mixers
