#include "cli/conversion.h"

#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/parallel.h"
#include "io/atomic_file.h"
#include "model/checkpoint.h"
#include "model/vocabulary.h"

namespace sennit::cli {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kTokens = 64;
// What a folder says of its tokenizer and of how to generate.
constexpr const char* kCompanions[] = {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
                                       "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
                                       "generation_config.json", "sennit_tokenizer.json"};

std::string copy_companions(const std::string& from, const std::string& to) {
  int copied = 0;
  for (const char* name : kCompanions) {
    std::error_code error;
    if (!fs::is_regular_file(fs::path(from) / name, error)) continue;
    fs::copy_file(fs::path(from) / name, fs::path(to) / name, fs::copy_options::overwrite_existing, error);
    if (error) fail({"convert", "to copy the tokenizer", error.message(), (fs::path(from) / name).string()});
    ++copied;
  }
  return copied ? fmt::format("{} files copied", copied) : "none";
}

io::GgufMetadata vocabulary_for(const StoredModel& model, std::string& said) {
  const int64_t vocab = model.model_file.at("vocab");
  if (model.gguf) {
    said = "copied";
    return gguf_vocabulary(model.gguf->metadata());
  }
  const auto tokenizer = tokenizer_beside(model.path);
  const io::GgufMetadata m = gguf_vocabulary(tokenizer.get(), vocab);
  const bool none = m.text("tokenizer.ggml.model") == "none";
  said = !none ? fmt::format("{} tokens written", vocab) : tokenizer ? "not written: a kind that GGUF is not given yet" : "none";
  return m;
}

int64_t bytes_under(const std::string& path) {
  std::error_code ignored;
  if (fs::is_regular_file(path, ignored)) return static_cast<int64_t>(fs::file_size(path, ignored));
  int64_t sum = 0;
  for (const auto& entry : fs::directory_iterator(path, ignored)) sum += static_cast<int64_t>(entry.file_size(ignored));
  return sum;
}

Tensor logits_of(const std::string& path, std::vector<int32_t>& tokens) {
  const NoGrad off;
  const FlushDenormals flush;
  const auto model = make_model(read_stored_model(path));
  if (tokens.empty()) {
    Rng rng(1);
    for (int64_t i = 0; i < kTokens; ++i) tokens.push_back(static_cast<int32_t>(rng.below(model->spec().vocab)));
  }
  const Context context;
  const Segment whole[] = {{0, std::ssize(tokens), 0, nullptr}};
  return model->logits(model->hidden(tokens, {whole, &context}), context).value();
}

}  // namespace

ConversionReport convert(const Conversion& c) {
  const StoredModel model = read_stored_model(c.in);
  ConversionReport r{.origin = model.origin, .container = Container::huggingface, .read = model.uses, .written = {}, .unread = model.unread, .tokenizer = {}};
  ExportOptions options;
  if (!c.weights.empty()) options.weights = io::parse_block_format(c.weights);
  options.container = fs::path(c.out).extension() == ".gguf" ? Container::gguf : c.to == "hf" ? Container::huggingface : Container::sennit;
  if (options.container == Container::gguf) {
    options.vocabulary = vocabulary_for(model, r.tokenizer);
    r.written = export_model(model, c.out, options);
  } else {
    io::AtomicFolder folder(c.out);
    r.written = export_model(model, folder.path(), options);
    r.tokenizer = model.gguf ? "not written: GGUF vocabularies do not become files yet" : copy_companions(model.path, folder.path());
    folder.commit();
  }
  r.container = options.container;
  for (const auto& [name, t] : model.tensors) r.parameters += t.shape.elements();
  r.bytes = bytes_under(c.out);
  return r;
}

LogitDifference logit_difference(const std::string& first, const std::string& second) {
  std::vector<int32_t> tokens;
  const Tensor a = logits_of(first, tokens), b = logits_of(second, tokens);
  if (a.shape() != b.shape()) fail({"convert", "logits " + a.shape().str(), b.shape().str(), second});
  LogitDifference d{.tokens = a.rows()};
  const int64_t vocab = a.row_size();
  for (int64_t i = 0; i < a.rows(); ++i) {
    const float *x = a.data() + i * vocab, *y = b.data() + i * vocab;
    const float top_x = *std::max_element(x, x + vocab), top_y = *std::max_element(y, y + vocab);
    double sum_x = 0, sum_y = 0, mean = 0;
    for (int64_t j = 0; j < vocab; ++j) {
      sum_x += std::exp(double{x[j]} - top_x), sum_y += std::exp(double{y[j]} - top_y);
      d.largest = std::max(d.largest, std::fabs(double{x[j]} - y[j]));
    }
    for (int64_t j = 0; j < vocab; ++j) mean += std::exp(double{x[j]} - top_x) / sum_x * ((double{x[j]} - top_x) - (double{y[j]} - top_y));
    d.divergence += (mean - std::log(sum_x) + std::log(sum_y)) / static_cast<double>(a.rows());
    d.same_top += (std::max_element(x, x + vocab) - x == std::max_element(y, y + vocab) - y) / static_cast<double>(a.rows());
  }
  return d;
}

}  // namespace sennit::cli
