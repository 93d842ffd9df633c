#pragma once
#include <string>
#include <vector>

#include "sequence/state.h"

// The states of sequences as one safetensors file: tensors "<sequence>.<slot>.<field>" and their positions in the
// metadata. The layout is public; a state moves between machines and outlives the process.
namespace sennit {


// `model` identifies the model: a state of another one is refused.
void save_states(const std::string& path, const std::vector<const SequenceState*>& states, const std::vector<StateSpec>& specs,
                 const std::string& model);
// Throws Error when the file is damaged, belongs to another model, or does not fit the specs.
std::vector<SequenceState> load_states(const std::string& path, const std::vector<StateSpec>& specs, const std::string& model);

}  // namespace sennit
