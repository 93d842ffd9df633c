#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace sennit::report {

// A table of texts that prints itself for a terminal, as Markdown or as HTML.
struct Table {
  struct Column {
    std::string title;
    bool right = false;  // numbers stand to the right
  };
  struct Cell {
    std::string text;
    bool strong = false;  // the best of its column, say
  };
  std::vector<Column> columns;
  std::vector<std::vector<Cell>> rows;

  void add(std::vector<std::string> texts);
  Table transposed() const;  // the first column becomes the heads
  std::string text() const;
  std::string markdown() const;
  std::string html() const;
};

size_t shown_width(std::string_view utf8);  // in columns of a terminal, one a character
std::string escape_html(std::string_view text);

}  // namespace sennit::report
