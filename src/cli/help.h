#pragma once
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace sennit::cli {

// What help, the manual and completions say about commands, read off the app.
struct OptionHelp {
  std::vector<std::string> names;  // "-p", "--prompt"; one bare name for a positional
  bool positional = false, required = false;
  std::string value;                 // what follows it: "N", "X", "TEXT", "{f32,bf16}"; empty for a flag
  std::vector<std::string> choices;  // when these are all that may follow
  std::string help, fallback, group;
};

struct CommandHelp {
  std::string name;  // "tokenize train"; empty for the program itself
  std::string help, footer;
  std::vector<OptionHelp> options;
  std::vector<std::string> below;  // names of its own commands
};

std::vector<CommandHelp> describe(const CLI::App& app);  // the program first, then every command in order

// Prints options as describe() reads them.
class HelpFormatter : public CLI::Formatter {
 public:
  HelpFormatter();
  std::string make_option_opts(const CLI::Option* option) const override;
  std::string make_option_desc(const CLI::Option* option) const override;
};

}  // namespace sennit::cli
