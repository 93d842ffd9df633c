#include "tokenizers/chat_template.h"

#include <gtest/gtest.h>

#include <ctime>
#include <nlohmann/json.hpp>

#include "support/temp_folder.h"

namespace sennit::tokenizers::chat_template_test {

const char* const kContext =
    R"({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi "},
  {"role": "assistant", "content": "Hello"}], "bos_token": "<s>", "n": 3, "x": 2.5, "yes": true, "nothing": null,
  "tool": {"name": "f", "arguments": {"a": [1, 2.0, "é\n"], "b": null}}, "list": [3, 1, 2], "words": ["b", "A", "c"]})";

std::string rendered(const std::string& source) {
  std::tm now{};
  now.tm_year = 125, now.tm_mon = 10, now.tm_mday = 22;
  return ChatTemplate(source).render(json_of(kContext), now);
}

TEST(ChatTemplate, PrintsExpressions) {
  const char* const cases[][2] = {
      {"{{ 1 + 2 * 3 - 4 }}", "3"},
      {"{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 4 / 2 }} {{ 2 ** 3 }}",
       "3 -4 1 2 3.5 2.0 8"},
      {"{{ 'a' ~ 1 ~ none ~ true }}", "a1NoneTrue"},
      {"{{ 'it''s' }}{{ \"q\\n\\t\\u00e9\" }}", "itsq\n\té"},
      {"{{ undefined_thing }}|{{ nothing }}", "|None"},
      {"{{ [1, 'a', none, {'k': 1.0}] }}", "[1, 'a', None, {'k': 1.0}]"},
      {"{{ n == 3 and x > 2 or false }}", "True"},
      {"{{ not n }}", "False"},
      {"{{ 'a' if n > 5 else 'b' }}{{ 'c' if false }}", "b"}};
  for (const auto& [source, wanted] : cases) EXPECT_EQ(rendered(source), wanted) << source;
  EXPECT_EQ(rendered("{{ 'i' in 'hit' }} {{ 4 not in list }} {{ 'name' in tool }}"), "True True True");
  EXPECT_EQ(rendered("{{ messages[0].role }} {{ messages[-1]['content'] }} {{ messages[1:][0].role }} {{ 'abcdef'[1:4] "
                     "}} {{ 'abc'[::-1] }} {{ list[::-1] }}"),
            "system Hello user bcd cba [2, 1, 3]");
  EXPECT_EQ(rendered("{{ messages[7] is defined }} {{ n is number }} {{ x is integer }} {{ tool is mapping }} {{ 'a' "
                     "is string }} {{ nothing is none }} "
                     "{{ nope is undefined }} {{ list is iterable }} {{ n is odd }} {{ n is divisibleby 3 }} {{ n is "
                     "not even }} {{ yes is true }}"),
            "False True False True True True True True True True True True");
}

TEST(ChatTemplate, FiltersAndMethods) {
  EXPECT_EQ(
      rendered(
          "{{ messages[1].content | trim }}|{{ ' a ' | upper | trim }}|{{ 'ab cd' | title }}|{{ 'aB' | capitalize }}"),
      "Hi|A|Ab Cd|Ab");
  EXPECT_EQ(rendered("{{ tool | tojson }}"), R"({"name": "f", "arguments": {"a": [1, 2.0, "é\n"], "b": null}})");
  EXPECT_EQ(rendered("{{ {'a': [1], 'b': {}} | tojson(indent=2) }}"), "{\n  \"a\": [\n    1\n  ],\n  \"b\": {}\n}");
  EXPECT_EQ(rendered("{{ list | length }} {{ 'né' | length }} {{ list | sort | join(', ') }} {{ words | sort }} {{ "
                     "list | first }}{{ list | last }}"),
            "3 2 1, 2, 3 ['A', 'b', 'c'] 32");
  EXPECT_EQ(rendered("{{ nope | default('d') }} {{ '' | default('d', true) }} {{ '12' | int + 1 }} {{ 3 | float }} {{ "
                     "-2 | abs }} {{ list | sum }}"),
            "d d 13 3.0 2 6");
  EXPECT_EQ(rendered("{{ messages | map(attribute='role') | join('-') }} {{ messages | selectattr('role', 'equalto', "
                     "'user') | list | length }} "
                     "{{ list | select('gt', 1) | list }} {{ messages | rejectattr('role', 'in', ['user', 'system']) | "
                     "map(attribute='content') | list }}"),
            "system-user-assistant 1 [3, 2] ['Hello']");
  EXPECT_EQ(
      rendered(
          "{{ 'a</t>b</t>c'.split('</t>')[-1] }} {{ ' a b '.split() }} {{ 'xxaxx'.strip('x') }} {{ '\\n "
          "a'.lstrip('\\n') }}| {{ 'ab'.startswith('a') }} "
          "{{ 'ab'.endswith(('b', 'c')) }} {{ 'aab'.replace('a', 'x') }} {{ '-'.join(words) }} {{ 'abc'.find('c') }}"),
      "c ['a', 'b'] a  a| True True xxb b-A-c 2");
  EXPECT_EQ(rendered("{% for k, v in tool.items() %}{{ k }}={{ v is mapping }};{% endfor %}{{ tool.get('zip', 'none') "
                     "}} {{ tool.keys() | list }}"),
            "name=False;arguments=True;none ['name', 'arguments']");
  EXPECT_EQ(rendered("{{ 'a\\nb' | indent(2) }} {{ [1, 2, 1] | unique | list }} {{ strftime_now('%d %b %Y') }}"),
            "a\n  b [1, 2] 22 Nov 2025");
}

TEST(ChatTemplate, StatementsAndTheirScopes) {
  EXPECT_EQ(rendered("{% for m in messages if m.role != 'system' %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ "
                     "loop.length }} {% else %}none{% endfor %}"),
            "1TrueFalse2 2FalseTrue2 ");
  EXPECT_EQ(rendered("{% for m in [] %}x{% else %}none{% endfor %}"), "none");
  EXPECT_EQ(rendered("{% set a = 1 %}{% for i in range(3) %}{% set a = i %}{% endfor %}{{ a }}"), "1");
  EXPECT_EQ(
      rendered(
          "{% set ns = namespace(a=1) %}{% for i in range(2, 8, 2) %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}"),
      "13");
  EXPECT_EQ(rendered("{% if n == 1 %}a{% elif n == 3 %}b{% else %}c{% endif %}{% if nope %}x{% else %}y{% endif %}"),
            "by");
  EXPECT_EQ(
      rendered(
          "{% macro f(a, b='z') %}[{{ a }}{{ b }}{{ bos_token }}]{% endmacro %}{{ f(1) }}{{ f(b=2, a=n) | upper }}"),
      "[1z<s>][32<S>]");
  EXPECT_EQ(rendered("{% set t %}a{{ n }}{% endset %}{{ t | length }}{% set p, q = 1, 2 %}{{ q }}"), "22");
  EXPECT_EQ(rendered("{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% "
                     "endif %}{{ i }}{% endfor %}"),
            "023");
  EXPECT_EQ(rendered("{% generation %}{{ n }}{% endgeneration %}{# nothing #}"), "3");
  EXPECT_EQ(rendered("{% for m in messages %}{{ loop.previtem.role if not loop.first }}>{{ (loop.nextitem | "
                     "default({'role': '.'})).role }} {% endfor %}"),
            ">user system>assistant user>. ");
}

TEST(ChatTemplate, BlocksAreTrimmedAsInTheirHome) {
  EXPECT_EQ(rendered("a\n  {% if yes %}\nb\n  {% endif %}\nc\n"), "a\nb\nc");
  EXPECT_EQ(rendered("a  {%- if yes -%}  b  {%- endif %}\n c"), "ab c");
  EXPECT_EQ(rendered("a {{- n -}} b"), "a3b");
  EXPECT_EQ(rendered("a\n  {{ n }}\nb"), "a\n  3\nb");
  EXPECT_EQ(rendered("a\n  {#- c -#}  \nb"), "ab");
  EXPECT_EQ(rendered("x {% if yes %} y {% endif %} z"), "x  y  z");
  EXPECT_EQ(rendered("{% if yes +%}\nb{% endif %}"), "\nb");
  EXPECT_EQ(rendered("a\r\nb\n\n"), "a\nb\n");
  EXPECT_EQ(rendered("{{ '%}' }}{{ {'a': {'b': 1}}}}"), "%}{'a': {'b': 1}}");
}

TEST(ChatTemplate, SaysWhatIsWrongAndWhere) {
  const auto error = [](const std::string& source) { return error_of([&] { rendered(source); }); };
  const char* const cases[][2] = {{"ab\n {{ 1 + }}", "line 2, column 9"},
                                  {"{% if %}", "line 1"},
                                  {"{% if yes %}", "endif"},
                                  {"{% endif %}", "`endif`"},
                                  {"{{ 'a }}", "closing quote"},
                                  {"{{ n ", "}}"},
                                  {"{% include 'x' %}", "`include`"},
                                  {"{% import 'x' as y %}", "`import`"},
                                  {"{{ n | frob }}", "`frob`"},
                                  {"{{ n is frob }}", "`frob`"},
                                  {"{{ 'a'.frob() }}", "`frob`"},
                                  {"{{ nope.x }}", "`nope`"},
                                  {"{{ nope() }}", "`nope`"},
                                  {"{{ 'a' + 1 }}", "a text and an integer"},
                                  {"{{ 1 // 0 }}", "divisor"},
                                  {"{# x", "#}"},
                                  {"{{ raise_exception('roles must alternate') }}", "roles must alternate"},
                                  {"{% break %}", "loop"},
                                  {"{% set messages.x = 1 %}", "namespace"},
                                  {"{{ 9223372036854775807 + 1 }}", "64 bits"},
                                  {"{{ list | sort(attribute=1) }}", "attribute"},
                                  {"{% for a, b in list %}{% endfor %}", "walk"},
                                  {"{{ $ }}", "`$`"},
                                  {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "32 macros"},
                                  {"{{ '{:d}'.format(1) }}", "`format`"},
                                  {"{{ n }", "}}"}};
  for (const auto& [source, what] : cases)
    EXPECT_NE(error(source).find(what), std::string::npos) << source << " -> " << error(source);
}

TEST(ChatTemplate, HostileTemplatesEndSoon) {
  std::string deep = "1", chain = "1", ifs, ends;
  for (int i = 0; i < 10000; ++i) deep = "(" + deep, chain += "+1";
  for (int i = 0; i < 1000; ++i) ifs += "{% if 1 %}", ends += "{% endif %}";
  const std::string cases[] = {
      "{{ " + deep + std::string(10000, ')') + " }}",
      "{{ " + chain + " }}",
      ifs + ends,
      "{{ " + std::string(100000, '-') + "1 }}",
      "{{ a" + std::string(5000, '.') + " }}",
      "{% for i in range(1000000000) %}{% endfor %}",
      "{% for i in range(9999) %}{% for j in range(9999) %}{% for k in range(9999) %}{% endfor %}{% endfor %}{% endfor "
      "%}",
      "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
      "{{ 'x' * 999999999999 }}",
      "{{ ('x' * 1000000) * 1000000 }}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(40) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l == [] "
      "}}{{ ns.l }}",
      "{% set ns = namespace() %}{% set ns.l = [ns] %}",
      "{% set l = [1] %}{{ l.append(l) }}{{ l }}",
      "{% set l = 'x' * 3000000 %}{% for i in range(1000) %}{{ l | replace('x', l) }}{% endfor %}"};
#if defined(__SANITIZE_THREAD__)
  constexpr double kSlower = 10;
#else
  constexpr double kSlower = 1;
#endif
  for (const std::string& source : cases) {
    const std::clock_t start = std::clock();  // the processor's time, for others may use the machine too
    EXPECT_NE(error_of([&] { rendered(source); }), "") << source.substr(0, 100);
    EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 5 * kSlower) << source.substr(0, 100);
  }
}

// The shape of templates that people have.
TEST(ChatTemplate, RendersAConversation) {
  const std::string source = R"({%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if message.role == "user" and not(message.content.startswith('<t>') and message.content.endswith('</t>')) %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role != 'system' %}
        {{- '<|im_start|>' + message.role + '\n' + message.content | trim + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt is not defined or add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
{{- ns.last }}
)";
  EXPECT_EQ(rendered(source),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
            "Hi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
            "<|im_start|>assistant\n1");
}

TEST(ChatTemplate, IsFoundInAFolder) {
  TempFolder dir;
  EXPECT_EQ(find_chat_template(dir.path()), "");
  spill(dir / "tokenizer_config.json", R"({"chat_template": "a"})");
  EXPECT_EQ(find_chat_template(dir.path()), "a");
  spill(dir / "tokenizer_config.json",
        R"({"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})");
  EXPECT_EQ(find_chat_template(dir.path()), "d");
  spill(dir / "chat_template.jinja", "j");
  EXPECT_EQ(find_chat_template(dir.path()), "j");
}

}  // namespace sennit::tokenizers::chat_template_test
