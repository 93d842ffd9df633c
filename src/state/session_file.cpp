#include "state/session_file.h"

#include "base/error.h"
#include "state/state_file.h"

namespace sennit {

void save_session(const std::string& path, Model& model, const SequenceState& state, const std::vector<int32_t>& tokens,
                  const std::string& note) {
  save_states(path, {&state}, model.state_specs(), model_tag(model), {tokens}, note);
}

KeptSession load_session(const std::string& path, Model& model, CacheFormat cache) {
  std::vector<std::vector<int32_t>> tokens;
  std::string note;
  auto states = load_states(path, model.state_specs(), model_tag(model), &tokens, cache, &note);
  if (states.size() != 1 || tokens.size() != 1)
    fail({"session", "one sequence and its tokens", fmt::format("{} sequences", states.size()), path});
  for (const int32_t t : tokens[0])
    if (t < 0 || t >= model.spec().vocab)
      fail({"session", fmt::format("token ids below {}", model.spec().vocab), std::to_string(t), path});
  return {std::move(states[0]), std::move(tokens[0]), std::move(note)};
}

}  // namespace sennit
