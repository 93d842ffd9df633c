#include "tokenizers/chat_template.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/utf8.h"
#include "io/json_file.h"
#include "io/mapped_file.h"
#include "tokenizers/jinja_evaluator.h"

namespace sennit::tokenizers {

struct ChatTemplate::Parsed {
  std::string source;
  std::vector<jinja::Statement> statements;
};

ChatTemplate::ChatTemplate(std::string source) : parsed_(std::make_unique<Parsed>()) {
  constexpr size_t kMost = 1 << 20;
  if (source.size() > kMost || !is_utf8(source))
    fail({"chat template", fmt::format("at most {} bytes of UTF-8", kMost), fmt::format("{} bytes", source.size())});
  parsed_->source = std::move(source);
  parsed_->statements = jinja::parse(parsed_->source);
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;

std::string ChatTemplate::render(const Json& context) const {
  const std::time_t t = std::time(nullptr);
  std::tm now{};
  localtime_r(&t, &now);
  return render(context, now);
}

std::string ChatTemplate::render(const Json& context, std::tm now) const {
  if (!context.is_object()) fail({"chat template", "an object of variables", context.type_name()});
  return jinja::run(parsed_->statements, parsed_->source, jinja::Value::of_json(context), now);
}

std::string find_chat_template(const std::string& folder) {
  const std::filesystem::path path(folder);
  std::error_code ignored;
  if (std::filesystem::exists(path / "chat_template.jinja", ignored))
    return std::string(io::MappedFile::open((path / "chat_template.jinja").string())->text());
  if (!std::filesystem::exists(path / "tokenizer_config.json", ignored)) return "";
  const Json config = io::read_json_file((path / "tokenizer_config.json").string());
  const auto found = config.is_object() ? config.find("chat_template") : config.end();
  if (found == config.end()) return "";
  if (found->is_string()) return found->get<std::string>();
  for (const Json& one : *found)
    if (one.is_object() && one.value("name", Json()) == "default" && one.contains("template") &&
        one["template"].is_string())
      return one["template"].get<std::string>();
  return "";
}

}  // namespace sennit::tokenizers
