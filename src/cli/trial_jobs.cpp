#include "cli/trial_jobs.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/parallel.h"
#include "cli/command.h"
#include "io/json_file.h"
#include "io/posix.h"

namespace sennit::cli {
namespace {

using measure::TrialResult;

constexpr char kStep = '.';

TrialResult failed(const std::string& name, const std::string& why) {
  TrialResult r;
  r.name = name, r.failed = why;
  return r;
}

// Says a dot for every step, then the result.
void say(int to, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(to, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) ::_exit(1);  // nobody listens
    text.remove_prefix(static_cast<size_t>(n));
  }
}

[[noreturn]] void train(const NamedMixer& mixer, const measure::TrialOptions& options, int threads, int to) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  set_thread_count(threads);
  FlushDenormals flush;
  std::optional<TrialResult> result;
  try {
    result = measure::trial(mixer.first, mixer.second, options, [&](const std::string&) {
      say(to, {&kStep, 1});
      return !interrupted();
    });
  } catch (const std::exception& e) {
    result = failed(mixer.first, e.what());
  }
  if (!result) ::_exit(130);
  say(to, json_text(measure::to_json(*result)));
  ::_exit(0);
}

struct Child {
  size_t trial;
  pid_t process;
  io::Descriptor from;
  std::string said;
  double steps = 0;
};

Child start(size_t trial, const NamedMixer& mixer, const measure::TrialOptions& options, int threads) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) fail({"compare", "a pipe", std::strerror(errno)});
  io::Descriptor from(ends[0]), to(ends[1]);
  const pid_t process = ::fork();
  if (process < 0) fail({"compare", "a process for a trial", std::strerror(errno)});
  if (process == 0) train(mixer, options, threads, ends[1]);
  return {trial, process, std::move(from), {}};
}

// Takes in what the child said; false when it has ended.
bool listen(Child& child) {
  char part[4096];
  const ssize_t n = ::read(child.from.get(), part, sizeof part);
  if (n < 0 && errno == EINTR) return true;
  if (n <= 0) return false;
  for (const char c : std::string_view(part, static_cast<size_t>(n))) {
    if (child.said.empty() && c == kStep)
      ++child.steps;
    else
      child.said += c;
  }
  return true;
}

// nullopt when it was interrupted.
std::optional<TrialResult> end(const Child& child, const std::string& name) {
  int status = 0;
  while (::waitpid(child.process, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
    return measure::trial_from_json(io::parse_json(child.said, "the trial of " + name));
  if (interrupted()) return std::nullopt;
  return failed(name, WIFSIGNALED(status) ? fmt::format("ended by signal {}", WTERMSIG(status))
                                          : fmt::format("ended with code {}", WEXITSTATUS(status)));
}

// What each trial left in a folder, one file a trial, with the options that made it.
class Kept {
 public:
  Kept(const std::string& folder, const measure::TrialOptions& options)
      : folder_(folder), options_(measure::to_json(options)) {
    if (!folder.empty()) std::filesystem::create_directories(folder);
  }
  std::optional<TrialResult> find(const NamedMixer& mixer) const {
    if (folder_.empty() || !std::filesystem::exists(path(mixer.first))) return std::nullopt;
    const Json kept = io::read_json_file(path(mixer.first));
    if (!kept.is_object() || kept.value("options", Json()) != options_ || kept.value("mixer", Json()) != mixer.second ||
        !kept.contains("result"))
      return std::nullopt;
    return measure::trial_from_json(kept.at("result"));
  }
  void add(const NamedMixer& mixer, const TrialResult& result) const {
    if (folder_.empty()) return;
    const Json all{{"options", options_}, {"mixer", mixer.second}, {"result", measure::to_json(result)}};
    io::write_json_file(path(mixer.first), all);
  }

 private:
  std::string path(const std::string& name) const {
    std::string file;
    for (const char c : name) {
      const bool plain = std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
      if (c != ':') file += plain ? c : '-';
    }
    return folder_ + "/" + file + ".json";
  }

  std::string folder_;
  Json options_;
};

}  // namespace

int TrialJobs::threads_each() const {
  return static_cast<int>(threads ? threads : std::max<int64_t>(1, thread_count() / at_once));
}

std::vector<TrialResult> run_trials(const std::vector<NamedMixer>& mixers, const measure::TrialOptions& options,
                                    const TrialJobs& jobs,
                                    const std::function<void(double steps, const std::string& who)>& progress) {
  const Kept kept(jobs.keep, options);
  std::vector<std::optional<TrialResult>> results;
  for (const NamedMixer& m : mixers) results.push_back(kept.find(m));
  std::vector<Child> running;
  size_t next = 0;
  bool told = false;
  for (;;) {
    for (; next < mixers.size() && std::ssize(running) < jobs.at_once && !interrupted(); ++next)
      if (!results[next]) running.push_back(start(next, mixers[next], options, jobs.threads_each()));
    if (running.empty()) break;
    std::vector<pollfd> ready;
    for (const Child& c : running) ready.push_back({c.from.get(), POLLIN, 0});
    ::poll(ready.data(), ready.size(), 1000);
    if (interrupted() && !std::exchange(told, true))
      for (const Child& c : running) ::kill(c.process, SIGTERM);
    double steps = 0;
    std::string who;
    for (const auto& r : results) steps += r ? static_cast<double>(options.steps) : 0;
    for (size_t i = ready.size(); i-- > 0;) {
      if (ready[i].revents == 0 || listen(running[i])) continue;
      const NamedMixer& mixer = mixers[running[i].trial];
      auto& result = results[running[i].trial] = end(running[i], mixer.first);
      if (result) kept.add(mixer, *result), steps += static_cast<double>(options.steps);
      running.erase(running.begin() + static_cast<std::ptrdiff_t>(i));
    }
    for (const Child& c : running) steps += c.steps, who += (who.empty() ? "" : ", ") + mixers[c.trial].first;
    progress(steps, who);
  }
  std::vector<TrialResult> ended;
  for (auto& r : results)
    if (r) ended.push_back(std::move(*r));
  const auto trained = [](const TrialResult& r) { return r.failed.empty(); };
  if (!ended.empty() && std::none_of(ended.begin(), ended.end(), trained) && !interrupted())
    fail({"compare", "a mixer that can be trained", ended.front().failed});
  return ended;
}

}  // namespace sennit::cli
