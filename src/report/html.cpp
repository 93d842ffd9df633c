#include "report/html.h"

#include <fmt/format.h>

namespace sennit::report {
namespace {

// The hues of Okabe and Ito's palette, which eyes of every kind tell apart, darkened or lightened to stand off the
// paper.
constexpr const char* kStyle = R"(
:root { --paper: #fff; --ink: #1b1f24; --quiet: #5b6470; --rule: #e3e6ea; --band: #f6f7f9; color-scheme: light dark;
  --c0: #0068a5; --c1: #c04f00; --c2: #00805d; --c3: #a8478a; --c4: #9a6b00; --c5: #2d7fb5; --c6: #555b63; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171a; --ink: #e6e9ec; --quiet: #9aa4af; --rule: #2c3238; --band: #1b1f23;
    --c0: #58aee8; --c1: #ff8f4d; --c2: #35c79a; --c3: #e08cc2; --c4: #e6b04a; --c5: #86c8f2; --c6: #b3bac2; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1160px; padding: 28px 20px 60px; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 4px; } h2 { font-size: 1.15rem; margin: 34px 0 10px; }
p { margin: 4px 0 12px; color: var(--quiet); max-width: 75ch; }
.wide { overflow-x: auto; margin-bottom: 10px; } table { border-collapse: collapse; font-size: 0.9rem; white-space: nowrap; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 12px; border-bottom: 1px solid var(--rule); text-align: left; font-weight: 400; }
thead th { color: var(--quiet); white-space: normal; vertical-align: bottom; line-height: 1.25; border-bottom: 2px solid var(--rule); }
tbody th { font-weight: 600; position: sticky; left: 0; background: var(--paper); } .n { text-align: right; }
.figures { display: grid; gap: 26px 28px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: 2px; } figcaption small { display: block; font-weight: 400; color: var(--quiet); }
svg { width: 100%; height: auto; display: block; font: 11.5px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
@media (max-width: 520px) { svg { font-size: 12.5px; } }
.grid { stroke: var(--rule); } .axis { stroke: var(--quiet); } .tick, .name { fill: var(--quiet); } .label { font-weight: 600; paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; } .faint { fill: none; stroke-width: 1; opacity: 0.5; } .hit { fill: transparent; }
.mark { stroke: var(--paper); stroke-width: 1; }
details { margin: 10px 0; } summary { cursor: pointer; color: var(--quiet); } pre { overflow-x: auto; background: var(--band); padding: 12px; font-size: 0.85rem; }
#tip { position: fixed; display: none; pointer-events: none; background: var(--ink); color: var(--paper); padding: 3px 9px; border-radius: 4px; font-size: 0.85rem; }
)";

constexpr const char* kScript = R"(
const tip = document.getElementById("tip");
document.addEventListener("pointerover", e => {
  const text = e.target.dataset && e.target.dataset.tip;
  tip.style.display = text ? "block" : "none";
  if (!text) return;
  tip.textContent = text;
  const box = e.target.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(box.x + 12, innerWidth - tip.offsetWidth - 8)) + "px";
  tip.style.top = Math.max(4, box.y - 26) + "px";
});
)";

std::string colour_rules() {
  std::string css;
  for (int i = 0; i < kColours; ++i)
    css += fmt::format(
        ".line.k{0}, .faint.k{0} {{ stroke: var(--c{0}); }} .mark.k{0}, .t{0} {{ fill: var(--c{0}); }}\n", i);
  return css;
}

}  // namespace

void Page::heading(std::string_view text) {
  body_ += fmt::format("<h2>{}</h2>\n", escape_html(text));
}
void Page::paragraph(std::string_view text) {
  body_ += fmt::format("<p>{}</p>\n", escape_html(text));
}
void Page::table(const Table& table) {
  body_ += table.html();
}
void Page::begin_figures() {
  body_ += "<div class=\"figures\">\n";
}
void Page::end_figures() {
  body_ += "</div>\n";
}

void Page::figure(const Plot& plot, std::string_view caption) {
  body_ += fmt::format("<figure><figcaption>{}<small>{}</small></figcaption>\n{}</figure>\n", escape_html(plot.title),
                       escape_html(caption), svg(plot));
}

void Page::folded(std::string_view summary, std::string_view preformatted) {
  body_ += fmt::format("<details><summary>{}</summary><pre>{}</pre></details>\n", escape_html(summary),
                       escape_html(preformatted));
}

void Page::folded(std::string_view summary, const Table& table) {
  body_ += fmt::format("<details><summary>{}</summary>{}</details>\n", escape_html(summary), table.html());
}

std::string Page::html() const {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\">"
      "<title>{0}</title>\n<style>{1}{2}</style></head>\n<body>\n<h1>{0}</h1>\n{3}<div "
      "id=\"tip\"></div>\n<script>{4}</script>\n</body></html>\n",
      escape_html(title_), kStyle, colour_rules(), body_, kScript);
}

}  // namespace sennit::report
