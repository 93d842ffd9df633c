#pragma once
#include "blocks/block.h"
#include "laws/mixer_laws.h"

// A block over one mixer maps sequences as a mixer does, so the laws of mixers hold for it.
namespace sennit::laws {

// What a block computes, from the definitions of its parts.
struct BlockParts {
  std::function<naive::Matrix(const naive::Matrix&)> mixer_norm, mixer, channel_norm,
      channel;  // the last two empty for no channel
};
using BlockDefinition = std::function<naive::Matrix(const BlockParts&, const naive::Matrix&)>;

MixerCase block_case(const std::string& name, const Json& mixer, const Json& channel,
                     std::function<std::unique_ptr<Block>(const Block::Dims&, Rng)> make, BlockDefinition definition);

// Every registered block, over some mixers and channels.
std::vector<MixerCase> registered_blocks();

}  // namespace sennit::laws
