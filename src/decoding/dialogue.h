#pragma once
#include <nlohmann/json.hpp>
#include <optional>

#include "decoding/generate.h"
#include "model/dialogue_settings.h"

namespace sennit {

// A conversation with a model. What was said is kept as the session's state: a turn reads its own text and nothing
// before it, as long as the template leaves the turns before as they were; where it changes the answer before (some
// leave out what was thought), that one answer is read again.
class Dialogue {
 public:
  // `system` is what the template makes of it; "" for none. Without a template (`settings.chat_template` empty) turns
  // are lines of one text that the model goes on with. The model and the tokenizer must outlive it. Throws Error for a
  // broken template.
  Dialogue(Model& model, const tokenizers::Tokenizer& tokenizer, Context context, const DialogueSettings& settings,
           std::string system);

  // Answers `user`; `emit` as in generate(). A cancelled answer counts as said. The tokens that end an answer are added
  // to options.stop_tokens. After an Error the turn is forgotten, and the next one reads all before it again.
  GenerationReport answer(const std::string& user, GenerationOptions options,
                          const std::function<bool(std::string_view)>& emit);
  void clear();  // forgets all but the system's words

  // What was said, as JSON for resume(), which goes on from it and from the state and the tokens (history()) of that
  // moment in place of what was said here. Throws Error naming `path` where it is not such a text.
  std::string said() const;
  void resume(SequenceState state, std::vector<int32_t> history, const std::string& said, const std::string& path);

  bool has_template() const { return template_.has_value(); }
  const Json& messages() const { return messages_; }  // [{"role": ..., "content": ...}]
  Session& session() { return session_; }
  const std::vector<int32_t>& history() const { return history_; }
  const std::vector<int32_t>& answered() const { return answered_; }  // the tokens of the last answer

 private:
  struct Point {
    Session session;
    std::vector<int32_t> history;
    std::string text;
  };
  std::string rendered(const Json& messages, bool ask) const;
  std::vector<int32_t> encoded(std::string_view text) const;
  std::vector<int32_t> unread(const std::string& text);
  int32_t end_of_answers() const;
  void forget();
  void unsay();

  Model& model_;
  const tokenizers::Tokenizer& tokenizer_;
  Context context_;
  std::optional<tokenizers::ChatTemplate> template_;
  std::vector<int32_t> ends_;
  Json messages_ = Json::array();
  Session session_;
  std::vector<int32_t> history_;  // read, or to be read next
  std::vector<int32_t> answered_;
  std::string text_;            // what history_ says
  std::optional<Point> asked_;  // before the last answer
};

}  // namespace sennit
