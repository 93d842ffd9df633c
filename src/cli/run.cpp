#include <unistd.h>

#include <iostream>
#include <iterator>

#include "base/error.h"
#include "cli/run_options.h"
#include "io/mapped_file.h"

namespace sennit::cli {
namespace {

bool stdin_is_terminal() {
  return isatty(STDIN_FILENO) == 1;
}

int run(const RunOptions& o) {
  if (o.embed) return run_embedding(o);
  const bool nothing = !o.has_prompt && o.file.empty() && o.state_load.empty();
  if (o.chat || !o.system.empty() || !o.chat_template.empty() || (nothing && stdin_is_terminal() && o.for_people()))
    return run_dialogue(o);
  return run_text(o);
}

void add_options(CLI::App& app, const std::shared_ptr<RunOptions>& r) {
  r->choice.add(app);
  auto* text = app.add_option_function<std::string>(
      "-p,--prompt", [r](const std::string& t) { r->prompt = t, r->has_prompt = true; }, "the text to continue");
  app.add_option("--file", r->file, "read the prompt from a file; - for standard input")->excludes(text);
  app.add_option_function<int64_t>(
         "--max-tokens", [r](int64_t n) { r->generation.max_tokens = n, r->limited = true; },
         "longest answer; default: 256, in a chat with a template 4096")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
  app.add_option("--stop", r->generation.stop, "end the answer before this text (repeatable)")->allow_extra_args(false);
  app.add_flag("--ignore-end", r->ignore_end, "go on after the end of a text");
  app.add_option("--state-save", r->state_save, "write the state and the tokens to a file at the end");
  app.add_option("--state-load", r->state_load, "go on, to the bit, from a file written with --state-save");
  app.add_flag("--echo", r->echo, "print the prompt before the answer; with --logprobs, score it too");
  app.add_option("--logprobs", r->generation.scores,
                 "log-probabilities of the tokens, and of so many of the likeliest in each place")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20));
  app.add_flag("--quiet", r->quiet, "no line of statistics");
  add_json_flag(app, r->json);
  app.add_flag("--json-lines", r->json_lines,
               "print a JSON object for each piece of text, and one with \"done\" at the end");
}

}  // namespace

std::string RunOptions::text() const {
  if (has_prompt) return prompt;
  if (!file.empty() && file != "-") return std::string(io::MappedFile::open(file)->text());
  if (file == "-" || (state_load.empty() && !stdin_is_terminal()))
    return {std::istreambuf_iterator<char>(std::cin), {}};
  return "";
}

void add_run(Commands& commands) {
  auto r = std::make_shared<RunOptions>();
  CLI::App& app = commands.add("run", "Continue a text with a model, talk with it, or embed texts", [r] {
    interrupted();
    return run(*r);
  });
  add_options(app, r);
  app.add_flag(
         "--chat", r->chat,
         "talk, by the model's chat template; the default on a terminal without a prompt. Without a terminal each "
         "line of standard input is a turn, with --json-lines as JSON")
      ->group("Chat");
  app.add_option("--system", r->system, "the system prompt of a chat")->group("Chat");
  app.add_option("--chat-template", r->chat_template, "a file with a Jinja template instead of the model's")
      ->group("Chat");
  app.add_flag("--embed", r->embed, "print the text's embedding; a file or standard input has a text a line")
      ->group("Embedding");
  app.add_option("--pooling", r->pooling, "how a text's rows become one: auto is what the model says, else mean")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "mean", "cls", "last"}))
      ->group("Embedding");
  app.add_flag("--normalize", r->normalize, "scale embeddings to length 1")->group("Embedding");
  add_fields(app, r->generation.sampling.fields(), "Sampling");
  app.footer("Example: sennit run runs/gla -p \"Once upon a time\" --max-tokens 100 --temperature 0.7");
}

}  // namespace sennit::cli
