#include <fmt/ranges.h>

#include "cli/command.h"
#include "cli/help.h"

namespace sennit::cli {
namespace {

// Text for roff: backslashes, hyphens that are not dashes, and dots or quotes at the start of a line.
std::string roff(const std::string& text) {
  std::string out = text.starts_with('.') || text.starts_with('\'') ? "\\&" : "";
  for (const char c : text) {
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else
      out += c;
  }
  return out;
}

std::string option_text(const OptionHelp& o) {
  std::vector<std::string> names;
  for (const std::string& n : o.names) names.push_back((o.positional ? "\\fI" : "\\fB") + roff(n) + "\\fR");
  const std::string value = o.value.empty() || o.positional ? "" : " \\fI" + roff(o.value) + "\\fR";
  const std::string fallback = o.fallback.empty() || o.fallback == "\"\"" ? "" : " (default " + o.fallback + ")";
  return fmt::format(".TP\n{}{}\n{}\n", fmt::join(names, ", "), value, roff(o.help + fallback));
}

std::string command_text(const CommandHelp& c) {
  std::string out = fmt::format(".SS {}\n{}.\n", roff("sennit " + c.name), roff(c.help));
  for (const OptionHelp& o : c.options)
    if (o.names.back() != "--help") out += option_text(o);
  if (!c.footer.empty()) out += fmt::format(".PP\n{}\n", roff(c.footer));
  return out;
}

constexpr const char* kTail = R"(.SH EXIT STATUS
0 when done, 1 for bad input or a failed task, 2 for a mistake on the command line, 70 for a bug of the program, 130 when interrupted.
.SH ENVIRONMENT
.TP
\fBSENNIT_THREADS\fR
how many threads to use; results do not depend on it
.TP
\fBSENNIT_ISA\fR
scalar, avx2, avx512 or amx: the instructions to use, instead of the best this CPU has
)";

int print_manual(const CLI::App& app) {
  const auto commands = describe(app);
  fmt::print(".TH SENNIT 1 \"\" \"sennit {}\" \"User Commands\"\n.SH NAME\nsennit \\- {}\n", SENNIT_VERSION,
             roff(commands[0].help));
  fmt::print(".SH SYNOPSIS\n\\fBsennit\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR]\n.SH COMMANDS\n");
  for (size_t i = 1; i < commands.size(); ++i) fmt::print("{}", command_text(commands[i]));
  fmt::print("{}", kTail);
  return 0;
}

}  // namespace

void add_man(Commands& commands) {
  const CLI::App* app = &commands.app();
  commands.add("man", "Print the manual page (roff)", [app] { return print_manual(*app); })
      .footer("Example: sennit man | man -l -");
}

}  // namespace sennit::cli
