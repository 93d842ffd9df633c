#pragma once
#include "families/family.h"

// The mixer "mamba2" in the settings and tensors of those families that have it, alone or between others.
namespace sennit::families {

// Sizes that are not said in the mixer's options.
struct Mamba2Sizes {
  int64_t inner, heads, shared;  // shared: groups times state
};
Mamba2Sizes mamba2_sizes(const Described& d, size_t block);

// The mixer of a model of width d_model with `heads` of `head_dim`.
Json mamba2_mixer(int64_t d_model, int64_t heads, int64_t head_dim, int64_t state, int64_t groups, int64_t conv,
                  double epsilon);
// Reads time_step_limit, which must leave steps as they are, and passes by what matters at the start of training only.
void check_time_steps(Config& config);

Json mamba2_from_gguf(const io::GgufFile& file, const std::string& architecture, int64_t d_model, double epsilon);
void mamba2_to_gguf(const Described& d, size_t block, const std::string& architecture, io::GgufMetadata& into);

// Its tensors; theirs begin with `prefix`: "backbone.layers.3.mixer.", "blk.3.ssm_".
void mamba2_rules(const Described& d, size_t block, const std::string& prefix, Layout layout,
                  std::vector<TensorRule>& into);

}  // namespace sennit::families
