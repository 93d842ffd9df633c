#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/progress_bar.h"
#include "io/atomic_file.h"
#include "io/json_file.h"
#include "measure/comparison.h"
#include "measure/head_plan.h"
#include "train/run_folder.h"

namespace sennit::cli {
namespace {

measure::Rung rung_of(const std::string& path) {
  measure::CompareOptions only_read;
  only_read.measure = false;
  const measure::RunFacts facts = measure::facts_of(path, only_read);
  if (!(facts.valid_loss > 0)) fail({"plan-heads", "a training run with a validation loss", "none", path});
  const Json settings = train::RunFolder(path).read_settings();
  return {measure::head_shape(read_model_spec(facts.model, path), path),
          settings.at("options").at("length").get<int64_t>(), facts.valid_loss};
}

Json shape_json(const measure::HeadShape& s, const measure::TokenCost& cost, double loss) {
  return {{"d_model", s.d_model},   {"blocks", s.blocks},     {"heads", s.heads},
          {"kv_heads", s.kv_heads}, {"head_dim", s.head_dim}, {"parameters", s.parameters},
          {"flops", cost.flops},    {"bytes", cost.bytes},    {"loss", loss}};
}

struct PlanHeads {
  std::string path, out;
  std::vector<std::string> runs;
  measure::HeadPlanOptions options;
  bool json = false;

  int run() const {
    const ModelSpec spec = read_model_spec(io::read_json_file(path), path);
    std::vector<measure::Rung> ladder;
    for (const std::string& r : runs) ladder.push_back(rung_of(r));
    const measure::HeadLoss loss(ladder);
    const measure::HeadShape given = measure::head_shape(spec, path);
    const auto plan = measure::plan_heads(spec, ladder, options, path);
    const Json j{{"context", options.context},
                 {"ladder_residual", loss.residual()},
                 {"given", shape_json(given, measure::token_cost(given, options.context, options.bytes),
                                      loss(given, options.context))},
                 {"planned", shape_json(plan.shape, plan.cost, plan.loss)},
                 {"share", plan.share},
                 {"model", write_model_spec(plan.model)}};
    if (!out.empty()) io::write_file(out, json_text(j.at("model"), 1) + "\n");
    if (json)
      fmt::print("{}\n", json_text(j, 1));
    else
      print(j);
    return 0;
  }

  void print(const Json& j) const {
    for (const char* which : {"given", "planned"}) {
      const Json& s = j.at(which);
      fmt::print("{:<8} {:>3} heads, {:>3} of keys, of {}; width {}, {} parameters; expected loss {:.4f}\n", which,
                 s.at("heads").get<int64_t>(), s.at("kv_heads").get<int64_t>(), s.at("head_dim").get<int64_t>(),
                 s.at("d_model").get<int64_t>(), count_text(s.at("parameters").get<double>()),
                 s.at("loss").get<double>());
      fmt::print("         a token after {}: {} operations, {} read\n", options.context,
                 count_text(s.at("flops").get<double>()), bytes_text(s.at("bytes").get<double>()));
    }
    fmt::print("planned costs {:.2f} of given; the ladder's losses are met to {:.4f}\n", j.at("share").get<double>(),
               j.at("ladder_residual").get<double>());
  }
};

}  // namespace

void add_plan_heads(Commands& commands) {
  auto p = std::make_shared<PlanHeads>();
  CLI::App& app = commands.add("plan-heads", "Choose head counts and width of a model for a length of context",
                               [p] { return p->run(); });
  app.add_option("model", p->path, "model file (JSON) of softmax attention, which the plan shall beat")->required();
  app.add_option("--ladder", p->runs,
                 "training runs of small models, trained alike, whose head counts and sizes differ: their losses say "
                 "what heads and parameters are worth")
      ->required();
  app.add_option("--context", p->options.context, "tokens that a new token sees")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
  app.add_option("--slack", p->options.slack, "nats that the expected loss may be above that of the given model")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--reach", p->options.reach,
                 "most parameters, as a multiple of those of the largest of the ladder and the given model")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 1e3));
  app.add_option("--weight-bytes", p->options.bytes.weight, "bytes of a weight")
      ->capture_default_str()
      ->check(CLI::Range(0.25, 8.0));
  app.add_option("--cache-bytes", p->options.bytes.cache, "bytes of a number of keys and values")
      ->capture_default_str()
      ->check(CLI::Range(0.25, 8.0));
  app.add_option("--out", p->out, "write the planned model file there");
  add_json_flag(app, p->json);
  app.footer("Example: sennit plan-heads model.json --context 32768 --ladder runs/h1 runs/h2 runs/h4 --out long.json");
}

}  // namespace sennit::cli
