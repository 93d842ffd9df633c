#pragma once
#include <CLI/CLI.hpp>
#include <atomic>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "base/fields.h"

// The command line: one file of this folder for each command, found by listing. src/cli/x.cpp defines
// void add_x(Commands&), which declares the command's flags and what it does.
namespace sennit::cli {

class Commands {
 public:
  explicit Commands(CLI::App& app) : app_(app) {}
  // Adds a command; `run` is called when the user names it and its value is the exit code.
  CLI::App& add(const std::string& name, const std::string& help, std::function<int()> run);
  CLI::App& app() { return app_; }

 private:
  CLI::App& app_;
};

// A flag --name for every field, with its help, limits and default.
void add_fields(CLI::App& app, const Fields& fields, const std::string& group);
// The --json flag, and the place where it says so.
CLI::Option* add_json_flag(CLI::App& app, bool& json);

// Turns true at the first Ctrl-C (or SIGTERM); the second ends the process at once.
const std::atomic<bool>& interrupted();
void forget_interrupt();  // what was interrupted has ended, the program goes on

void add_all(Commands& commands);  // generated

}  // namespace sennit::cli
