#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <iterator>

#include "base/error.h"
#include "base/parallel.h"
#include "cli/loaded.h"
#include "cli/progress_bar.h"
#include "decoding/generate.h"
#include "io/mapped_file.h"
#include "state/state_file.h"

namespace sennit::cli {
namespace {

constexpr int64_t kPiece = 512;  // of a prompt: between two pieces Ctrl-C is heard

struct Run {
  ModelChoice choice;
  GenerationOptions options;
  std::string prompt, file, state_load, state_save;
  bool has_prompt = false, json = false, quiet = false, echo = false, ignore_end = false;

  std::string prompt_text() const {
    if (has_prompt) return prompt;
    if (!file.empty() && file != "-") return std::string(io::MappedFile::open(file)->text());
    if (file == "-" || (state_load.empty() && !isatty(STDIN_FILENO)))
      return {std::istreambuf_iterator<char>(std::cin), {}};
    return "";
  }

  int run() {
    const LoadedModel loaded = choice.load_with_tokenizer();
    const tokenizers::Tokenizer& tokenizer = *loaded.tokenizer;
    Session session(*loaded.model, choice.context());
    std::vector<int32_t> history, waiting;
    if (!state_load.empty()) resume(*loaded.model, session, history, waiting);
    const std::string text = prompt_text();
    const auto ids = tokenizer.encode(text);
    waiting.insert(waiting.end(), ids.begin(), ids.end());
    if (waiting.empty()) fail({"run", "a prompt (-p TEXT, --file FILE, or text on standard input)", "none"});
    if (!ignore_end && tokenizer.special().eos >= 0) options.stop_tokens.push_back(tokenizer.special().eos);
    if (echo && !json) show(text);

    FlushDenormals flush;
    const size_t before = history.size() + waiting.size();
    std::string answer;
    const GenerationReport report = answer_to(waiting, session, tokenizer, history, answer);
    if (!state_save.empty())
      save_states(state_save, {&session.state()}, loaded.model->state_specs(), model_tag(*loaded.model), {history});
    print(report, answer, {history.begin() + static_cast<int64_t>(std::min(before, history.size())), history.end()},
          loaded.path);
    return report.reason == StopReason::cancelled ? 130 : 0;
  }

  void resume(const Model& model, Session& session, std::vector<int32_t>& history, std::vector<int32_t>& waiting) {
    std::vector<std::vector<int32_t>> tokens;
    auto states = load_states(state_load, model.state_specs(), model_tag(model), &tokens);
    if (states.size() != 1) fail({"run", "the state of one sequence", std::to_string(states.size()), state_load});
    if (!tokens.empty()) {
      for (const int32_t t : tokens[0])
        if (t < 0 || t >= model.spec().vocab)
          fail({"run", fmt::format("token ids below {}", model.spec().vocab), std::to_string(t), state_load});
      history.assign(tokens[0].begin(), tokens[0].begin() + states[0].position);
      waiting.assign(tokens[0].begin() + states[0].position, tokens[0].end());
    }
    session.restore(std::move(states[0]));
  }

  // All of the prompt but its last piece is read here, where it can be watched and stopped.
  GenerationReport answer_to(std::span<const int32_t> tokens, Session& session, const tokenizers::Tokenizer& tokenizer,
                             std::vector<int32_t>& history, std::string& answer) {
    const int64_t all = std::ssize(tokens);
    const auto start = std::chrono::steady_clock::now();
    ProgressBar bar(json || quiet || all < 16 * kPiece);
    while (std::ssize(tokens) > kPiece && !interrupted()) {
      session.feed(tokens.first(kPiece));
      history.insert(history.end(), tokens.begin(), tokens.begin() + kPiece);
      tokens = tokens.subspan(kPiece);
      bar.update(static_cast<double>(all - std::ssize(tokens)), static_cast<double>(all), "reading the prompt");
    }
    bar.finish();
    const double spent = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (interrupted()) {
      history.insert(history.end(), tokens.begin(), tokens.end());  // a saved state reads them later
      return {.reason = StopReason::cancelled, .prompt_tokens = all - std::ssize(tokens), .prompt_seconds = spent};
    }
    GenerationReport report = generate(session, tokenizer, tokens, options, history, [&](std::string_view piece) {
      answer += piece;
      if (!json) show(piece);
      return !interrupted();
    });
    report.prompt_tokens = all, report.prompt_seconds += spent;
    return report;
  }

  static void show(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

  void print(const GenerationReport& r, const std::string& answer, const std::vector<int32_t>& ids,
             const std::string& path) const {
    auto rate = [](int64_t tokens, double seconds) {
      return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0;
    };
    const double prompt_rate = rate(r.prompt_tokens, r.prompt_seconds), answer_rate = rate(r.tokens, r.seconds);
    if (json) {
      const Json object = {{"text", answer},
                           {"tokens", r.tokens},
                           {"ids", ids},
                           {"reason", to_string(r.reason)},
                           {"prompt_tokens", r.prompt_tokens},
                           {"prompt_seconds", r.prompt_seconds},
                           {"seconds", r.seconds},
                           {"prompt_tokens_per_second", prompt_rate},
                           {"tokens_per_second", answer_rate},
                           {"checkpoint", path}};
      fmt::print("{}\n", object.dump(-1, ' ', false, Json::error_handler_t::replace));
      return;
    }
    if (!answer.ends_with('\n')) fmt::print("\n");
    std::fflush(stdout);
    if (!quiet)
      fmt::print(stderr, "{} prompt tokens at {}/s, {} tokens at {}/s ({})\n", r.prompt_tokens, count_text(prompt_rate),
                 r.tokens, count_text(answer_rate), to_string(r.reason));
  }
};

}  // namespace

void add_run(Commands& commands) {
  auto r = std::make_shared<Run>();
  CLI::App& app = commands.add("run", "Continue a text with a model", [r] {
    interrupted();
    return r->run();
  });
  r->choice.add(app);
  auto* text = app.add_option_function<std::string>(
      "-p,--prompt", [r](const std::string& t) { r->prompt = t, r->has_prompt = true; }, "the text to continue");
  app.add_option("--file", r->file, "read the prompt from a file; - for standard input")->excludes(text);
  app.add_option("--max-tokens", r->options.max_tokens, "longest answer")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
  app.add_option("--stop", r->options.stop, "end the answer before this text (repeatable)")->allow_extra_args(false);
  app.add_flag("--ignore-end", r->ignore_end, "go on after the end of a text");
  app.add_option("--state-save", r->state_save, "write the state and the tokens to a file at the end");
  app.add_option("--state-load", r->state_load, "go on, to the bit, from a file written with --state-save");
  app.add_flag("--echo", r->echo, "print the prompt before the answer");
  app.add_flag("--quiet", r->quiet, "no line of statistics");
  add_json_flag(app, r->json);
  add_fields(app, r->options.sampling.fields(), "Sampling");
  app.footer("Example: sennit run runs/gla -p \"Once upon a time\" --max-tokens 100 --temperature 0.7");
}

}  // namespace sennit::cli
