#include <fmt/ranges.h>
#include <stdlib.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/parallel.h"
#include "cli/loaded.h"
#include "cli/progress_bar.h"
#include "data/tokenize.h"
#include "measure/spans.h"
#include "train/evaluate.h"
#include "train/run_folder.h"

namespace sennit::cli {
namespace {

// A folder for the token file of a plain text, gone afterwards.
class Scratch {
 public:
  Scratch() {
    std::string pattern = (std::filesystem::temp_directory_path() / "sennit-XXXXXX").string();
    if (!::mkdtemp(pattern.data()))
      fail({"eval", "a folder for temporary files that can be written", std::strerror(errno), pattern});
    path_ = pattern;
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct Eval {
  ModelChoice choice;
  train::EvaluateOptions options;
  std::string data, split = "valid";
  std::vector<std::string> texts;
  int64_t window = 0, most_full = 2;
  bool json = false, quiet = false;

  // --data, else what a training run was trained on.
  std::string data_folder() const {
    if (!data.empty()) return data;
    const train::RunFolder run(choice.checkpoint);
    const Json settings = run.begun() ? run.read_settings() : Json::object();
    if (settings.contains("data") && settings.at("data").is_string()) return settings.at("data").get<std::string>();
    fail({"eval", "--data FOLDER or --text FILE", "neither"});
  }

  int run() {
    if (options.stride > options.length)
      fail({"eval", fmt::format("--stride of at most the length, {}", options.length), std::to_string(options.stride)});
    const LoadedModel loaded = choice.load_with_tokenizer();
    if (window > 0 && measure::full_blocks(loaded.model->spec()).empty())
      fail({"eval", "a model with blocks of exact attention", "none", "--window"});
    std::unique_ptr<Scratch> scratch;
    std::string path;
    if (texts.empty()) {
      path = data_folder() + "/" + split + ".tokens";
    } else {
      scratch = std::make_unique<Scratch>();
      path = scratch->path() + "/text.tokens";
      data::tokenize_files(texts, path, *loaded.tokenizer);
    }
    auto file = std::make_shared<data::TokenFile>(path);
    file->check_tokenizer(*loaded.tokenizer);
    options.context = choice.context();
    ProgressBar bar(json || quiet);
    FlushDenormals flush;
    const auto measured = [&](Model& model) {
      return train::evaluate(model, *loaded.tokenizer, file, options, [&](int64_t done, int64_t total) {
        bar.update(static_cast<double>(done), static_cast<double>(total),
                   fmt::format("{} of {} tokens", count_text(double(done)), count_text(double(total))));
        return !interrupted();
      });
    };
    const train::Evaluation e = measured(*loaded.model);
    const auto placements = window > 0 && !interrupted()
                                ? placed(*loaded.model, e.loss, [&](Model& model) { return measured(model).loss; })
                                : std::vector<measure::Placement>{};
    bar.finish();
    print(e, placements, loaded.path, texts.empty() ? path : fmt::format("{}", fmt::join(texts, ", ")));
    return interrupted() ? 130 : 0;
  }

  // With windows in all blocks of exact attention but a few.
  std::vector<measure::Placement> placed(Model& model, double goal, const std::function<double(Model&)>& loss) const {
    const std::vector<size_t> blocks = measure::full_blocks(model.spec());
    return measure::place_full_blocks(blocks, static_cast<size_t>(most_full), goal, [&](const std::set<size_t>& full) {
      return interrupted() ? goal : loss(*measure::with_windows(model, blocks, full, window));
    });
  }

  void print(const train::Evaluation& e, const std::vector<measure::Placement>& placements, const std::string& model,
             const std::string& what) const {
    const double rate = e.seconds > 0 ? static_cast<double>(e.tokens) / e.seconds : 0;
    if (json) {
      Json spans = Json::array();
      for (const auto& p : placements) spans.push_back({{"full", p.full}, {"loss", p.loss}});
      fmt::print("{}\n", json_text(Json{{"checkpoint", model},
                                        {"data", what},
                                        {"loss", e.loss},
                                        {"bits_per_byte", e.bits_per_byte},
                                        {"perplexity", e.perplexity},
                                        {"tokens", e.tokens},
                                        {"bytes", e.bytes},
                                        {"seconds", e.seconds},
                                        {"tokens_per_second", rate},
                                        {"spans", spans},
                                        {"complete", !interrupted()}}));
      return;
    }
    fmt::print(
        "loss           {:.4f} nats a token\nbits per byte  {:.4f}\nperplexity     {:.2f}\n{} tokens ({}) of {} at {} "
        "tokens/s{}\n",
        e.loss, e.bits_per_byte, e.perplexity, e.tokens, bytes_text(double(e.bytes)), what, count_text(rate),
        interrupted() ? ", stopped early" : "");
    for (const auto& p : placements)
      fmt::print("loss {:.4f} ({:+.4f}) with windows of {}, full attention in {}\n", p.loss, p.loss - e.loss, window,
                 p.full.empty() ? "no block" : fmt::format("blocks {}", fmt::join(p.full, ", ")));
  }
};

}  // namespace

void add_eval(Commands& commands) {
  auto e = std::make_shared<Eval>();
  CLI::App& app = commands.add("eval", "Measure how well a model predicts a text", [e] {
    interrupted();
    return e->run();
  });
  e->choice.add(app);
  auto* data = app.add_option("--data", e->data, "folder of token files; default: what the run was trained on");
  auto* split = app.add_option("--split", e->split, "which of its files: train, valid or test")->capture_default_str();
  app.add_option("--text", e->texts, "plain text or .jsonl files instead of token files")
      ->excludes(data)
      ->excludes(split);
  constexpr int64_t kMost = int64_t{1} << 24;
  app.add_option("--length", e->options.length, "tokens in a window")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, kMost));
  app.add_option("--stride", e->options.stride,
                 "tokens between windows; 0: the length; smaller gives every token more context")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, kMost));
  app.add_option("--rows", e->options.rows, "windows at a time")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16));
  app.add_option("--max-tokens", e->options.max_tokens, "stop after so many; 0: the whole file")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 50));
  app.add_option("--window", e->window,
                 "tell which blocks need exact attention to everything: the loss with windows of so many tokens in "
                 "the others; 0: do not")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, kMost));
  app.add_option("--full", e->most_full, "how many blocks to leave full at most, the best ones first")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 16));
  app.add_flag("--quiet", e->quiet, "no progress");
  add_json_flag(app, e->json);
  app.footer("Example: sennit eval runs/gla --split test --length 1024");
}

}  // namespace sennit::cli
