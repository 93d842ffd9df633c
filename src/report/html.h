#pragma once
#include <string>
#include <string_view>

#include "report/plot.h"
#include "report/table.h"

namespace sennit::report {

// One self-contained HTML page: nothing is loaded, light and dark follow the reader's system, and without scripts only
// the numbers under the pointer are missing.
class Page {
 public:
  explicit Page(std::string title) : title_(std::move(title)) {}
  void heading(std::string_view text);
  void paragraph(std::string_view text);
  void table(const Table& table);
  void begin_figures();  // plots until end_figures() stand side by side where there is room
  void figure(const Plot& plot, std::string_view caption);
  void end_figures();
  void folded(std::string_view summary, std::string_view preformatted);  // opens at a click
  void folded(std::string_view summary, const Table& table);
  std::string html() const;

 private:
  std::string title_, body_;
};

}  // namespace sennit::report
