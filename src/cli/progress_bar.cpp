#include "cli/progress_bar.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/clock.h"

namespace sennit::cli {
namespace {

size_t terminal_columns() {
  winsize w{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col : 80;
}

}  // namespace

ProgressBar::ProgressBar(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO)), start_(seconds_now()) {}
ProgressBar::~ProgressBar() { finish(); }

void ProgressBar::update(double done, double total, const std::string& text) {
  if (total_ <= 0) first_ = done, first_time_ = seconds_now();
  done_ = done, total_ = total, text_ = text;
  const double interval = terminal_ ? 0.1 : 10;
  if (quiet_ || seconds_now() - shown_ < interval) return;
  draw(false);
}

void ProgressBar::draw(bool last) {
  shown_ = seconds_now();
  const double share = total_ > 0 ? std::clamp(done_ / total_, 0.0, 1.0) : 0, moved = done_ - first_;
  const bool rated = moved > 0.001 * total_ && share < 1;
  const std::string left = rated ? duration_text((shown_ - first_time_) * (total_ - done_) / moved) + " left" : duration_text(shown_ - start_);
  if (!terminal_) {
    fmt::print(stderr, "{:3.0f} %  {}  {}\n", 100 * share, text_, left);
    return;
  }
  constexpr size_t kBar = 24;
  const size_t filled = static_cast<size_t>(share * kBar);
  std::string bar;
  for (size_t i = 0; i < kBar; ++i) bar += i < filled ? "━" : "─";
  std::string line = fmt::format(" {:3.0f} %  {}  {}", 100 * share, text_, left);
  const size_t room = terminal_columns() - kBar - 1;
  if (line.size() > room) line.resize(room);
  fmt::print(stderr, "\r{}{}\x1b[K{}", bar, line, last ? "\n" : "");
  std::fflush(stderr);
  width_ = 1;
}

void ProgressBar::print(const std::string& line) {
  if (quiet_) return;
  fmt::print(stderr, "{}{}\n", terminal_ && width_ ? "\r\x1b[K" : "", line);
  if (terminal_ && width_) draw(false);
}

void ProgressBar::finish() {
  if (!quiet_ && total_ > 0 && (width_ || !terminal_)) draw(true);
  total_ = 0, width_ = 0;
}

std::string duration_text(double seconds) {
  const auto s = static_cast<int64_t>(std::llround(std::clamp(seconds, 0.0, 1e8)));
  return s >= 3600 ? fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60) : fmt::format("{}:{:02}", s / 60, s % 60);
}

std::string count_text(double n) {
  if (n >= 1e9) return fmt::format("{:.1f}G", n / 1e9);
  if (n >= 1e6) return fmt::format("{:.1f}M", n / 1e6);
  if (n >= 1e4) return fmt::format("{:.1f}k", n / 1e3);
  return fmt::format("{:.0f}", n);
}

std::string bytes_text(double n) {
  const char* units[] = {"B", "kB", "MB", "GB", "TB"};
  size_t u = 0;
  while (n >= 1000 && u < 4) n /= 1000, ++u;
  return fmt::format("{:.{}f} {}", n, u && n < 100 ? 1 : 0, units[u]);
}

}  // namespace sennit::cli
