#pragma once
#include <ctime>
#include <memory>
#include <string>

#include "base/fields.h"

namespace sennit::tokenizers {

// A chat template, in the part of Jinja2 that such templates use, with the settings and functions of Hugging Face's
// library (trim_blocks, lstrip_blocks, break and continue, tojson, raise_exception, strftime_now). Templates come from
// outside: what they make and how long they run is bounded.
class ChatTemplate {
 public:
  // Throws Error with line and column for a template that is broken or uses another part of Jinja.
  explicit ChatTemplate(std::string source);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;

  // The text for the variables in `context`, an object: messages, tools, bos_token, add_generation_prompt, ... Throws
  // Error when the template refuses the messages, and where it asks for what is not there.
  std::string render(const Json& context) const;  // at the local time
  std::string render(const Json& context, std::tm now) const;

 private:
  struct Parsed;
  std::unique_ptr<Parsed> parsed_;
};

// The template that a model's folder holds: chat_template.jinja, or the "chat_template" of tokenizer_config.json (the
// one named "default" where there are several); "" when there is none.
std::string find_chat_template(const std::string& folder);

}  // namespace sennit::tokenizers
