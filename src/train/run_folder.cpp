#include "train/run_folder.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/atomic_file.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "state/state_file.h"

namespace sennit::train {
namespace {

namespace fs = std::filesystem;

std::vector<int64_t> saved_steps(const std::string& path) {
  std::vector<int64_t> steps;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(fs::path(path) / "checkpoints", ignored)) {
    const std::string name = entry.path().filename().string();
    int64_t step = 0;
    if (name.rfind("step-", 0) != 0) continue;
    const auto [end, error] = std::from_chars(name.data() + 5, name.data() + name.size(), step);
    if (error == std::errc() && end == name.data() + name.size()) steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

}  // namespace

bool RunFolder::begun() const {
  std::error_code ignored;
  return fs::exists(fs::path(path_) / "run.json", ignored);
}

Json RunFolder::read_settings() const { return io::read_json_file(path_ + "/run.json"); }

void RunFolder::write_settings(const Json& settings) const {
  std::error_code error;
  fs::create_directories(fs::path(path_) / "checkpoints", error);
  if (error) fail({"training run", "a folder that can be made", error.message(), path_});
  io::write_json_file(path_ + "/run.json", settings);
}

int64_t RunFolder::last_step() const {
  const auto steps = saved_steps(path_);
  return steps.empty() ? 0 : steps.back();
}

std::string RunFolder::checkpoint(int64_t step) const { return fmt::format("{}/checkpoints/step-{:09}", path_, step); }

void RunFolder::save(int64_t step, const Parts& parts, int64_t keep) const {
  io::AtomicFolder folder(checkpoint(step));
  write_checkpoint(folder.path(), parts.model);
  parts.tokenizer.save(folder.path());
  std::vector<io::NamedTensor> tensors;
  parts.optimizer.visit_state(parts.parameters, [&](const std::string& name, Tensor& t) { tensors.push_back({name, t}); });
  io::write_safetensors(folder.path() + "/training.safetensors", tensors, {{"step", std::to_string(step)}});
  if (parts.streams) {
    std::vector<const SequenceState*> states;
    for (const SequenceState& s : *parts.streams) states.push_back(&s);
    save_states(folder.path() + "/streams.safetensors", states, parts.model.state_specs(), model_tag(parts.model));
  }
  folder.commit();
  auto steps = saved_steps(path_);
  for (size_t i = 0; i + static_cast<size_t>(keep) < steps.size(); ++i) {
    std::error_code ignored;
    fs::remove_all(checkpoint(steps[i]), ignored);
  }
}

void RunFolder::load(int64_t step, const Parts& parts) const {
  const std::string folder = checkpoint(step);
  load_weights(parts.model, folder);
  const io::SafetensorsFile file(folder + "/training.safetensors");
  file.verify();
  parts.optimizer.visit_state(parts.parameters, [&](const std::string& name, Tensor& t) {
    const Tensor stored = file.tensor(name);
    if (stored.shape() != t.shape() || stored.dtype() != t.dtype())
      fail({"training run", fmt::format("`{}` to be {}", name, t.shape().str()), stored.shape().str(), file.path()});
    t.copy_from(stored);
  });
  if (parts.streams) *parts.streams = load_states(folder + "/streams.safetensors", parts.model.state_specs(), model_tag(parts.model));
}

}  // namespace sennit::train
