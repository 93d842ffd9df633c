#pragma once
#include <functional>

#include "families/family.h"

// What the models of flash-linear-attention have in common: a mixer between norms, a SwiGLU, and layers of attention
// among them where "attn" lists some (hybrids). llama.cpp has none of them, so there is no GGUF.
namespace sennit::families {

// Reads all but the mixer's own keys. `mixer` is what the layers have that "attn" does not list.
Json fla_model_file(Config& config, const Json& mixer);

// Throws Error unless the model is made of the mixer `name` and of attention as fla has it. The block where the mixer
// first stands.
size_t fla_check(const char* family, const Described& d, const std::string& name);

// All but the mixer's own keys.
Json fla_to_config(const Described& d, const std::string& model_type, const std::string& architecture);

// All tensors; `add_mixer` adds those of the mixer in a block, whose names begin with `prefix`.
using AddMixer = std::function<void(size_t block, const std::string& prefix, std::vector<TensorRule>& into)>;
std::vector<TensorRule> fla_rules(const Described& d, const AddMixer& add_mixer);

// Short convolutions of queries, keys and values.
void fla_conv_rules(const Described& d, size_t block, const std::string& prefix, std::vector<TensorRule>& into);

}  // namespace sennit::families
