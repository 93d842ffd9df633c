#include <fmt/ranges.h>

#include <algorithm>

#include "cli/command.h"
#include "cli/help.h"

namespace sennit::cli {
namespace {

std::vector<std::string> flags_of(const CommandHelp& c) {
  std::vector<std::string> all;
  for (const OptionHelp& o : c.options)
    if (!o.positional) all.insert(all.end(), o.names.begin(), o.names.end());
  return all;
}

std::string quoted(const std::string& text) {  // for all three shells, inside single quotes
  std::string out;
  for (const char c : text) out += c == '\'' ? "’" : std::string(1, c);
  return out;
}

// bash and zsh: the words after `sennit` that name a command are its path; what may follow hangs off that.
std::string bash(const std::vector<CommandHelp>& commands) {
  std::string paths, words, values;
  for (const CommandHelp& c : commands) {
    if (!c.name.empty()) paths += fmt::format("      \"{}\") path=$candidate ;;\n", c.name);
    words +=
        fmt::format("    \"{}\") words=\"{}\" ;;\n", c.name, fmt::join(c.below.empty() ? flags_of(c) : c.below, " "));
    for (const OptionHelp& o : c.options)
      if (!o.choices.empty() && !o.positional)
        values += fmt::format("    \"{}:{}\") words=\"{}\" ;;\n", c.name, o.names.back(), fmt::join(o.choices, " "));
    for (const OptionHelp& o : c.options)
      if (!o.choices.empty() && o.positional)
        words.insert(words.rfind("\" ;;"), fmt::format(" {}", fmt::join(o.choices, " ")));
  }
  return fmt::format(R"(_sennit() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} path="" candidate words="" files=no i
  for ((i = 1; i < COMP_CWORD; i++)); do
    candidate="${{path:+$path }}${{COMP_WORDS[i]}}"
    case "$candidate" in
{}    esac
  done
  case "$path:$before" in
{}  esac
  if [ -z "$words" ]; then
    [[ $word == -* ]] || files=yes
    case "$path" in
{}    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  [ $files = no ] || COMPREPLY+=($(compgen -f -- "$word"))
}}
complete -o filenames -F _sennit sennit
)",
                     paths, values, words);
}

std::string zsh(const std::vector<CommandHelp>& commands) {
  return "#compdef sennit\nautoload -U +X bashcompinit && bashcompinit\n" + bash(commands);
}

std::string fish(const std::vector<CommandHelp>& commands) {
  std::string out;
  for (const CommandHelp& c : commands) {
    std::string seen = "__fish_use_subcommand";
    if (const size_t blank = c.name.find(' '); blank != std::string::npos)
      seen = fmt::format("__fish_seen_subcommand_from {}; and __fish_seen_subcommand_from {}", c.name.substr(0, blank),
                         c.name.substr(blank + 1));
    else if (!c.name.empty())
      seen = "__fish_seen_subcommand_from " + c.name;
    for (const std::string& name : c.below) {
      const std::string full = c.name.empty() ? name : c.name + " " + name;
      const auto below =
          std::find_if(commands.begin(), commands.end(), [&](const CommandHelp& b) { return b.name == full; });
      out += fmt::format("complete -c sennit -n '{}' -a {} -d '{}'\n", seen, name, quoted(below->help));
    }
    if (c.name.empty()) continue;
    for (const OptionHelp& o : c.options) {
      if (o.positional || !o.names.back().starts_with("--")) continue;
      std::string line =
          fmt::format("complete -c sennit -n '{}' -l {} -d '{}'", seen, o.names.back().substr(2), quoted(o.help));
      if (o.names.size() > 1 && o.names[0].size() == 2) line += " -s " + o.names[0].substr(1);
      if (!o.choices.empty())
        line += fmt::format(" -x -a '{}'", fmt::join(o.choices, " "));
      else if (!o.value.empty())
        line += " -r";
      out += line + "\n";
    }
  }
  return out;
}

}  // namespace

void add_completion(Commands& commands) {
  const CLI::App* app = &commands.app();
  auto shell = std::make_shared<std::string>();
  CLI::App& own =
      commands.add("completion", "Print a script that completes commands and options in a shell", [app, shell] {
        const auto all = describe(*app);
        fmt::print("{}", *shell == "bash" ? bash(all) : *shell == "zsh" ? zsh(all) : fish(all));
        return 0;
      });
  own.add_option("shell", *shell, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  own.footer("Example: source <(sennit completion bash)");
}

}  // namespace sennit::cli
