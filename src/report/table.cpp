#include "report/table.h"

#include <fmt/format.h>

#include <algorithm>

namespace sennit::report {
namespace {

std::string escape_markdown(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

std::string padded(const std::string& text, size_t width, bool right) {
  const size_t blanks = width - std::min(width, shown_width(text));
  return fmt::format("{:{}}{}{:{}}", "", right ? blanks : 0, text, "", right ? 0 : blanks);
}

// A line of the terminal's table, without blanks at its end.
template <class Text>
std::string line_of(const std::vector<size_t>& widths, const std::vector<Table::Column>& columns, Text text) {
  std::string line;
  for (size_t i = 0; i < widths.size(); ++i)
    line += fmt::format("{}{}", i ? "  " : "", padded(text(i), widths[i], columns[i].right));
  line.resize(line.find_last_not_of(' ') + 1);
  line += '\n';
  return line;
}

}  // namespace

void Table::add(std::vector<std::string> texts) {
  rows.emplace_back();
  for (std::string& t : texts) rows.back().push_back({std::move(t)});
}

Table Table::transposed() const {
  Table t;
  t.columns.push_back({""});
  for (const auto& row : rows) t.columns.push_back({row[0].text, true});
  for (size_t c = 1; c < columns.size(); ++c) {
    t.rows.push_back({{columns[c].title}});
    for (const auto& row : rows) t.rows.back().push_back(row[c]);
  }
  return t;
}

std::string Table::text() const {
  std::vector<size_t> widths;
  for (const Column& c : columns) widths.push_back(shown_width(c.title));
  for (const auto& row : rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], shown_width(row[i].text));
  std::string out = line_of(widths, columns, [&](size_t i) { return columns[i].title; });
  for (const auto& row : rows) out += line_of(widths, columns, [&](size_t i) { return row[i].text; });
  return out;
}

std::string Table::markdown() const {
  std::string out = "|", rule = "|";
  for (const Column& c : columns) {
    out += fmt::format(" {} |", escape_markdown(c.title));
    rule += c.right ? " ---: |" : " --- |";
  }
  out += "\n" + rule + "\n";
  for (const auto& row : rows) {
    out += "|";
    for (const Cell& c : row) out += fmt::format(" {0}{1}{0} |", c.strong ? "**" : "", escape_markdown(c.text));
    out += "\n";
  }
  return out;
}

std::string Table::html() const {
  auto cell = [](const char* tag, const Cell& c, bool right) {
    const std::string text = c.strong ? fmt::format("<b>{}</b>", escape_html(c.text)) : escape_html(c.text);
    return fmt::format("<{0}{1}>{2}</{0}>", tag, right ? " class=\"n\"" : "", text);
  };
  std::string out = "<div class=\"wide\"><table><thead><tr>";
  for (const Column& c : columns) out += cell("th", {c.title}, c.right);
  out += "</tr></thead><tbody>\n";
  for (const auto& row : rows) {
    out += "<tr>";
    for (size_t i = 0; i < row.size(); ++i) out += cell(i ? "td" : "th", row[i], columns[i].right);
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

size_t shown_width(std::string_view utf8) {
  return static_cast<size_t>(
      std::count_if(utf8.begin(), utf8.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace sennit::report
