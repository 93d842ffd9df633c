#pragma once
#include <string>

namespace sennit::cli {

// A line on stderr that shows how far long work is, with rate and time left: redrawn in place on a terminal, a plain line
// now and then when stderr is a file or a pipe.
class ProgressBar {
 public:
  explicit ProgressBar(bool quiet = false);
  ~ProgressBar();
  void update(double done, double total, const std::string& text);  // text: what else to say, e.g. "loss 2.31"
  void print(const std::string& line);  // a line that stays, above the bar
  void finish();

 private:
  void draw(bool last);
  bool quiet_, terminal_;
  double start_, shown_ = 0, done_ = 0, total_ = 0;
  double first_ = 0, first_time_ = 0;  // what was done when the bar began: work resumed has no rate of its own yet
  size_t width_ = 0;
  std::string text_;
};

std::string duration_text(double seconds);  // "1:23:45", "2:05"
std::string count_text(double n);           // "950", "12.3k", "4.5M"
std::string bytes_text(double n);           // "1.2 MB"

}  // namespace sennit::cli
