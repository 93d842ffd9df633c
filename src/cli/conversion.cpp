#include "cli/conversion.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/parallel.h"
#include "io/atomic_file.h"
#include "io/mapped_file.h"
#include "model/adapter.h"
#include "model/checkpoint.h"
#include "model/vocabulary.h"
#include "tokenizers/chat_template.h"
#include "tokenizers/gguf_export.h"
#include "tokenizers/rwkv_world.h"

namespace sennit::cli {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kTokens = 64, kWindow = 512;
// What a folder says of its tokenizer and of how to generate.
constexpr const char* kCompanions[] = {"tokenizer.json",
                                       "tokenizer.model",
                                       "tokenizer_config.json",
                                       "special_tokens_map.json",
                                       "added_tokens.json",
                                       "vocab.json",
                                       "merges.txt",
                                       "chat_template.jinja",
                                       "generation_config.json",
                                       "sennit_tokenizer.json",
                                       tokenizers::kRwkvFile};

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

// The tokenizer and the chat template of a GGUF as files of a folder.
std::string write_companions(const io::GgufMetadata& m, const std::string& from, const std::string& to) {
  if (const std::string chat = m.text("tokenizer.chat_template", ""); !chat.empty())
    io::write_file(to + "/chat_template.jinja", chat);
  const auto tokenizer = tokenizer_of(m, from);
  if (!tokenizer) return "none in the file";
  tokenizer->save(to);
  return "written as " + std::string(tokenizer->name() == "rwkv" ? tokenizers::kRwkvFile : "tokenizer.json");
}

io::GgufMetadata vocabulary_for(const StoredModel& model, std::string& said) {
  const int64_t vocab = model.model_file.at("vocab");
  if (model.gguf) {
    said = "copied";
    return gguf_vocabulary(model.gguf->metadata());
  }
  const std::string json = model.path + "/tokenizer.json";
  std::error_code ignored;
  io::GgufMetadata m;
  if (fs::is_regular_file(json, ignored)) {
    const std::string config = model.path + "/tokenizer_config.json";
    const auto read = [](const std::string& path) { return std::string(io::MappedFile::open(path)->text()); };
    const auto made =
        tokenizers::gguf_of_tokenizer_json(read(json), fs::is_regular_file(config, ignored) ? read(config) : "", json);
    said = made.vocabulary ? fmt::format("{} tokens written, read back and compared", made.vocabulary->tokens.size())
                           : "not written: " + made.reason;
    m = made.vocabulary ? gguf_vocabulary(*made.vocabulary, vocab) : gguf_vocabulary(nullptr, vocab);
  } else {
    auto tokenizer = tokenizer_beside(model.path);
    // What random weights make of a text means nothing, so that any vocabulary is true to them; and readers want one.
    const bool stands_in = !tokenizer && model.random && vocab > 256;
    if (stands_in) tokenizer = tokenizers::bytes_tokenizer();
    m = gguf_vocabulary(tokenizer.get(), vocab);
    said = m.text("tokenizer.ggml.model") == "none" ? "none"
           : stands_in ? fmt::format("none given: bytes, filled up to {} tokens, for weights that know no text", vocab)
                       : fmt::format("{} tokens written", vocab);
  }
  const std::string chat = tokenizers::find_chat_template(model.path);
  if (!chat.empty()) m.set("tokenizer.chat_template", io::GgufValue::of(chat));
  return m;
}

int64_t bytes_under(const std::string& path) {
  std::error_code ignored;
  if (fs::is_regular_file(path, ignored)) return static_cast<int64_t>(fs::file_size(path, ignored));
  int64_t sum = 0;
  for (const auto& entry : fs::directory_iterator(path, ignored)) sum += static_cast<int64_t>(entry.file_size(ignored));
  return sum;
}

Tensor logits_of(Model& model, std::span<const int32_t> tokens) {
  const Context context;
  const Segment whole[] = {{0, std::ssize(tokens), 0, nullptr}};
  return model.logits(model.hidden(tokens, {whole, &context}), context).value();
}

// The log-probabilities of a row of logits, in place.
void normalize(std::span<float> row) {
  const float top = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (const float x : row) sum += std::exp(double{x} - top);
  for (float& x : row) x = static_cast<float>(x - top - std::log(sum));
}

// Adds a place's share; `next` is the token that follows, -1 where none does.
void compare_rows(std::span<float> a, std::span<float> b, int32_t next, LogitDifference& d) {
  for (size_t j = 0; j < a.size(); ++j) d.largest = std::max(d.largest, std::fabs(double{a[j]} - b[j]));
  normalize(a), normalize(b);
  for (size_t j = 0; j < a.size(); ++j) d.divergence += std::exp(double{a[j]}) * (double{a[j]} - b[j]);
  d.same_top += std::max_element(a.begin(), a.end()) - a.begin() == std::max_element(b.begin(), b.end()) - b.begin();
  if (next >= 0) d.perplexity[0] -= a[next], d.perplexity[1] -= b[next];
}

}  // namespace

ConversionReport convert(const Conversion& c) {
  StoredModel model = read_stored_model(c.in);
  const auto adapted = c.adapter.empty() ? std::vector<TensorUse>() : apply_adapter(model, c.adapter);
  ConversionReport r{.origin = model.origin,
                     .container = Container::huggingface,
                     .read = model.uses,
                     .adapted = adapted,
                     .written = {},
                     .unread = model.unread,
                     .tokenizer = {}};
  if (c.distill) r.distilled = distill(model, *c.distill);
  if (c.group) r.grouped = group_key_heads(model, *c.group);
  ExportOptions options;
  if (!c.weights.empty()) options.weights = io::parse_block_format(c.weights);
  options.container = fs::path(c.out).extension() == ".gguf" ? Container::gguf
                      : c.to == "hf"                         ? Container::huggingface
                                                             : Container::sennit;
  if (options.container == Container::gguf) {
    options.vocabulary = vocabulary_for(model, r.tokenizer);
    r.written = export_model(model, c.out, options);
  } else {
    io::AtomicFolder folder(c.out);
    r.written = export_model(model, folder.path(), options);
    r.tokenizer = model.gguf ? write_companions(model.gguf->metadata(), model.path, folder.path())
                             : copy_companions(model.path, folder.path());
    folder.commit();
  }
  r.container = options.container;
  for (const auto& [name, t] : model.tensors) r.parameters += t.shape.elements();
  r.bytes = bytes_under(c.out);
  return r;
}

LogitDifference logit_difference(Model& first, Model& second, std::vector<int32_t> tokens) {
  const int64_t vocab = first.spec().vocab;
  if (vocab != second.spec().vocab)
    fail({"convert", fmt::format("a vocabulary of {}", vocab), fmt::format("{}", second.spec().vocab)});
  const NoGrad off;
  const FlushDenormals flush;
  Rng rng(1);
  if (tokens.empty())
    for (int64_t i = 0; i < kTokens; ++i) tokens.push_back(static_cast<int32_t>(rng.below(vocab)));
  LogitDifference d{.tokens = std::ssize(tokens)};
  int64_t followed = 0;
  for (int64_t begin = 0; begin < d.tokens; begin += kWindow) {
    const std::span<const int32_t> window =
        std::span<const int32_t>(tokens).subspan(begin, std::min(kWindow, d.tokens - begin));
    Tensor a = logits_of(first, window), b = logits_of(second, window);
    for (int64_t i = 0; i < a.rows(); ++i) {
      const int32_t next = i + 1 < a.rows() ? window[i + 1] : -1;
      compare_rows(a.span().subspan(i * vocab, vocab), b.span().subspan(i * vocab, vocab), next, d);
      followed += next >= 0;
    }
  }
  d.divergence /= static_cast<double>(d.tokens), d.same_top /= static_cast<double>(d.tokens);
  for (double& p : d.perplexity) p = followed ? std::exp(p / static_cast<double>(followed)) : 0;
  return d;
}

}  // namespace sennit::cli
