#pragma once
#include <string>

#include "cli/loaded.h"
#include "decoding/generate.h"

namespace sennit::cli {

// What `sennit run` was asked to do.
struct RunOptions {
  ModelChoice choice;
  GenerationOptions generation;
  std::string prompt, file, state_load, state_save;
  bool has_prompt = false, json = false, json_lines = false, quiet = false, echo = false, ignore_end = false;
  bool chat = false, limited = false;  // limited: --max-tokens was given
  std::string system, chat_template;   // the template: a file
  bool embed = false, normalize = false;
  std::string pooling = "auto";

  bool for_people() const { return !json && !json_lines; }
  // -p, --file or standard input; "" when there is none of them.
  std::string text() const;
};

// Each is one way to run, in a file of its own; the value is the exit code.
int run_text(RunOptions options);              // goes on with a text
int run_dialogue(RunOptions options);          // talks
int run_embedding(const RunOptions& options);  // says where texts lie

}  // namespace sennit::cli
