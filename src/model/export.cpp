#include "model/export.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "model/tensor_rules.h"

namespace sennit {
namespace {

using io::BlockFormat;
using io::StoredTensor;

constexpr int64_t kContextLength = 4096;  // said of models that do not say

// Matrices by which rows are multiplied or looked up; the rest is few numbers that matter much.
bool is_matrix(const std::string& name, const Shape& shape) {
  const bool weight = name.ends_with(".weight") && shape.rank() == 2;
  return weight && name.find("conv") == name.npos && name != "positions.weight" && name != "token_types.weight";
}

bool finite(const StoredTensor& t) {
  const Tensor x = io::decoded(t);
  return std::all_of(x.span().begin(), x.span().end(), [](float v) { return std::isfinite(v); });
}

// The float format that holds most of the numbers.
BlockFormat main_format(const StoredModel& model) {
  int64_t count[3] = {};
  for (const auto& [name, t] : model.tensors)
    if (!io::is_quantized(t.format)) count[static_cast<int>(t.format)] += t.shape.elements();
  return static_cast<BlockFormat>(std::max_element(count, count + 3) - count);
}

// In `format` if that loses nothing, else in f32.
StoredTensor without_loss(const StoredTensor& t, BlockFormat format) {
  const StoredTensor wide = io::encoded(t, BlockFormat::f32), narrow = io::encoded(wide, format),
                     back = io::encoded(narrow, BlockFormat::f32);
  return std::equal(wide.bytes.begin(), wide.bytes.end(), back.bytes.begin()) ? narrow : wide;
}

class Exporter {
 public:
  Exporter(const StoredModel& model, const ExportOptions& options)
      : model_(model), options_(options), main_(main_format(model)) {
    if (options.weights && io::is_quantized(*options.weights) && options.container != Container::gguf)
      fail({"convert", "f32, bf16 or f16 in a folder of safetensors", io::layout_of(*options.weights).name});
    described_ = families::describe(model.model_file, parameter_shapes(model.model_file, model.path));
    described_.context_length = model.context_length ? model.context_length : kContextLength;
  }

  std::vector<TensorUse> write(const std::string& path) {
    switch (options_.container) {
      case Container::sennit:
        write_sennit(path);
        break;
      case Container::huggingface:
        write_huggingface(path);
        break;
      case Container::gguf:
        write_gguf(path);
        break;
    }
    return std::move(uses_);
  }

 private:
  StoredTensor in_format(const std::string& name, const StoredTensor& t) const {
    const bool matrix = is_matrix(name, t.shape);
    if (options_.container == Container::gguf) {
      if (!matrix) return io::encoded(t, BlockFormat::f32);
      if (!options_.weights) return t;
      const bool output = name == "head.weight" || (name == "embedding.weight" && described_.tied);
      const BlockFormat format = matrix_format(*options_.weights, output, t.row_size());
      if (io::is_quantized(format) && format != t.format && !finite(t))
        fail({"convert", fmt::format("finite numbers in `{}`", name), "others", model_.path});
      return io::encoded(t, format);
    }
    if (options_.weights) return io::encoded(t, *options_.weights);
    return t.format == main_ ? t : without_loss(t, main_);
  }

  void use(const TensorRule& rule, const StoredTensor& t) {
    std::string how = to_string(rule.change);
    if (rule.ours.size() > 1) how += how.empty() ? "stacked" : ", stacked";
    uses_.push_back({rule.theirs, fmt::format("{}", fmt::join(rule.ours, " + ")), how, io::layout_of(t.format).name});
  }

  std::vector<io::NamedStored> arranged(const std::vector<TensorRule>& rules) {
    std::vector<io::NamedStored> all;
    for (const TensorRule& rule : rules) {
      std::vector<StoredTensor> parts;
      for (const std::string& ours : rule.ours) parts.push_back(in_format(ours, model_.tensors.at(ours)));
      all.push_back({rule.theirs, to_theirs(rule, parts)});
      use(rule, all.back().tensor);
    }
    return all;
  }

  std::vector<TensorRule> own_rules() const {
    std::vector<TensorRule> rules;
    for (const auto& [name, shape] : described_.shapes) rules.push_back({name, {name}});
    return rules;
  }

  static void write_folder(const std::string& path, const std::vector<io::NamedStored>& tensors, Json config) {
    std::vector<io::NamedTensor> all;
    int64_t narrow = 0;
    for (const io::NamedStored& t : tensors) {
      all.push_back({t.name, tensor_of(t.tensor)});
      narrow = std::max<int64_t>(narrow, t.tensor.format == BlockFormat::bf16  ? 2
                                         : t.tensor.format == BlockFormat::f16 ? 1
                                                                               : 0);
    }
    config["torch_dtype"] = narrow == 2 ? "bfloat16" : narrow == 1 ? "float16" : "float32";
    io::write_safetensors_folder(path, all);
    io::write_json_file(path + "/config.json", config);
  }

  void write_sennit(const std::string& path) {
    write_folder(path, arranged(own_rules()),
                 Json{{"model_type", "sennit"},
                      {"architectures", {"SennitForCausalLM"}},
                      {"vocab_size", described_.vocab},
                      {"hidden_size", described_.d_model},
                      {"num_hidden_layers", described_.blocks.size()},
                      {"tie_word_embeddings", described_.tied},
                      {"sennit", model_.model_file}});
  }

  // The first family that has a place for the model, with what it says of it.
  template <class Settings>
  std::unique_ptr<Family> family_for(Settings&& settings, std::string& refusal) const {
    for (const auto& e : families::registry().entries()) {
      auto family = families::registry().make(e.name, {}, Rng(), model_.path);
      try {
        settings(*family);
        return family;
      } catch (const Error& e2) {
        refusal += (refusal.empty() ? "" : "; ") + std::string(e2.what());
      }
    }
    return nullptr;
  }

  void write_huggingface(const std::string& path) {
    Json config;
    std::string refusal;
    const auto family = family_for([&](const Family& f) { config = f.to_config(described_); }, refusal);
    if (!family) fail({"convert", "a model that some family of Hugging Face's has a place for", refusal, model_.path});
    write_folder(path, arranged(family->rules(described_, Layout::huggingface, config.at("model_type"))), config);
  }

  void write_gguf(const std::string& path) {
    io::GgufMetadata m;
    std::string refusal;
    const auto family = family_for([&](const Family& f) { m = f.to_gguf(described_); }, refusal);
    if (!family) {
      m = io::GgufMetadata();
      m.set("general.architecture", io::GgufValue::of("sennit"));
      m.set("sennit.context_length", io::GgufValue::of(static_cast<uint32_t>(described_.context_length)));
      m.set("sennit.model_file", io::GgufValue::of(json_text(model_.model_file)));
    }
    auto tensors =
        arranged(family ? family->rules(described_, Layout::gguf, m.text("general.architecture")) : own_rules());
    if (family)
      for (io::NamedStored& extra : family->gguf_extras(described_)) tensors.push_back(std::move(extra));
    m.set("general.name", io::GgufValue::of("sennit"));
    m.set("general.quantization_version", io::GgufValue::of(uint32_t{2}));
    m.set("general.file_type", io::GgufValue::of(file_type(tensors)));
    for (const auto& [key, value] : options_.vocabulary.entries()) m.set(key, value);
    io::write_gguf(path, m, tensors);
  }

  // llama.cpp's number for the format of most matrices.
  static uint32_t file_type(const std::vector<io::NamedStored>& tensors) {
    static constexpr uint32_t kTypes[] = {0, 1, 32, 7, 2, 3, 8, 9, 15, 17, 18};
    int64_t bytes[std::size(kTypes)] = {};
    for (const io::NamedStored& t : tensors)
      if (t.tensor.shape.rank() > 1) bytes[static_cast<int>(t.tensor.format)] += t.tensor.shape.elements();
    return kTypes[std::max_element(bytes, std::end(bytes)) - bytes];
  }

  const StoredModel& model_;
  const ExportOptions& options_;
  BlockFormat main_;
  Described described_;
  std::vector<TensorUse> uses_;
};

}  // namespace

const char* to_string(Container container) {
  static constexpr const char* kNames[] = {"hf", "gguf", "sennit"};
  return kNames[static_cast<int>(container)];
}

std::vector<TensorUse> export_model(const StoredModel& model, const std::string& path, const ExportOptions& options) {
  return Exporter(model, options).write(path);
}

}  // namespace sennit
