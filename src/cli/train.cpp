#include <fmt/format.h>

#include "cli/command.h"
#include "cli/progress_bar.h"
#include "io/json_file.h"
#include "train/trainer.h"

namespace sennit::cli {
namespace {

struct Train {
  train::RunSettings settings;
  std::vector<std::string> sets;
  bool json = false, quiet = false;

  int run() {
    settings.model = io::read_json_file(settings.model_path);
    for (const std::string& s : sets) set_model_key(settings.model, s);
    ProgressBar bar(json || quiet);
    train::Watcher watcher;
    watcher.note = [&](const std::string& text) { bar.print(text); };
    watcher.step = [&](const train::StepReport& r) {
      bar.update(static_cast<double>(r.step), static_cast<double>(r.steps),
                 fmt::format("step {}/{}  loss {:.4f}  {} tokens/s", r.step, r.steps, r.loss, count_text(r.tokens_per_second)));
    };
    watcher.evaluation = [&](int64_t step, const train::Evaluation& e) {
      bar.print(fmt::format("step {:>6}  valid loss {:.4f}  {:.4f} bits/byte  perplexity {:.2f}", step, e.loss, e.bits_per_byte, e.perplexity));
    };
    const train::RunResult r = train::run(settings, watcher, interrupted());
    bar.finish();
    if (json)
      fmt::print("{}\n", json_text(Json{{"run", settings.out}, {"step", r.step}, {"finished", r.finished}, {"loss", r.loss}, {"valid_loss", r.evaluation.loss},
                              {"valid_bits_per_byte", r.evaluation.bits_per_byte}}));
    else if (!quiet)
      fmt::print("{} after step {}: {}\n", r.finished ? "finished" : "stopped and saved", r.step, settings.out);
    return r.finished ? 0 : 130;
  }
};

}  // namespace

void add_train(Commands& commands) {
  auto t = std::make_shared<Train>();
  CLI::App& app = commands.add("train", "Train a model file on token files, or go on with a run that was stopped", [t] { return t->run(); });
  app.add_option("model", t->settings.model_path, "model file (JSON)")->required();
  app.add_option("--data", t->settings.data, "folder with train.tokens, valid.tokens and the tokenizer (see `sennit tokenize`)")->required();
  app.add_option("--out", t->settings.out, "folder of the run; an existing one is continued")->required();
  app.add_option("--set", t->sets, "change a setting of the model file: d_model=128, blocks.0.heads=8");
  app.add_flag("--quiet", t->quiet, "no progress");
  add_json_flag(app, t->json);
  add_fields(app, t->settings.options.fields(), "Training");
  app.footer("Example: sennit train examples/models/gla.json --data data/tokens --out runs/gla --minutes 5");
}

}  // namespace sennit::cli
