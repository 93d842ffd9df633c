#include <fmt/format.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/conversion.h"
#include "report/table.h"

namespace sennit::cli {
namespace {

struct Distill {
  Conversion conversion{.in = {}, .out = {}, .to = "sennit", .weights = {}, .adapter = {}, .distill = DistillOptions()};
  bool json = false;

  int run() const {
    const ConversionReport report = convert(conversion);
    const LogitDifference d =
        logit_difference(*make_model(read_stored_model(conversion.in)), *make_model(read_stored_model(conversion.out)));
    if (json) {
      Json blocks = Json::array();
      for (const DistilledBlock& b : report.distilled)
        blocks.push_back(
            {{"block", b.block}, {"from", b.from}, {"to", b.to}, {"order", b.order}, {"left_out", b.left_out}});
      fmt::print("{}\n", json_text(Json{{"out", conversion.out},
                                        {"blocks", blocks},
                                        {"tokens", d.tokens},
                                        {"kl_divergence", d.divergence},
                                        {"same_top_token", d.same_top}},
                                   1));
      return 0;
    }
    report::Table table{{{"block", true}, {"from"}, {"to"}, {"order", true}, {"left out", true}}, {}};
    for (const DistilledBlock& b : report.distilled)
      table.add(
          {fmt::format("{}", b.block), b.from, b.to, fmt::format("{}", b.order), fmt::format("{:.2g}", b.left_out)});
    fmt::print(
        "{}over {} tokens drawn at random, the KL divergence is {:.3g} and the likeliest token the same at {:.1f} %\n",
        table.text(), d.tokens, d.divergence, 100 * d.same_top);
    return 0;
  }
};

}  // namespace

void add_distill(Commands& commands) {
  auto d = std::make_shared<Distill>();
  CLI::App& app = commands.add("distill", "Write a model's long convolutions as recurrences with a small state",
                               [d] { return d->run(); });
  app.add_option("in", d->conversion.in, "a model with blocks of hyena")->required();
  app.add_option("out", d->conversion.out, "a folder, or a file that ends in .gguf")->required();
  app.add_option("--order", d->conversion.distill->order, "numbers of state of a filter, at most")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{256}));
  app.add_option(
         "--tolerance", d->conversion.distill->tolerance,
         "of a filter's largest Hankel singular value, what the first one left out may be: a smaller order where "
         "that is enough")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  add_json_flag(app, d->json);
  app.footer("Example: sennit distill runs/hyena hyena-16 --order 16");
}

}  // namespace sennit::cli
