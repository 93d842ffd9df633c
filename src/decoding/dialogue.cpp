#include "decoding/dialogue.h"

#include <algorithm>

#include "base/error.h"
#include "io/json_file.h"

namespace sennit {
namespace {

using tokenizers::PromptOptions;
using tokenizers::Tokenizer;

// With the names of special tokens in it turned into those tokens.
std::vector<int32_t> with_special(const Tokenizer& t, std::string_view text) {
  return t.encode_prompt(text, PromptOptions{.add_special = false, .parse_special = true});
}

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  return first == text.npos ? "" : text.substr(first, text.find_last_not_of(" \t\r\n") + 1 - first);
}

}  // namespace

Dialogue::Dialogue(Model& model, const Tokenizer& tokenizer, Context context, const DialogueSettings& settings,
                   std::string system)
    : model_(model), tokenizer_(tokenizer), context_(context), session_(model, context) {
  if (!settings.chat_template.empty()) template_.emplace(settings.chat_template);
  ends_ = settings.ends;
  if (template_)
    if (const auto end = end_of_answers(); end >= 0) ends_.push_back(end);
  if (!system.empty()) messages_.push_back({{"role", "system"}, {"content", std::move(system)}});
}

// The token that the template writes after an answer; -1 where it writes none.
int32_t Dialogue::end_of_answers() const {
  const std::string mark = "mark of an answer";
  try {
    const Json turns = {{{"role", "user"}, {"content", "x"}}, {{"role", "assistant"}, {"content", mark}}};
    const std::string text = rendered(turns, false);
    const size_t at = text.find(mark);
    if (at == text.npos) return -1;
    const auto ids = with_special(tokenizer_, std::string_view(text).substr(at + mark.size()));
    return !ids.empty() && tokenizer_.is_special(ids[0]) ? ids[0] : -1;
  } catch (const Error&) {
    return -1;  // a template that wants other turns than these; the tokens of the model's files end its answers
  }
}

std::string Dialogue::rendered(const Json& messages, bool ask) const {
  if (!template_) {
    std::string text;
    for (const Json& m : messages) {
      if (!text.empty() && m.at("role") == "user") text += '\n';
      text += m.at("content").get<std::string>();
    }
    return text;
  }
  Json context{{"messages", messages}, {"add_generation_prompt", ask}};
  const auto s = tokenizer_.special();
  for (const auto& [name, id] :
       {std::pair{"bos_token", s.bos}, {"eos_token", s.eos}, {"unk_token", s.unk}, {"pad_token", s.pad}})
    if (id >= 0) context[name] = tokenizer_.piece(id);
  return template_->render(context);
}

// What a message says makes no special token, even where it spells one.
std::vector<int32_t> Dialogue::encoded(std::string_view text) const {
  if (!template_)
    return history_.empty() ? tokenizer_.encode_prompt(text, {.add_special = true, .parse_special = false})
                            : tokenizer_.encode(text);
  std::vector<int32_t> all;
  const auto add = [&all](const std::vector<int32_t>& ids) { all.insert(all.end(), ids.begin(), ids.end()); };
  for (const Json& m : messages_) {
    const std::string content = m.at("content");
    const std::string_view words = trimmed(content);
    if (words.empty() || with_special(tokenizer_, words) == tokenizer_.encode(words)) continue;
    const size_t at = text.find(words);
    if (at == text.npos) continue;
    if (at > 0) add(with_special(tokenizer_, text.substr(0, at)));
    add(tokenizer_.encode(words));
    text = text.substr(at + words.size());
  }
  if (!text.empty()) add(with_special(tokenizer_, text));
  return all;
}

void Dialogue::forget() {
  session_ = Session(model_, context_);
  asked_.reset();
  history_.clear();
  text_.clear();
}

void Dialogue::clear() {
  forget();
  const bool system = !messages_.empty() && messages_[0].at("role") == "system";
  messages_ = system ? Json::array({messages_[0]}) : Json::array();
}

std::string Dialogue::said() const {
  return json_text({{"messages", messages_}, {"text", text_}});
}

void Dialogue::resume(SequenceState state, std::vector<int32_t> history, const std::string& said,
                      const std::string& path) {
  const auto text_at = [](const Json& of, const char* key) {
    return of.is_object() && of.contains(key) && of.at(key).is_string();
  };
  const auto fits = [&](const Json& j) {
    return text_at(j, "text") && j.contains("messages") && j.at("messages").is_array() &&
           std::all_of(j.at("messages").begin(), j.at("messages").end(),
                       [&](const Json& m) { return text_at(m, "role") && text_at(m, "content"); });
  };
  const Json all = said.empty() ? Json() : io::parse_json(said, path);
  if (!fits(all))
    fail({"dialogue", "the state of a dialogue", said.empty() ? "one of a text alone" : "another note", path});
  forget();
  messages_ = all.at("messages");
  text_ = all.at("text").get<std::string>();
  history_ = std::move(history);
  session_.restore(std::move(state));
}

// Back to the question, before its answer.
void Dialogue::unsay() {
  session_ = std::move(asked_->session);
  history_ = std::move(asked_->history);
  text_ = std::move(asked_->text);
  asked_.reset();
}

std::vector<int32_t> Dialogue::unread(const std::string& text) {
  if (!text.starts_with(text_) && asked_) unsay();
  if (!text.starts_with(text_)) forget();
  return encoded(std::string_view(text).substr(text_.size()));
}

GenerationReport Dialogue::answer(const std::string& user, GenerationOptions options,
                                  const std::function<bool(std::string_view)>& emit) {
  messages_.push_back({{"role", "user"}, {"content", user}});
  options.stop_tokens.insert(options.stop_tokens.end(), ends_.begin(), ends_.end());
  GenerationOptions listening = options;
  listening.max_tokens = 0;
  answered_.clear();
  try {
    const std::string text = rendered(messages_, true);
    const std::vector<int32_t> ids = unread(text);
    if (ids.empty() && !session_.has_logits()) fail({"dialogue", "something to answer", "an empty text"});
    const GenerationReport heard = generate(session_, tokenizer_, ids, listening, history_, emit);
    if (heard.reason == StopReason::cancelled) {
      messages_.erase(messages_.size() - 1);
      forget();
      return heard;
    }
    text_ = text;
    asked_.emplace(Point{session_.snapshot(), history_, text_});
    std::string said;
    GenerationReport report = generate(session_, tokenizer_, {}, options, history_, [&](std::string_view piece) {
      said += piece;
      return emit(piece);
    });
    report.prompt_tokens = heard.prompt_tokens, report.prompt_seconds = heard.prompt_seconds;
    report.prompt_scores = heard.prompt_scores;
    messages_.push_back({{"role", "assistant"}, {"content", said}});
    answered_.assign(history_.begin() + std::ssize(asked_->history), history_.end());
    text_ += said;
    if (report.reason == StopReason::stop_text) unsay();  // the state has read the stop text, which is not part of it
    return report;
  } catch (const Error&) {
    messages_.erase(messages_.size() - 1);
    forget();
    throw;
  }
}

}  // namespace sennit
