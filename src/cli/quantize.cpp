#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/parallel.h"
#include "cli/command.h"
#include "cli/conversion.h"
#include "cli/progress_bar.h"
#include "decoding/generate.h"
#include "io/mapped_file.h"
#include "model/checkpoint.h"
#include "report/table.h"

namespace sennit::cli {
namespace {

constexpr int kTimedTokens = 32;

struct Quantize {
  Conversion conversion{.in = {}, .out = {}, .to = "hf", .weights = "q4_k"};
  std::string text, tokenizer;
  int64_t max_tokens = 4096;
  bool json = false, prices = false;

  // Tokens a second, one at a time.
  static double decode_rate(Model& model) {
    Session session(model, Context());
    const int32_t token = 0;
    session.feed({&token, 1});
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kTimedTokens; ++i) session.feed({&token, 1});
    return kTimedTokens / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  std::vector<int32_t> tokens() const {
    if (text.empty()) return {};
    const auto t = tokenizer.empty()
                       ? tokenizer_beside(is_gguf(conversion.in) ? conversion.in : resolve_checkpoint(conversion.in))
                       : std::shared_ptr(tokenizers::load_tokenizer(tokenizer));
    if (!t) fail({"quantize", "a tokenizer beside the model or --tokenizer", "none", conversion.in});
    auto ids = t->encode(io::MappedFile::open(text)->text());
    if (std::ssize(ids) > max_tokens) ids.resize(static_cast<size_t>(max_tokens));
    if (ids.size() < 2) fail({"quantize", "a text of at least two tokens", fmt::format("{}", ids.size()), text});
    return ids;
  }

  struct Price {
    std::string weights;
    int64_t bytes;
    LogitDifference difference;
    double rate;
  };

  // What the model costs in a format, without writing it.
  static Price price(const StoredModel& stored, Model& before, const std::string& weights,
                     const std::vector<int32_t>& tokens) {
    const bool tied = before.spec().tie_embeddings;
    int64_t bytes = 0;
    before.parameters([&](const std::string& name, Parameter& p) {  // of floats: those that are quantized are passed by
      const io::StoredTensor& t = stored.tensors.at(name);
      const bool output = name == "head.weight" || (tied && name == "embedding.weight");
      bytes += p.quantizable ? kept_bytes(t, weights, output) : 4 * t.shape.elements();
    });
    const auto model = make_model(stored, {.weights = weights});
    return {weights, bytes, logit_difference(before, *model, tokens), decode_rate(*model)};
  }

  int run_prices() const {
    const StoredModel stored = read_stored_model(conversion.in);
    const auto before = make_model(stored, {.as_floats = true});
    const auto ids = tokens();
    const NoGrad off;
    const FlushDenormals flush;
    int64_t parameters = 0;
    for (const auto& [name, t] : stored.tensors) parameters += t.shape.elements();
    report::Table table{{{"weights"},
                         {"bits", true},
                         {"size", true},
                         {"perplexity", true},
                         {"KL divergence", true},
                         {"same likeliest", true},
                         {"tokens/s", true}},
                        {}};
    Json all = Json::array();
    const auto add = [&](const Price& p) {
      const double bits = 8.0 * static_cast<double>(p.bytes) / static_cast<double>(parameters);
      table.add({p.weights, fmt::format("{:.2f}", bits), bytes_text(static_cast<double>(p.bytes)),
                 ids.empty() ? "" : fmt::format("{:.4g}", p.difference.perplexity[1]),
                 fmt::format("{:.3g}", p.difference.divergence), fmt::format("{:.1f} %", 100 * p.difference.same_top),
                 fmt::format("{:.3g}", p.rate)});
      all.push_back({{"weights", p.weights},
                     {"bits_per_parameter", bits},
                     {"bytes", p.bytes},
                     {"perplexity", p.difference.perplexity[1]},
                     {"kl_divergence", p.difference.divergence},
                     {"same_top_token", p.difference.same_top},
                     {"tokens_per_second", p.rate}});
    };
    add({"f32", 4 * parameters, logit_difference(*before, *before, ids), decode_rate(*before)});
    for (const std::string& weights : weight_forms()) add(price(stored, *before, weights, ids));
    if (json)
      fmt::print("{}\n", json_text(Json{{"parameters", parameters}, {"random_tokens", text.empty()}, {"formats", all}}, 1));
    else
      fmt::print("{}", table.text());
    return 0;
  }

  int run() {
    if (prices) return run_prices();
    if (std::filesystem::path(conversion.out).extension() != ".gguf")
      fail({"quantize", "an output that ends in .gguf", conversion.out});
    const ConversionReport report = convert(conversion);
    const auto before = make_model(read_stored_model(conversion.in)),
               after = make_model(read_stored_model(conversion.out));
    const LogitDifference d = logit_difference(*before, *after, tokens());
    const NoGrad off;
    const FlushDenormals flush;
    const double rates[] = {decode_rate(*before), decode_rate(*after)};
    const double bits = 8.0 * static_cast<double>(report.bytes) / static_cast<double>(report.parameters);
    if (json) {
      const Json object{{"weights", conversion.weights},
                        {"parameters", report.parameters},
                        {"bytes", report.bytes},
                        {"bits_per_parameter", bits},
                        {"tokens", d.tokens},
                        {"random_tokens", text.empty()},
                        {"perplexity_before", d.perplexity[0]},
                        {"perplexity", d.perplexity[1]},
                        {"kl_divergence", d.divergence},
                        {"same_top_token", d.same_top},
                        {"tokens_per_second_before", rates[0]},
                        {"tokens_per_second", rates[1]}};
      fmt::print("{}\n", json_text(object, 1));
      return 0;
    }
    report::Table table{{{""}, {"before", true}, {conversion.weights, true}}, {}};
    table.add({"bits a parameter", "", fmt::format("{:.2f}", bits)});
    table.add({"size", "", bytes_text(static_cast<double>(report.bytes))});
    if (!text.empty())
      table.add({"perplexity", fmt::format("{:.4g}", d.perplexity[0]), fmt::format("{:.4g}", d.perplexity[1])});
    table.add({"KL divergence", "0", fmt::format("{:.3g}", d.divergence)});
    table.add({"same likeliest token", "", fmt::format("{:.1f} %", 100 * d.same_top)});
    table.add({"tokens a second, one at a time", fmt::format("{:.3g}", rates[0]), fmt::format("{:.3g}", rates[1])});
    fmt::print("{}{} tokens{}\n", table.text(), d.tokens,
               text.empty() ? ", drawn at random (--text FILE for a text)" : "");
    return 0;
  }
};

}  // namespace

void add_quantize(Commands& commands) {
  auto q = std::make_shared<Quantize>();
  CLI::App& app = commands.add("quantize", "Write a model with quantized weights, and say what that costs",
                               [q] { return q->run(); });
  app.add_option("in", q->conversion.in, "a GGUF file, a Hugging Face folder, or a checkpoint or training run")
      ->required();
  auto* out = app.add_option("out", q->conversion.out, "a file that ends in .gguf");
  auto* prices =
      app.add_flag("--prices", q->prices, "write nothing: a table of what every form of quantized weights costs");
  prices->excludes(out);
  std::vector<std::string> formats;
  for (const io::BlockFormat f : io::block_formats()) formats.push_back(io::layout_of(f).name);
  app.add_option("--weights", q->conversion.weights, "format of the matrices")
      ->capture_default_str()
      ->check(CLI::IsMember(formats));
  app.add_option("--text", q->text, "a text to measure by");
  app.add_option("--max-tokens", q->max_tokens, "of the text")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 30));
  app.add_option("--tokenizer", q->tokenizer, "of the text; default: the one beside the model");
  add_json_flag(app, q->json);
  app.footer("Example: sennit quantize runs/llama llama-q4.gguf --weights q4_k --text valid.txt");
}

}  // namespace sennit::cli
