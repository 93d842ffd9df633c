#include "cli/loaded.h"

#include "base/error.h"

namespace sennit::cli {

void ModelChoice::add(CLI::App& app) {
  app.add_option(
         "checkpoint", checkpoint,
         "folder with config.json (ours or Hugging Face's), a training run (its newest checkpoint), or a GGUF file")
      ->required();
  app.add_option("--tokenizer", tokenizer, "use this one: a file, folder, or bytes; default: the one beside the model");
  add_weights(app, weights);
  app.add_option("--adapter", adapter, "a folder with a low-rank adapter as PEFT writes it, added to the weights");
  app.add_option("--prefill", prefill,
                 "read whole prompts by a choice of keys: stripes, permuted_blocks, or with settings, "
                 "'{\"name\": \"stripes\", \"mass\": 0.9}'; default: what the model file says");
  app.add_option("--precision", precision, "of the factors of matrix products")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "bf16"}));
  add_cache(app, cache);
  app.add_flag("--exact", exact, "the same bits however a text is cut into pieces");
}

CLI::Option* ModelChoice::add_weights(CLI::App& app, std::string& weights) {
  return app
      .add_option(
          "--weights", weights,
          "keep matrices of floats in this form instead: a format of blocks, or int8, whole rows of 8 bits by one "
          "scale, which multiply fastest where many rows do")
      ->check(CLI::IsMember(weight_forms()));
}

CLI::Option* ModelChoice::add_cache(CLI::App& app, std::string& cache) {
  return app
      .add_option(
          "--cache", cache,
          "keep keys and values of softmax and sparse attention in this format: bf16 and f16 take half the memory "
          "of f32, q8_0 a quarter; the perplexity of models/sennit-hybrid changes by less than 1e-4 of itself")
      ->capture_default_str()
      ->check(CLI::IsMember(cache_formats()));
}

Context ModelChoice::context() const {
  Context c;
  c.cache = parse_cache_format(cache, "--cache");
  c.precision = parse_precision(precision, "--precision");
  c.exact = exact;
  return c;
}

LoadedModel ModelChoice::load() const {
  return load_checkpoint(checkpoint, {.as_floats = false, .weights = weights, .prefill = prefill, .adapter = adapter});
}

LoadedModel ModelChoice::load_with_tokenizer() const {
  LoadedModel loaded = load();
  if (!tokenizer.empty()) {
    loaded.tokenizer = tokenizers::load_tokenizer(tokenizer);
    check_tokenizer(loaded);
  }
  if (!loaded.tokenizer)
    fail({"checkpoint", "a tokenizer in it, a tokenizer.json or tokenizer.model beside it, or --tokenizer", "none",
          loaded.path});
  return loaded;
}

}  // namespace sennit::cli
