#include <cstdio>
#include <exception>

#include "base/error.h"
#include "cli/command.h"

namespace {

int report(const char* kind, const std::exception& e, int code) {
  std::fflush(stdout);
  std::fprintf(stderr, "sennit: %s%s\n", kind, e.what());
  return code;
}

}  // namespace

// Exit codes: 0 done, 1 bad input or a failed task, 2 a mistake on the command line, 70 a bug of ours, 130 interrupted.
int main(int argc, char** argv) {
  CLI::App app("Sennit: trains, runs and compares efficient sequence models");
  app.require_subcommand(1);
  app.fallthrough(false);
  app.set_version_flag("--version", "sennit " SENNIT_VERSION);
  try {
    sennit::cli::Commands commands(app);
    sennit::cli::add_all(commands);
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::RuntimeError& e) {
    return e.get_exit_code();
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
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
