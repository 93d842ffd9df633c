#pragma once
#include <string>
#include <vector>

#include "sequence/state.h"

// The states of sequences as one safetensors file: tensors "<sequence>.<slot>.<field>" and their positions in the
// metadata. The layout is public; a state moves between machines and outlives the process.
namespace sennit {

// `model` identifies the model: a state of another one is refused. `tokens`, when given, are those of each sequence
// ("<sequence>.tokens", i32): the first `position` of them are in the state, the others wait to be read. `note` is text
// that travels with them ("" for none): a dialogue's turns.
void save_states(const std::string& path, const std::vector<const SequenceState*>& states, const std::vector<StateSpec>& specs,
                 const std::string& model, const std::vector<std::vector<int32_t>>& tokens = {}, const std::string& note = {});
// Throws Error when the file is damaged, belongs to another model, keeps keys and values in another format than `cache`,
// or does not fit the specs.
std::vector<SequenceState> load_states(const std::string& path, const std::vector<StateSpec>& specs, const std::string& model,
                                       std::vector<std::vector<int32_t>>* tokens = nullptr, CacheFormat cache = CacheFormat::f32,
                                       std::string* note = nullptr);

}  // namespace sennit
