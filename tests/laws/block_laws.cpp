#include "laws/block_laws.h"

#include <nlohmann/json.hpp>

#include "laws/harness.h"

namespace sennit::laws {
namespace {

naive::Matrix sum(naive::Matrix a, const naive::Matrix& b) {
  for (size_t i = 0; i < a.a.size(); ++i) a.a[i] += b.a[i];
  return a;
}

// The equations of the papers. A new block adds its own here.
std::map<std::string, BlockDefinition> definitions() {
  return {{"prenorm", [](const BlockParts& p, const naive::Matrix& x) {
             const naive::Matrix mixed = sum(x, p.mixer(p.mixer_norm(x)));
             return p.channel ? sum(mixed, p.channel(p.channel_norm(mixed))) : mixed;
           }},
          {"postnorm", [](const BlockParts& p, const naive::Matrix& x) {
             const naive::Matrix mixed = p.mixer_norm(sum(x, p.mixer(x)));
             return p.channel ? p.channel_norm(sum(mixed, p.channel(mixed))) : mixed;
           }}};
}

naive::Weights below(const naive::Weights& w, const std::string& prefix) {
  naive::Weights part;
  for (const auto& [name, m] : w)
    if (name.starts_with(prefix + ".")) part[name.substr(prefix.size() + 1)] = m;
  return part;
}

struct BlockAsMixer : Mixer {
  BlockAsMixer(std::unique_ptr<Block> b, const Json& mixer_part, const Json& channel_part, BlockDefinition d)
      : block(std::move(b)),
        mixer(mixers::registry().make(mixer_part, {.d_model = 32}, Rng(), "laws")),
        norm(norms::registry().make(Json("rmsnorm"), {32}, Rng(), "laws")),
        definition(std::move(d)) {
    if (channel_part != "none") channel = channels::registry().make(channel_part, {.d_model = 32}, Rng(), "laws");
  }
  Var forward(const Var& x, const Batch& batch) override { return block->forward(x, batch); }
  StateSpec state_spec() const override { return block->state_specs().at(0); }
  int64_t flops(int64_t n) const override { return block->flops(n); }
  int64_t pattern_flops(Pattern pattern, int64_t n, int64_t memory) const override {
    return block->flops(n) - mixer->flops(n) + mixer->pattern_flops(pattern, n, memory);
  }
  void visit(const ParameterVisitor& v) override { block->visit(v); }

  naive::Matrix naive(NaiveRun& run) const override {
    const auto row_map = [&run](const auto& part, const std::string& name) {
      return [&run, &part, name](const naive::Matrix& x) { return part->naive(below(run.w, name), x); };
    };
    BlockParts parts{row_map(norm, "mixer_norm"),
                     [&](const naive::Matrix& x) {
                       const naive::Weights w = below(run.w, "mixer");
                       NaiveRun inner{.w = w, .x = x, .pattern = run.pattern, .position = run.position, .memory = run.memory, .state = run.state};
                       const naive::Matrix y = mixer->naive(inner);
                       run.state = inner.state;
                       return y;
                     },
                     {},
                     {}};
    if (channel) parts.channel_norm = row_map(norm, "channel_norm"), parts.channel = row_map(channel, "channel");
    return definition(parts, run.x);
  }

  std::unique_ptr<Block> block;
  std::unique_ptr<Mixer> mixer;  // its definition alone is used
  std::unique_ptr<Norm> norm;
  std::unique_ptr<Channel> channel;
  BlockDefinition definition;
};

}  // namespace

MixerCase block_case(const std::string& name, const Json& mixer, const Json& channel,
                     std::function<std::unique_ptr<Block>(const Block::Dims&, Rng)> make, BlockDefinition definition) {
  return {name,
          [=](Rng rng) -> std::unique_ptr<Mixer> {
            const Json norm = "rmsnorm";
            return std::make_unique<BlockAsMixer>(
                make({.d_model = 32, .mixer = &mixer, .channel = &channel, .norm = &norm, .where = "laws"}, rng), mixer,
                channel, definition);
          },
          32, mixers::registry().find(detail::part_name(mixer, "mixer", "laws"), "laws").info.patterns};
}

std::vector<MixerCase> registered_blocks() {
  std::vector<MixerCase> cases;
  const auto known = definitions();
  for (const auto& entry : blocks::registry().entries()) {
    const auto definition = known.find(entry.name);
    SENNIT_CHECK(definition != known.end(), "block {} has no definition", entry.name);
    const auto make = [&entry](const Block::Dims& dims, Rng rng) {
      return blocks::registry().make(Json(entry.name), dims, rng, "laws");
    };
    for (const auto& [mixer, channel] : {std::pair{"gla", "swiglu"}, {"softmax", "mlp"}, {"mamba", "none"}})
      cases.push_back(block_case(fmt::format("block {} of {} and {}", entry.name, mixer, channel), Json(mixer),
                                 Json(channel), make, definition->second));
  }
  return cases;
}

}  // namespace sennit::laws
