#include <fmt/format.h>

#include "cli/command.h"
#include "cli/conversion.h"

namespace sennit::cli {
namespace {

struct Group {
  Conversion conversion{
      .in = {}, .out = {}, .to = "sennit", .weights = {}, .adapter = {}, .distill = {}, .group = GroupingOptions()};
  bool json = false;

  int run() const {
    const ConversionReport report = convert(conversion);
    const LogitDifference d =
        logit_difference(*make_model(read_stored_model(conversion.in)), *make_model(read_stored_model(conversion.out)));
    if (json)
      fmt::print("{}\n", json_text(Json{{"out", conversion.out},
                                        {"blocks", report.grouped},
                                        {"tokens", d.tokens},
                                        {"kl_divergence", d.divergence},
                                        {"same_top_token", d.same_top}},
                                   1));
    else
      fmt::print(
          "{} blocks of {} key-value heads; over {} tokens drawn at random, the KL divergence is {:.3g} and the "
          "likeliest token the same at {:.1f} %\n",
          report.grouped, conversion.group->kv_heads, d.tokens, d.divergence, 100 * d.same_top);
    return 0;
  }
};

}  // namespace

void add_group(Commands& commands) {
  auto g = std::make_shared<Group>();
  CLI::App& app = commands.add("group", "Give a model's attention fewer key-value heads, each the mean of several",
                               [g] { return g->run(); });
  app.add_option("in", g->conversion.in, "a model with blocks of softmax attention")->required();
  app.add_option("out", g->conversion.out, "a folder, or a file that ends in .gguf")->required();
  app.add_option("--kv-heads", g->conversion.group->kv_heads, "a divisor of those that it has")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1024}));
  app.add_option("--mixer", g->conversion.group->mixer,
                 "softmax, or key_driven, which deals query heads to them anew while it is trained on")
      ->capture_default_str()
      ->check(CLI::IsMember({"softmax", "key_driven"}));
  add_json_flag(app, g->json);
  app.footer("Example: sennit group runs/llama llama-2kv --kv-heads 2");
}

}  // namespace sennit::cli
