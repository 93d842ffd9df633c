#include "model/checkpoint.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "model/adapter.h"
#include "model/stored_model.h"
#include "model/vocabulary.h"

namespace sennit {
namespace {

namespace fs = std::filesystem;

bool present(const fs::path& p) {
  std::error_code ignored;
  return fs::exists(p, ignored);
}

}  // namespace

void write_checkpoint(const std::string& folder, Model& model, DType dtype) {
  std::vector<io::NamedTensor> tensors;
  model.parameters([&](const std::string& name, Parameter& p) {
    const auto values = p.value().span();
    if (!std::all_of(values.begin(), values.end(), [](float w) { return std::isfinite(w); }))
      fail({"checkpoint", "finite weights", fmt::format("a number in `{}` that is not", name), folder + ": nothing was written"});
    tensors.push_back({name, p.value().to(dtype)});
  });
  io::write_safetensors_folder(folder, tensors);
  io::write_json_file(folder + "/config.json", Json{{"model_type", "sennit"},
                                                    {"architectures", {"SennitForCausalLM"}},
                                                    {"dtype", dtype == DType::bf16 ? "bfloat16" : "float32"},
                                                    {"vocab_size", model.spec().vocab},
                                                    {"hidden_size", model.spec().d_model},
                                                    {"num_hidden_layers", model.spec().blocks.size()},
                                                    {"tie_word_embeddings", model.spec().tie_embeddings},
                                                    {"sennit", write_model_spec(model.spec())}});
}

std::string resolve_checkpoint(const std::string& path) {
  if (present(fs::path(path) / "config.json")) return path;
  const fs::path checkpoints = fs::path(path) / "checkpoints";
  std::vector<std::string> steps;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(checkpoints, ignored))
    if (present(entry.path() / "config.json") && entry.path().filename().string().rfind("step-", 0) == 0) steps.push_back(entry.path().string());
  if (steps.empty())
    fail({"checkpoint", "a folder with config.json, or a training run with checkpoints", present(path) ? "neither" : "nothing there", path});
  return *std::max_element(steps.begin(), steps.end());
}

void load_weights(Model& model, const std::string& path) {
  const io::Safetensors file(path);
  file.verify();
  std::set<std::string> expected;
  model.parameters([&](const std::string& name, Parameter& p) {
    expected.insert(name);
    if (!file.contains(name)) fail({"checkpoint", fmt::format("a tensor `{}` {}", name, p.value().shape().str()), "none of that name", path});
    const Tensor stored = file.tensor(name);
    if (stored.shape() != p.value().shape())
      fail({"checkpoint", fmt::format("`{}` to be {}", name, p.value().shape().str()), stored.shape().str(), path});
    if (stored.dtype() != DType::f32 && stored.dtype() != DType::bf16 && stored.dtype() != DType::f16)
      fail({"checkpoint", fmt::format("`{}` to be f32, bf16 or f16", name), to_string(stored.dtype()), path});
    p.init(stored.dtype() == DType::f32 ? stored.clone() : stored.to(DType::f32));
  });
  for (const std::string& name : file.names())
    if (!expected.count(name)) fail({"checkpoint", "only tensors of the model file", fmt::format("`{}`", name), path});
}

std::shared_ptr<tokenizers::Tokenizer> tokenizer_beside(const std::string& path) {
  if (is_gguf(path))
    if (auto inside = tokenizer_of(io::GgufFile(path).metadata(), path)) return inside;
  const std::string folder = is_gguf(path) ? fs::path(path).parent_path().string() : path;
  return tokenizers::has_tokenizer(folder) ? tokenizers::load_tokenizer(folder) : nullptr;
}

void check_tokenizer(const LoadedModel& loaded) {
  const int64_t most = loaded.model->spec().vocab;
  if (loaded.tokenizer && loaded.tokenizer->vocab_size() > most)
    fail({"checkpoint", fmt::format("a tokenizer of at most {} tokens", most), fmt::format("{}", loaded.tokenizer->vocab_size()), loaded.path});
}

LoadedModel load_checkpoint(const std::string& path, const LoadingOptions& options) {
  LoadedModel loaded;
  loaded.path = is_gguf(path) ? path : resolve_checkpoint(path);
  StoredModel stored = read_stored_model(loaded.path);
  if (!options.adapter.empty()) apply_adapter(stored, options.adapter);
  if (!options.prefill.empty()) set_prefill(stored, options.prefill);
  loaded.model = make_model(stored, options);
  loaded.tokenizer = tokenizer_beside(loaded.path);
  check_tokenizer(loaded);
  return loaded;
}

}  // namespace sennit
