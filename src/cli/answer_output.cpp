#include "cli/answer_output.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/progress_bar.h"
#include "report/table.h"

namespace sennit::cli {
namespace {

double rate(int64_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0;
}

std::string line(const Json& object) {
  return json_text(object);
}

// Line ends and the like as escapes, so that a row of a table stays one.
std::string visible(const std::string& text) {
  const std::string quoted = line(text);
  return quoted.substr(1, quoted.size() - 2);
}

}  // namespace

void AnswerOutput::show(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void AnswerOutput::piece(std::string_view text) {
  if (options_.json) return;
  if (options_.json_lines)
    show(line(Json{{"text", text}}) + "\n");
  else
    show(text);
}

std::string AnswerOutput::text_of(int32_t token) const {
  const tokenizers::Tokenizer& t = *loaded_.tokenizer;
  if (token >= t.vocab_size()) return fmt::format("[{}]", token);
  return t.is_special(token) ? t.piece(token) : t.bytes(token);
}

Json AnswerOutput::scores_json(const std::vector<TokenScore>& scores) const {
  Json all = Json::array();
  for (const TokenScore& s : scores) {
    Json entry{{"id", s.token}, {"text", text_of(s.token)}, {"logprob", nullptr}};
    if (s.log_probability) entry["logprob"] = *s.log_probability;
    for (const auto& [id, p] : s.top) entry["top"].push_back({{"id", id}, {"text", text_of(id)}, {"logprob", p}});
    all.push_back(entry);
  }
  return all;
}

void AnswerOutput::print_scores(const GenerationReport& report) const {
  report::Table table{{{"token"}, {"log-probability", true}, {"likeliest"}}, {}};
  double sum = 0;
  for (const auto* part : {&report.prompt_scores, &report.scores})
    for (const TokenScore& s : *part) {
      std::string top;
      for (const auto& [id, p] : s.top)
        top += fmt::format("{}{} {:.4f}", top.empty() ? "" : ", ", visible(text_of(id)), p);
      table.add({visible(text_of(s.token)), s.log_probability ? fmt::format("{:.6f}", *s.log_probability) : "", top});
      sum += s.log_probability.value_or(0);
    }
  fmt::print("{}sum {:.6f}\n", table.text(), sum);
}

void AnswerOutput::finish(const GenerationReport& r, const std::string& answer, const std::vector<int32_t>& ids) const {
  const double prompt_rate = rate(r.prompt_tokens, r.prompt_seconds), answer_rate = rate(r.tokens, r.seconds);
  if (!options_.for_people()) {
    Json object = {{"text", answer},
                   {"tokens", r.tokens},
                   {"ids", ids},
                   {"reason", to_string(r.reason)},
                   {"prompt_tokens", r.prompt_tokens},
                   {"prompt_seconds", r.prompt_seconds},
                   {"seconds", r.seconds},
                   {"prompt_tokens_per_second", prompt_rate},
                   {"tokens_per_second", answer_rate},
                   {"checkpoint", loaded_.path}};
    if (options_.json_lines) object["done"] = true;
    if (options_.generation.scores >= 0) {
      if (options_.echo) object["prompt_logprobs"] = scores_json(r.prompt_scores);
      object["logprobs"] = scores_json(r.scores);
    }
    show(line(object) + "\n");
    return;
  }
  if (!answer.ends_with('\n')) fmt::print("\n");
  if (options_.generation.scores >= 0) print_scores(r);
  std::fflush(stdout);
  if (!options_.quiet)
    fmt::print(stderr, "{} prompt tokens at {}/s, {} tokens at {}/s ({})\n", r.prompt_tokens, count_text(prompt_rate),
               r.tokens, count_text(answer_rate), to_string(r.reason));
}

}  // namespace sennit::cli
