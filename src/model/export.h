#pragma once
#include <optional>
#include <string>

#include "model/stored_model.h"

namespace sennit {

enum class Container { huggingface, gguf, sennit };
const char* to_string(Container container);

struct ExportOptions {
  Container container = Container::sennit;
  // The format of matrices; unset: as they are stored. A quantized one is for GGUF. In GGUF, numbers that are few (norms,
  // shifts, convolutions) stay f32, the output map gets q6_k instead of a format of 4 bits, and rows that are no multiple
  // of a block of 256 get the nearest format with blocks of 32.
  std::optional<io::BlockFormat> weights;
  io::GgufMetadata vocabulary;  // written into GGUF
};

// Writes a model file and its tensors: a folder (existing; give it an io::AtomicFolder's) with config.json and
// safetensors, or one GGUF. Says what became of each tensor. Throws Error when no family has a place for the model; GGUF
// then takes it under the architecture "sennit", which only this program reads.
std::vector<TensorUse> export_model(const StoredModel& model, const std::string& path, const ExportOptions& options);

}  // namespace sennit
