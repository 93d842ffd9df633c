#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "cli/run_options.h"

namespace sennit::cli {

// How an answer reaches people or programs: as text with a line of statistics, as one JSON object, or as one JSON
// object for each piece and one for the end.
class AnswerOutput {
 public:
  AnswerOutput(const RunOptions& options, const LoadedModel& loaded) : options_(options), loaded_(loaded) {}

  void piece(std::string_view text);  // of an answer, as it comes
  // `ids` are the answer's tokens.
  void finish(const GenerationReport& report, const std::string& answer, const std::vector<int32_t>& ids) const;

  static void show(std::string_view text);

 private:
  Json scores_json(const std::vector<TokenScore>& scores) const;
  void print_scores(const GenerationReport& report) const;
  std::string text_of(int32_t token) const;
  const RunOptions& options_;
  const LoadedModel& loaded_;
};

}  // namespace sennit::cli
