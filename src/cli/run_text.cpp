#include <fmt/format.h>

#include "base/error.h"
#include "base/parallel.h"
#include "cli/answer_output.h"
#include "cli/progress_bar.h"
#include "cli/run_options.h"
#include "model/dialogue_settings.h"
#include "state/session_file.h"

namespace sennit::cli {
namespace {

constexpr int64_t kLong = 8192;  // a prompt that takes long enough to show how far it is

}  // namespace

int run_text(RunOptions o) {
  const LoadedModel loaded = o.choice.load_with_tokenizer();
  const tokenizers::Tokenizer& tokenizer = *loaded.tokenizer;
  Session session(*loaded.model, o.choice.context());
  std::vector<int32_t> history, waiting;
  if (!o.state_load.empty()) {
    KeptSession kept = load_session(o.state_load, *loaded.model, session.state().cache());
    const auto read = kept.tokens.begin() + kept.state.position;
    history.assign(kept.tokens.begin(), read);
    waiting.assign(read, kept.tokens.end());
    session.restore(std::move(kept.state));
  }
  const std::string text = o.text();
  const bool fresh = history.empty() && waiting.empty();
  const auto ids = fresh ? tokenizer.encode_prompt(text) : tokenizer.encode(text);
  waiting.insert(waiting.end(), ids.begin(), ids.end());
  if (waiting.empty()) fail({"run", "a prompt (-p TEXT, --file FILE, or text on standard input)", "none"});
  if (!o.ignore_end) o.generation.stop_tokens = dialogue_settings(loaded.path, tokenizer).ends;
  AnswerOutput output(o, loaded);
  if (o.echo && o.for_people()) AnswerOutput::show(text);

  FlushDenormals flush;
  const size_t before = history.size() + waiting.size();
  ProgressBar bar(!o.for_people() || o.quiet || std::ssize(waiting) < kLong);
  o.generation.reading = [&](int64_t done, int64_t all) {
    bar.update(static_cast<double>(done), static_cast<double>(all), "reading the prompt");
    return !interrupted();
  };
  std::string answer;
  const GenerationReport report =
      generate(session, tokenizer, waiting, o.generation, history, [&](std::string_view piece) {
        bar.finish();
        answer += piece;
        output.piece(piece);
        return !interrupted();
      });
  bar.finish();
  if (!o.state_save.empty()) save_session(o.state_save, *loaded.model, session.state(), history);
  output.finish(report, answer,
                {history.begin() + static_cast<int64_t>(std::min(before, history.size())), history.end()});
  return report.reason == StopReason::cancelled ? 130 : 0;
}

}  // namespace sennit::cli
