#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "blocks/block.h"
#include "model/model_file.h"

namespace sennit::measure {

// What a model file amounts to. Each kind of block is built once, so that a deep model costs little.
class ModelSize {
 public:
  explicit ModelSize(const ModelSpec& spec, const std::string& where);

  int64_t parameters() const;
  const std::map<std::string, int64_t>& parts() const {
    return parts_;
  }                                           // parameters: "embedding", "mixer", "channel", "norm"
  int64_t state_bytes(int64_t tokens, CacheFormat cache = CacheFormat::f32) const;  // of one sequence
  int64_t flops(int64_t n) const;  // of a forward pass over one sequence of n tokens, with all logits

 private:
  struct Kind {
    std::unique_ptr<Block> block;
    int64_t count = 0;
  };
  int64_t vocab_, d_model_;
  std::vector<Kind> kinds_;
  std::map<std::string, int64_t> parts_;
};

// One block of each kind, in order of appearance, and how often the model has it.
struct BlockKind {
  BlockSpec spec;
  int64_t count;
};
std::vector<BlockKind> block_kinds(const ModelSpec& spec);

// "embedding", "mixer", "channel", "norm" or "other": where a parameter's name puts it.
std::string part_of(const std::string& parameter);

}  // namespace sennit::measure
