#pragma once
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "io/gguf.h"
#include "model/model.h"

namespace sennit {

// What became of one tensor of a file.
struct TensorUse {
  std::string theirs, ours;  // "" where there is no counterpart
  std::string how;           // "", "transposed", "rows interleaved", "split", "not used: ..."
  std::string format;
};

// A model as a file holds it: settings, and tensors under our names, left as they are stored until they are used.
struct StoredModel {
  Json model_file;                                  // complete: what write_model_spec() gives
  std::map<std::string, io::StoredTensor> tensors;  // one for each parameter
  std::string path, origin;                         // "Hugging Face llama", "GGUF qwen2", "Sennit"
  int64_t context_length = 0;                       // that it was trained for; 0 where nothing says so
  bool random = false;                              // a model file alone, with the weights that training starts from
  std::vector<TensorUse> uses;
  std::vector<std::string> unread;         // settings that nobody understood
  std::shared_ptr<const io::GgufFile> gguf;  // where it comes from one: its vocabulary is there
};

// Reads a GGUF file, a folder as Hugging Face lays them out (sharded or not), a checkpoint or training run of ours, or a
// model file, which gets random weights.
// Throws Error naming the file for an unknown architecture, a tensor that is missing or has the wrong shape, and settings
// that cannot be said in a model file.
StoredModel read_stored_model(const std::string& path);
bool is_gguf(const std::string& path);

// The parameters of a model file and their shapes, without their numbers.
std::map<std::string, Shape> parameter_shapes(const Json& model_file, const std::string& where);

// The model. Matrices that are stored quantized stay so (products/quantized.h) unless `as_floats`; the others get the
// form that `weights` names: a format of blocks, or "int8" (products/int8.h). All the rest is f32.
struct LoadingOptions {
  bool as_floats = false;
  std::string weights = {};  // "" for floats
  std::string prefill = {};  // how softmax attention reads whole prompts: a name, or JSON; "" as the model file says
  std::string adapter = {};  // a folder of PEFT's that load_checkpoint() applies first; "" for none
};
// Sets what whole prompts are read of (mixers/prefill.h) in every block of softmax attention. Throws Error where there is
// none.
void set_prefill(StoredModel& stored, const std::string& prefill);
std::unique_ptr<Model> make_model(const StoredModel& stored, const LoadingOptions& options = {});

// The format that a matrix gets when `wanted` is asked for: the output map q6_k instead of a format of 4 bits, and rows
// that are no multiple of a block the nearest format that fits.
io::BlockFormat matrix_format(io::BlockFormat wanted, bool output, int64_t row);
// What LoadingOptions::weights may name: the quantized formats, and "int8".
std::vector<std::string> weight_forms();
// The bytes of a matrix that make_model() keeps by these `weights`.
int64_t kept_bytes(const io::StoredTensor& matrix, const std::string& weights, bool output);

}  // namespace sennit
