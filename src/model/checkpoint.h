#pragma once
#include <memory>
#include <string>

#include "model/stored_model.h"
#include "tokenizers/tokenizer.h"

// Models in folders as Hugging Face lays them out: config.json (the model file is its "sennit" object), model.safetensors
// and the tokenizer's files.
namespace sennit {

struct LoadedModel {
  std::unique_ptr<Model> model;
  std::shared_ptr<tokenizers::Tokenizer> tokenizer;  // null when the folder has none
  std::string path;
};

// Writes config.json and model.safetensors (as f32 or bf16) into an existing folder; give it an io::AtomicFolder's.
void write_checkpoint(const std::string& folder, Model& model, DType dtype = DType::f32);

// Reads the folder (ours, or one of a family of families/), the newest checkpoint of a training run's folder, or a GGUF
// file. Throws Error when a file is missing, damaged (checksum), or does not hold the tensors of its model, or when the
// tokenizer does not fit the vocabulary.
LoadedModel load_checkpoint(const std::string& path, const LoadingOptions& options = {});

// Throws Error when the tokenizer (if any) has more tokens than the model.
void check_tokenizer(const LoadedModel& loaded);

// The folder with config.json that `path` means: itself, or the newest of a run's checkpoints. Throws Error.
std::string resolve_checkpoint(const std::string& path);

// The tokenizer in a checkpoint's folder, or in the folder of a GGUF; null when there is none.
std::shared_ptr<tokenizers::Tokenizer> tokenizer_beside(const std::string& path);

// Fills every parameter from the tensors of a safetensors file or folder.
void load_weights(Model& model, const std::string& path);

}  // namespace sennit
