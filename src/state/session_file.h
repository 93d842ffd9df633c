#pragma once
#include <string>
#include <vector>

#include "model/model.h"
#include "sequence/state.h"

// One sequence in a state file (state_file.h), with its tokens: what a session needs to go on.
namespace sennit {

struct KeptSession {
  SequenceState state;
  std::vector<int32_t> tokens;  // those that the state has read, then those that wait
  std::string note;             // what else was to be kept; ""
};

void save_session(const std::string& path, Model& model, const SequenceState& state, const std::vector<int32_t>& tokens,
                  const std::string& note = {});
// Throws Error as load_states() does, and for more sequences than one, none, and tokens that the model has not.
KeptSession load_session(const std::string& path, Model& model, CacheFormat cache);

}  // namespace sennit
