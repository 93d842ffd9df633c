#include "cli/command.h"

#include <algorithm>
#include <csignal>

namespace sennit::cli {
namespace {

std::atomic<bool> g_interrupted{false};

void on_signal(int) {
  if (g_interrupted.exchange(true)) std::_Exit(130);
}

CLI::Option* add_field(CLI::App& app, const Field& f) {
  std::string name = f.name;
  std::replace(name.begin(), name.end(), '_', '-');
  const std::string flag = "--" + name;
  if (auto* b = std::get_if<bool*>(&f.value)) return app.add_flag(flag + ",!--no-" + name, **b, f.help);
  if (auto* s = std::get_if<std::string*>(&f.value)) {
    auto* option = app.add_option(flag, **s, f.help)->capture_default_str();
    return f.limits.choices.empty() ? option : option->check(CLI::IsMember(f.limits.choices));
  }
  // The limits are read_field's: one rule for flags and files.
  auto check = [f](const std::string& text) -> std::string {
    try {
      const Json value = Json::parse(text, nullptr, false);
      Field copy = f;
      int64_t whole = 0;
      double real = 0;
      if (std::holds_alternative<int64_t*>(f.value)) copy.value = &whole;
      else copy.value = &real;
      read_field(copy, value, "command line", "");
      return "";
    } catch (const std::exception& e) {
      return e.what();
    }
  };
  if (auto* i = std::get_if<int64_t*>(&f.value)) return app.add_option(flag, **i, f.help)->capture_default_str()->check(check);
  return app.add_option(flag, *std::get<double*>(f.value), f.help)->capture_default_str()->check(check);
}

}  // namespace

CLI::App& Commands::add(const std::string& name, const std::string& help, std::function<int()> run) {
  CLI::App* command = app_.add_subcommand(name, help);
  command->callback([run = std::move(run)] {
    if (const int code = run()) throw CLI::RuntimeError(code);
  });
  return *command;
}

void add_fields(CLI::App& app, const Fields& fields, const std::string& group) {
  for (const Field& f : fields)
    if (!std::holds_alternative<Json*>(f.value)) add_field(app, f)->group(group);
}

CLI::Option* add_json_flag(CLI::App& app, bool& json) {
  return app.add_flag("--json", json, "print one JSON object for machines instead of text for people");
}

const std::atomic<bool>& interrupted() {
  static const bool installed = [] {
    std::signal(SIGINT, on_signal);
    std::signal(SIGTERM, on_signal);
    return true;
  }();
  (void)installed;
  return g_interrupted;
}

void forget_interrupt() {
  g_interrupted = false;
}

}  // namespace sennit::cli
