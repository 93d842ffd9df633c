#include "state/state_file.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "io/safetensors.h"

namespace sennit {
namespace {

constexpr int64_t kMostStates = 1 << 20;
constexpr const char* kNoteKey = "sennit.note";
constexpr const char* kCacheKey = "sennit.cache";  // the format of keys and values; f32 where it is missing

std::string key_of(size_t sequence, size_t slot, const std::string& field) { return fmt::format("{}.{}.{}", sequence, slot, field); }

std::string tokens_key(size_t sequence) { return fmt::format("{}.tokens", sequence); }

std::vector<int32_t> read_tokens(const io::SafetensorsFile& file, const std::string& key, int64_t position) {
  const Tensor ids = file.tensor(key);
  if (ids.dtype() != DType::i32 || ids.rank() != 1 || ids.elements() < position)
    fail({"state file", fmt::format("`{}` to be i32 [n], n at least {}", key, position), fmt::format("{} {}", to_string(ids.dtype()), ids.shape().str()), file.path()});
  return {ids.data<int32_t>(), ids.data<int32_t>() + ids.elements()};
}

int64_t number(const io::SafetensorsFile& file, const std::string& key) {
  const auto it = file.metadata().find(key);
  int64_t n = -1;
  if (it != file.metadata().end()) {
    const auto [end, error] = std::from_chars(it->second.data(), it->second.data() + it->second.size(), n);
    if (error != std::errc() || end != it->second.data() + it->second.size()) n = -1;
  }
  if (n < 0) fail({"state file", fmt::format("a number \"{}\" in the metadata", key), it == file.metadata().end() ? "none" : it->second, file.path()});
  return n;
}

void check_shape(const StateField& field, CacheFormat cache, int64_t position, const Tensor& value, const std::string& key, const std::string& path) {
  const Shape wanted = field.kept_shape(position, cache);
  const DType dtype = field.kept_dtype(cache);
  if (value.shape() != wanted || value.dtype() != dtype)
    fail({"state file", fmt::format("`{}` to be {} {}", key, to_string(dtype), wanted.str()), fmt::format("{} {}", to_string(value.dtype()), value.shape().str()), path});
}

}  // namespace

void save_states(const std::string& path, const std::vector<const SequenceState*>& states, const std::vector<StateSpec>& specs,
                 const std::string& model, const std::vector<std::vector<int32_t>>& tokens, const std::string& note) {
  std::vector<io::NamedTensor> tensors;
  io::SafetensorsMetadata metadata = {{"sennit.states", std::to_string(states.size())}, {"sennit.model", model}};
  if (!note.empty()) metadata[kNoteKey] = note;
  if (!states.empty()) metadata[kCacheKey] = to_string(states[0]->cache());
  for (size_t i = 0; i < states.size(); ++i) {
    metadata[fmt::format("position.{}", i)] = std::to_string(states[i]->position);
    for (size_t slot = 0; slot < states[i]->layers().size(); ++slot)
      for (size_t f = 0; f < specs[slot].size(); ++f)
        if (states[i]->layers()[slot].has(f)) tensors.push_back({key_of(i, slot, specs[slot][f].name), states[i]->layers()[slot].get(f).value()});
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    Tensor ids({std::ssize(tokens[i])}, DType::i32);
    std::copy(tokens[i].begin(), tokens[i].end(), ids.data<int32_t>());
    tensors.push_back({tokens_key(i), ids});
  }
  io::write_safetensors(path, tensors, metadata);
}

std::vector<SequenceState> load_states(const std::string& path, const std::vector<StateSpec>& specs, const std::string& model,
                                       std::vector<std::vector<int32_t>>* tokens, CacheFormat cache, std::string* note) {
  const io::SafetensorsFile file(path);
  file.verify();
  const auto made_for = file.metadata().find("sennit.model");
  if (made_for == file.metadata().end() || made_for->second != model)
    fail({"state file", "a state of this model", made_for == file.metadata().end() ? "one without a model" : "one of another model", path});
  const auto kept = file.metadata().find(kCacheKey);
  const std::string format = kept == file.metadata().end() ? to_string(CacheFormat::f32) : kept->second;
  if (format != to_string(cache))
    fail({"state file", fmt::format("keys and values in {}, as was asked for", to_string(cache)), format, path});
  if (const auto kept_note = file.metadata().find(kNoteKey); note && kept_note != file.metadata().end()) *note = kept_note->second;
  const int64_t count = number(file, "sennit.states");
  if (count > kMostStates) fail({"state file", fmt::format("at most {} states", kMostStates), std::to_string(count), path});
  std::vector<SequenceState> states;
  for (int64_t i = 0; i < count; ++i) states.emplace_back(cache);
  size_t used = 0;
  for (int64_t i = 0; i < count; ++i) {
    states[i].position = number(file, fmt::format("position.{}", i));
    for (size_t slot = 0; slot < specs.size(); ++slot)
      for (size_t f = 0; f < specs[slot].size(); ++f) {
        const std::string key = key_of(i, slot, specs[slot][f].name);
        if (!file.find(key)) {
          if (states[i].position > 0) fail({"state file", "a tensor `" + key + "`", "none", path});
          continue;
        }
        const Tensor value = file.tensor(key);
        check_shape(specs[slot][f], cache, states[i].position, value, key, path);
        states[i].layer(slot).set(f, Var(value.clone()));
        ++used;
      }
    if (!file.find(tokens_key(i))) continue;
    ++used;
    if (tokens) tokens->resize(count), (*tokens)[i] = read_tokens(file, tokens_key(i), states[i].position);
  }
  if (used != file.entries().size()) fail({"state file", fmt::format("{} tensors", used), std::to_string(file.entries().size()), path});
  return states;
}

}  // namespace sennit
