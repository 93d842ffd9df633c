#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>

#include "base/error.h"
#include "cli/command.h"
#include "cli/help.h"

namespace {

int report(const char* kind, const std::exception& e, int code) {
  std::fflush(stdout);
  std::fprintf(stderr, "sennit: %s%s\n", kind, e.what());
  return code;
}

// CLI11 only says that such a word was not expected.
void check_command(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  std::vector<std::string> names;
  for (const CLI::App* c : app.get_subcommands({})) names.push_back(c->get_name());
  if (std::find(names.begin(), names.end(), argv[1]) != names.end()) return;
  const std::string near = sennit::closest(argv[1], names);
  throw CLI::ParseError(
      fmt::format("there is no command `{}`{}", argv[1], near.empty() ? "" : "; did you mean `" + near + "`?"), 2);
}

}  // namespace

// Exit codes: 0 done, 1 bad input or a failed task, 2 a mistake on the command line, 70 a bug of ours, 130 interrupted.
int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error like a full disk
  CLI::App app("Trains, runs and compares efficient sequence models", "sennit");
  app.require_subcommand(1);
  app.fallthrough(false);
  app.set_version_flag("--version", "sennit " SENNIT_VERSION);
  app.formatter(std::make_shared<sennit::cli::HelpFormatter>());
  app.footer("Try: sennit list, sennit COMMAND --help");
  try {
    sennit::cli::Commands commands(app);
    sennit::cli::add_all(commands);
    check_command(app, argc, argv);
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::RuntimeError& e) {
    return e.get_exit_code();
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    std::fprintf(stderr, "sennit: %s\nTry --help.\n", e.what());
    return 2;
  } catch (const sennit::Error& e) {
    return report("", e, 1);
  } catch (const sennit::InternalError& e) {
    return report("internal error: ", e, 70);
  } catch (const std::bad_alloc& e) {
    return report("out of memory: ", e, 1);
  } catch (const std::exception& e) {
    return report("", e, 1);
  }
}
