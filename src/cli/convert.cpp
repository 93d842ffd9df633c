#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "cli/command.h"
#include "cli/conversion.h"
#include "cli/progress_bar.h"
#include "model/adapter.h"
#include "report/table.h"

namespace sennit::cli {
namespace {

struct Convert {
  Conversion conversion;
  bool json = false, tensors = false, unchecked = false;

  Json run_json() {
    const ConversionReport r = convert(conversion);
    Json out{{"from", r.origin},        {"to", to_string(r.container)},
             {"out", conversion.out},   {"parameters", r.parameters},
             {"bytes", r.bytes},        {"settings_not_understood", r.unread},
             {"tokenizer", r.tokenizer}};
    out["read"] = out["written"] = Json::array();  // a model file alone has nothing to read
    for (const TensorUse& u : r.read)
      out["read"].push_back({{"tensor", u.theirs}, {"ours", u.ours}, {"how", u.how}, {"format", u.format}});
    for (const TensorUse& u : r.written)
      out["written"].push_back({{"tensor", u.theirs}, {"ours", u.ours}, {"how", u.how}, {"format", u.format}});
    for (const TensorUse& u : r.adapted)
      out["adapted"].push_back({{"tensor", u.theirs}, {"ours", u.ours}, {"how", u.how}, {"format", u.format}});
    if (unchecked) return out;
    StoredModel before = read_stored_model(conversion.in);
    if (!conversion.adapter.empty()) apply_adapter(before, conversion.adapter);
    const LogitDifference d = logit_difference(*make_model(before), *make_model(read_stored_model(conversion.out)));
    out["logits"] = {{"tokens", d.tokens},
                     {"largest_difference", d.largest},
                     {"kl_divergence", d.divergence},
                     {"same_top_token", d.same_top}};
    return out;
  }

  static void print_tensors(const char* title, const Json& uses, bool all) {
    report::Table table{{{title}, {"ours"}, {"how"}, {"format"}}, {}};
    for (const Json& u : uses)
      if (all || u.at("ours") == "") table.add({u.at("tensor"), u.at("ours"), u.at("how"), u.at("format")});
    if (!table.rows.empty()) fmt::print("{}\n", table.text());
  }

  int run() {
    const Json r = run_json();
    if (json) {
      fmt::print("{}\n", json_text(r, 1));
      return 0;
    }
    fmt::print("{} -> {}: {} parameters, {} on disk\n", r.at("from").get<std::string>(), conversion.out,
               count_text(r.at("parameters").get<double>()), bytes_text(r.at("bytes").get<double>()));
    std::map<std::string, int> counts;
    for (const Json& u : r.at("written"))
      ++counts[u.at("format").get<std::string>() + (u.at("how") == "" ? "" : ", " + u.at("how").get<std::string>())];
    for (const auto& [how, count] : counts) fmt::print("  {:4} tensors {}\n", count, how);
    print_tensors("read", r.at("read"), tensors);
    if (r.contains("adapted")) print_tensors("adapted", r.at("adapted"), true);
    if (tensors) print_tensors("written", r.at("written"), true);
    if (!r.at("settings_not_understood").empty())
      fmt::print("settings not understood: {}\n",
                 fmt::join(r.at("settings_not_understood").get<std::vector<std::string>>(), ", "));
    fmt::print("tokenizer: {}\n", r.at("tokenizer").get<std::string>());
    if (r.contains("logits")) {
      const Json& l = r.at("logits");
      fmt::print(
          "logits over {} tokens: largest difference {:.3g}, KL divergence {:.3g}, same likeliest token {:.1f} %\n",
          l.at("tokens").get<int64_t>(), l.at("largest_difference").get<double>(), l.at("kl_divergence").get<double>(),
          100 * l.at("same_top_token").get<double>());
    }
    return 0;
  }
};

}  // namespace

void add_convert(Commands& commands) {
  auto c = std::make_shared<Convert>();
  CLI::App& app =
      commands.add("convert", "Turn a model into another format, and say what became of it", [c] { return c->run(); });
  app.add_option("in", c->conversion.in, "a GGUF file, a Hugging Face folder, or a checkpoint or training run")
      ->required();
  app.add_option("out", c->conversion.out, "a file that ends in .gguf, or a folder")->required();
  app.add_option("--to", c->conversion.to,
                 "how a folder is laid out: as Hugging Face does, or with a model file of Sennit's")
      ->capture_default_str()
      ->check(CLI::IsMember({"hf", "sennit"}));
  std::vector<std::string> formats;
  for (const io::BlockFormat f : io::block_formats()) formats.push_back(io::layout_of(f).name);
  app.add_option("--weights", c->conversion.weights, "format of the matrices; default: as they are")
      ->check(CLI::IsMember(formats));
  app.add_option("--adapter", c->conversion.adapter,
                 "a folder with a low-rank adapter as PEFT writes it, added to the weights");
  app.add_flag("--tensors", c->tensors, "list every tensor");
  app.add_flag("--no-check", c->unchecked, "do not run both models to compare their logits");
  add_json_flag(app, c->json);
  app.footer("Example: sennit convert runs/llama llama.gguf --weights q4_k");
}

}  // namespace sennit::cli
