#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/parallel.h"
#include "cli/answer_output.h"
#include "cli/progress_bar.h"
#include "cli/run_options.h"
#include "decoding/dialogue.h"
#include "io/json_file.h"
#include "io/mapped_file.h"
#include "state/session_file.h"

namespace sennit::cli {
namespace {

constexpr int64_t kMostOfATurn = 4096;  // tokens, where the model ends its answers itself
constexpr size_t kMostOfALine = 16 << 20;

constexpr const char* kHelp =
    "/clear       forget what was said\n"
    "/save FILE   keep the dialogue; --chat --state-load FILE goes on with it\n"
    "/quit        end; Ctrl-D too\n"
    "A line that ends with \\ goes on in the next. Ctrl-C stops an answer.\n";

// Lines of standard input, which Ctrl-C interrupts.
class Lines {
 public:
  enum class Got { line, end, interrupted };
  Got next(std::string& line) {
    for (;;) {
      if (const size_t end = waiting_.find('\n'); end != waiting_.npos) {
        line = waiting_.substr(0, end);
        waiting_.erase(0, end + 1);
        return Got::line;
      }
      pollfd input{STDIN_FILENO, POLLIN, 0};
      const int ready = interrupted() ? -1 : ::poll(&input, 1, -1);
      if (interrupted()) return Got::interrupted;
      char buffer[4096];
      const ssize_t n = ready > 0 ? ::read(STDIN_FILENO, buffer, sizeof buffer) : 0;
      if (ready < 0 && errno == EINTR) continue;
      if (n <= 0) {
        line = std::exchange(waiting_, {});
        return line.empty() ? Got::end : Got::line;
      }
      waiting_.append(buffer, static_cast<size_t>(n));
      if (waiting_.size() > kMostOfALine)
        fail({"run", fmt::format("lines of at most {} bytes", kMostOfALine), "more", "standard input"});
    }
  }

 private:
  std::string waiting_;
};

class Talk {
 public:
  explicit Talk(RunOptions o)
      : options_(std::move(o)),
        loaded_(options_.choice.load_with_tokenizer()),
        dialogue_(*loaded_.model, *loaded_.tokenizer, options_.choice.context(), settings(), options_.system),
        output_(options_, loaded_),
        terminal_(options_.for_people() && isatty(STDIN_FILENO) && !options_.has_prompt) {
    if (dialogue_.has_template() && !options_.limited) options_.generation.max_tokens = kMostOfATurn;
    if (!options_.state_load.empty()) {
      KeptSession kept = load_session(options_.state_load, *loaded_.model, options_.choice.context().cache);
      dialogue_.resume(std::move(kept.state), std::move(kept.tokens), kept.note, options_.state_load);
    }
    options_.generation.reading = [](int64_t, int64_t) { return !interrupted(); };
  }

  int run() {
    FlushDenormals flush;
    if (options_.has_prompt || !options_.file.empty()) {
      turn(options_.text());
    } else {
      greet();
      while (step()) {
      }
    }
    if (!options_.state_save.empty()) save(options_.state_save);
    return interrupted() && !terminal_ ? 130 : 0;
  }

 private:
  DialogueSettings settings() const {
    DialogueSettings s = dialogue_settings(loaded_.path, *loaded_.tokenizer);
    if (!options_.chat_template.empty()) s.chat_template = io::MappedFile::open(options_.chat_template)->text();
    if (options_.ignore_end) s.ends.clear();
    return s;
  }

  void greet() const {
    if (!terminal_ || options_.quiet) return;
    fmt::print(stderr, "{}: {} parameters. {}Ctrl-C stops an answer, Ctrl-D ends, /help says more.\n", loaded_.path,
               count_text(static_cast<double>(loaded_.model->parameter_count())),
               dialogue_.has_template() ? "" : "It has no chat template: it goes on with the text you write. ");
  }

  // One turn; false at the end.
  bool step() {
    std::string text, line;
    do {
      if (terminal_) AnswerOutput::show(text.empty() ? "> " : ". ");
      const Lines::Got got = lines_.next(line);
      if (got == Lines::Got::end) {
        if (terminal_) AnswerOutput::show("\n");
        return false;
      }
      if (got == Lines::Got::interrupted) {
        if (!terminal_) return false;
        forget_interrupt();
        AnswerOutput::show("\n");
        return true;
      }
      if (!text.empty()) text.back() = '\n';
      text += line;
    } while (terminal_ && line.ends_with('\\'));
    if (text.empty()) return true;
    if (terminal_ && text[0] == '/') return command(text);
    turn(options_.json_lines ? said(text) : text);
    if (terminal_) forget_interrupt();
    return terminal_ || !interrupted();
  }

  // A message as a line of JSON: a text, or an object with "content".
  static std::string said(const std::string& line) {
    const Json message = io::parse_json(line, "standard input");
    const Json text = message.is_object() ? message.value("content", Json()) : message;
    if (!text.is_string())
      fail({"run", "a text or an object with a text \"content\" in each line", line.substr(0, 60), "standard input"});
    return text.get<std::string>();
  }

  bool command(const std::string& text) {
    try {
      if (text == "/quit" || text == "/exit") return false;
      if (text == "/clear")
        dialogue_.clear();
      else if (text.starts_with("/save "))
        save(text.substr(6));
      else
        fmt::print(stderr, "{}", kHelp);
    } catch (const Error& e) {
      fmt::print(stderr, "{}\n", e.what());
    }
    return true;
  }

  void turn(const std::string& text) {
    std::string answer;
    try {
      const GenerationReport report = dialogue_.answer(text, options_.generation, [&](std::string_view piece) {
        answer += piece;
        output_.piece(piece);
        return !interrupted();
      });
      output_.finish(report, answer, dialogue_.answered());
    } catch (const Error& e) {
      if (!terminal_) throw;
      fmt::print(stderr, "{}\n", e.what());
    }
  }

  void save(const std::string& path) {
    save_session(path, *loaded_.model, dialogue_.session().state(), dialogue_.history(), dialogue_.said());
  }

  RunOptions options_;
  LoadedModel loaded_;
  Dialogue dialogue_;
  AnswerOutput output_;
  Lines lines_;
  bool terminal_;
};

}  // namespace

int run_dialogue(RunOptions options) {
  if (!options.state_load.empty() && !options.system.empty())
    fail({"run", "--system, or --state-load of a dialogue that has its own", "both"});
  return Talk(std::move(options)).run();
}

}  // namespace sennit::cli
