#include "fuzz/input_folder.h"
#include "model/adapter.h"

namespace {

using namespace sennit;

StoredModel small_model() {
  const Json file = {{"vocab", 8}, {"d_model", 8}, {"blocks", {{{"mixer", "softmax"}, {"heads", 2}, {"channel", "mlp"}}}}};
  StoredModel stored{.model_file = write_model_spec(read_model_spec(file, "fuzz")),
                     .tensors = {},
                     .path = "fuzz",
                     .origin = "Sennit",
                     .uses = {},
                     .unread = {},
                     .gguf = {}};
  for (const auto& [name, shape] : parameter_shapes(file, "fuzz")) stored.tensors[name] = io::stored(Tensor::full(shape, 1));
  return stored;
}

}  // namespace

// Two bytes with the length of an adapter_config.json, that, and an adapter_model.safetensors: any of them change the
// model or are one Error.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const InputFolder folder;
  static const StoredModel model = small_model();
  if (size < 2) return 0;
  const size_t length = std::min<size_t>(data[0] | data[1] << 8, size - 2);
  folder.write("adapter_config.json", {data + 2, length});
  folder.write("adapter_model.safetensors", {data + 2 + length, size - 2 - length});
  try {
    StoredModel changed = model;
    apply_adapter(changed, folder.path());
    for (const auto& [name, t] : changed.tensors) SENNIT_CHECK(t.shape == model.tensors.at(name).shape, "{}", name);
  } catch (const Error&) {
  }
  return 0;
}
