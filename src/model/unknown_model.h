#pragma once
#include <string>
#include <vector>

#include "base/fields.h"
#include "io/gguf.h"

// What can be said of files of an architecture that no family knows, for the Error that refuses them.
namespace sennit {

// Names with layer numbers as N, each once, in order: "model.layers.N.mlp.up_proj.weight".
std::vector<std::string> kinds_of_tensors(const std::vector<std::string>& names);

// Of a folder as Hugging Face lays them out: the family that knows most of its tensors, the kinds of tensors that it
// does not know, and the keys of config.json that it did not ask for; all of them where none is near.
std::string describe_unknown(const Json& config, const std::vector<std::string>& tensors, const std::string& path);
// Of a GGUF file: its kinds of tensors, and the keys of its architecture.
std::string describe_unknown(const io::GgufFile& file);

}  // namespace sennit
