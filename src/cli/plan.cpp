#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/parallel.h"
#include "cli/command.h"
#include "cli/comparison_report.h"
#include "cli/progress_bar.h"
#include "io/json_file.h"
#include "measure/size.h"

namespace sennit::cli {
namespace {

struct Plan {
  std::string path, precision = "bf16";
  std::vector<std::string> sets;
  int64_t rows = 4, length = 512;
  double tokens = 0;
  bool json = false, no_measure = false;

  int run() {
    Json file = io::read_json_file(path);
    for (const std::string& s : sets) set_model_key(file, s);
    const ModelSpec spec = read_model_spec(file, path);
    const measure::ModelSize size(spec, path);
    const int64_t n = size.parameters();
    Json j{{"parameters", n},
           {"parameters_by_part", size.parts()},
           {"blocks", spec.blocks.size()},
           {"flops_per_token", size.flops(length) / length},
           {"state_bytes_at_1k", size.state_bytes(1024)},
           {"state_bytes_at_64k", size.state_bytes(65536)},
           {"inference_weight_bytes", 4 * n},
           {"training", {{"weight_bytes", 4 * n}, {"gradient_bytes", 4 * n}, {"optimizer_bytes", 8 * n}}}};
    if (!no_measure) measure_step(spec, 16 * n, j["training"]);
    if (json)
      fmt::print("{}\n", json_text(j, 1));
    else
      print(j);
    return 0;
  }

  void measure_step(const ModelSpec& spec, int64_t fixed, Json& training) const {
    Context context;
    context.precision = parse_precision(precision, "--precision");
    FlushDenormals flush;
    const auto cost = measure::estimate_training(spec, context, rows, length, path);
    const double rate = cost.seconds > 0 ? static_cast<double>(cost.tokens) / cost.seconds : 0;
    training["activation_bytes"] = std::max<int64_t>(0, cost.peak_bytes - fixed);
    training["peak_bytes"] = std::max(cost.peak_bytes, fixed);
    training["step_seconds"] = cost.seconds, training["step_tokens"] = cost.tokens,
    training["tokens_per_second"] = rate;
    if (tokens > 0 && rate > 0) training["seconds"] = tokens / rate;
  }

  void print(const Json& j) const {
    auto bytes = [](const Json& v) { return bytes_text(v.get<double>()); };
    fmt::print("parameters         {} in {} blocks\n", count_text(j["parameters"].get<double>()),
               j["blocks"].get<int64_t>());
    for (const auto& [part, n] : j["parameters_by_part"].items())
      fmt::print("  {:<16} {}\n", part, count_text(n.get<double>()));
    fmt::print("forward pass       {} operations a token at length {}\n",
               count_text(j["flops_per_token"].get<double>()), length);
    fmt::print("state of a text    {} at 1k tokens, {} at 64k\n", bytes(j["state_bytes_at_1k"]),
               bytes(j["state_bytes_at_64k"]));
    fmt::print("weights to run     {}\n", bytes(j["inference_weight_bytes"]));
    const Json& t = j["training"];
    fmt::print("training memory    weights {}, gradients {}, optimizer {}", bytes(t["weight_bytes"]),
               bytes(t["gradient_bytes"]), bytes(t["optimizer_bytes"]));
    if (!t.contains("peak_bytes")) {
      fmt::print("; activations come on top\n");
      return;
    }
    fmt::print(", activations {}\n                   = {} for steps of {} x {} tokens\n", bytes(t["activation_bytes"]),
               bytes(t["peak_bytes"]), rows, length);
    fmt::print("training speed     about {} tokens/s ({:.2g} s a step) on {}\n",
               count_text(t["tokens_per_second"].get<double>()), t["step_seconds"].get<double>(), machine_text());
    if (t.contains("seconds"))
      fmt::print("{} tokens take about {}\n", count_text(tokens), duration_text(t["seconds"].get<double>()));
  }
};

}  // namespace

void add_plan(Commands& commands) {
  auto p = std::make_shared<Plan>();
  CLI::App& app = commands.add("plan", "Say what a model file will cost before training it", [p] { return p->run(); });
  app.add_option("model", p->path, "model file (JSON)")->required();
  app.add_option("--set", p->sets, "change a setting of the model file: d_model=128 (repeatable)")
      ->allow_extra_args(false);
  app.add_option("--rows", p->rows, "sequences in a step")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16));
  app.add_option("--length", p->length, "tokens of each")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  app.add_option("--tokens", p->tokens, "how long training on so many tokens takes")->check(CLI::Range(1.0, 1e18));
  app.add_option("--precision", p->precision, "of the factors of matrix products")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "bf16"}));
  app.add_flag("--no-measure", p->no_measure, "do not run trial steps of one and two blocks");
  add_json_flag(app, p->json);
  app.footer("Example: sennit plan examples/models/mamba.json --tokens 1e8");
}

}  // namespace sennit::cli
