#include "bench/peer.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "base/error.h"

namespace sennit::bench {

Peer::Peer(const std::vector<std::string>& command) : name_(command.back()) {
  std::vector<char*> arguments;
  for (const std::string& a : command) arguments.push_back(const_cast<char*>(a.c_str()));
  arguments.push_back(nullptr);
  int to[2], from[2];
  if (pipe(to) != 0 || pipe(from) != 0) fail({"peer", "two pipes", "none left", name_});
  std::signal(SIGPIPE, SIG_IGN);
  child_ = fork();
  if (child_ == 0) {
    dup2(to[0], STDIN_FILENO);
    dup2(from[1], STDOUT_FILENO);
    for (const int fd : {to[0], to[1], from[0], from[1]}) close(fd);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  close(to[0]);
  close(from[1]);
  in_ = fdopen(to[1], "w");
  out_ = fdopen(from[0], "r");
  const std::string said = child_ < 0 ? "" : line();
  if (said != "ready") fail({"peer", "a program that says \"ready\"", said.empty() ? "nothing" : said, name_});
}

Peer::~Peer() {
  if (in_) std::fclose(in_);
  if (out_) std::fclose(out_);
  if (child_ > 0) {
    kill(child_, SIGTERM);
    waitpid(child_, nullptr, 0);
  }
}

std::string Peer::line() {
  char buffer[256];
  if (!std::fgets(buffer, sizeof buffer, out_)) return "";
  std::string s = buffer;
  while (!s.empty() && s.back() == '\n') s.pop_back();
  return s;
}

double Peer::seconds(const std::string& request) {
  fmt::print(in_, "{}\n", request);
  std::fflush(in_);
  const std::string answer = line();
  if (answer.empty()) fail({"peer", "an answer to " + request, "none: it ended", name_});
  return answer == "none" ? -1 : std::strtod(answer.c_str(), nullptr);
}

}  // namespace sennit::bench
