#include <gtest/gtest.h>

#include <cmath>

#include "report/html.h"

namespace sennit::report::report_test {

Plot two_lines() {
  return {"Cost",
          {"length", true, Unit::tokens},
          {"time", true, Unit::seconds},
          {{"flat", {{256, 1e-3}, {512, 1e-3}, {1024, 1e-3}}, 0, Line::Style::marked},
           {"<steep>", {{256, 1e-4}, {512, std::nan("")}, {1024, 1e-1}}, 1}}};
}

TEST(Report, UnitsAreShort) {
  EXPECT_EQ(unit_text(0, Unit::plain), "0");
  EXPECT_EQ(unit_text(-0.0, Unit::plain), "0");
  EXPECT_EQ(unit_text(12000, Unit::plain), "12k");
  EXPECT_EQ(unit_text(2.5e6, Unit::bytes), "2.5 MB");
  EXPECT_EQ(unit_text(3e-5, Unit::seconds), "30 µs");
  EXPECT_EQ(unit_text(0.25, Unit::seconds), "250 ms");
  EXPECT_EQ(unit_text(16384, Unit::tokens), "16k");
}

TEST(Report, TicksLieWithinTheScale) {
  for (const double low : {0.003, 1.0, 40.0})
    for (const double factor : {1.5, 4.0, 30.0, 1e5})
      for (const bool logarithmic : {false, true}) {
        const Plot p{"", {"", logarithmic}, {"", logarithmic}, {{"a", {{low, low}, {low * factor, low * factor}}}}};
        for (const Scale& s : {x_scale(p, 6), y_scale(p, 6)}) {
          EXPECT_GE(s.ticks.size(), 2u) << low << " " << factor << " " << logarithmic;
          EXPECT_LE(s.ticks.size(), 14u) << low << " " << factor << " " << logarithmic;
          for (const auto& [v, text] : s.ticks) EXPECT_TRUE(s.at(v) > -1e-6 && s.at(v) < 1 + 1e-6) << v;
        }
      }
}

TEST(Report, PlotsLeaveOutWhatIsNotFinite) {
  const std::string drawn = svg(two_lines());
  EXPECT_EQ(drawn.find("nan"), std::string::npos);
  EXPECT_NE(drawn.find("&lt;steep&gt;"), std::string::npos);
  EXPECT_EQ(drawn.find("<steep>"), std::string::npos);
  EXPECT_NE(svg({"empty", {}, {}, {}}).find("</svg>"), std::string::npos);
}

TEST(Report, TerminalPlotHasItsSize) {
  const std::string shown = terminal_plot(two_lines(), 60, 10, false);
  EXPECT_EQ(std::count(shown.begin(), shown.end(), '\n'), 1 + 10 + 3);
  for (size_t begin = 0; begin < shown.size();) {
    const size_t end = shown.find('\n', begin);
    EXPECT_LE(shown_width(shown.substr(begin, end - begin)), 64u);
    begin = end + 1;
  }
}

TEST(Report, TablesInThreeForms) {
  Table t{{{"name"}, {"size", true}}, {}};
  t.add({"a|b", "1"});
  t.rows.push_back({{"é"}, {"20", true}});
  EXPECT_EQ(t.text(), "name  size\na|b      1\né       20\n");
  EXPECT_EQ(t.markdown(), "| name | size |\n| --- | ---: |\n| a\\|b | 1 |\n| é | **20** |\n");
  EXPECT_NE(t.html().find("<td class=\"n\"><b>20</b></td>"), std::string::npos);
  EXPECT_EQ(t.transposed().text(), "      a|b   é\nsize    1  20\n");
}

TEST(Report, PageNeedsNothingElse) {
  Page page("A & B");
  page.figure(two_lines(), "caption");
  const std::string html = page.html();
  EXPECT_NE(html.find("<title>A &amp; B</title>"), std::string::npos);
  for (const char* outside : {"http:", "https:", "src=", "href=", "@import"})
    EXPECT_EQ(html.find(outside), std::string::npos) << outside;
}

}  // namespace sennit::report::report_test
