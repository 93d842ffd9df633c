#!/usr/bin/env python3
"""templates_test.py TOOL FOLDER: chat templates, real ones from FOLDER's vocabularies (tokenizers_test.py fetches them) and small
ones, as Jinja2 renders them. Exit code 77: skipped, with the reason."""
import datetime
import json
import pathlib
import subprocess
import sys

TOOL, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])
try:
    import jinja2.ext
    import jinja2.sandbox
except ImportError:
    print("skipped: python3-jinja2 is not there")
    sys.exit(77)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


# As Hugging Face's library sets it up.
home = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
home.filters["tojson"] = lambda x, indent=None: json.dumps(x, ensure_ascii=False, indent=indent)
home.globals |= {"raise_exception": raise_exception, "strftime_now": lambda f: datetime.datetime.now().strftime(f)}

TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Says \"é\"\n", "parameters": {
    "type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer", "default": 1.5}}, "required": ["place"]}}}]
CALL = {"type": "function", "id": "1", "function": {"name": "weather", "arguments": {"place": "Oslo", "days": [1, None, True]}}}
TEXT_CALL = {"type": "function", "function": {"name": "weather", "arguments": "{\"place\": 1}"}}
user, system = {"role": "user", "content": " Hi there\n"}, {"role": "system", "content": "Be brief."}
assistant = {"role": "assistant", "content": "<think>\nWell.\n</think>\n\nHello"}
CONVERSATIONS = [
    {"messages": [user]}, {"messages": [system, user]}, {"messages": [user, assistant, user]}, {"messages": [system, user, assistant, user, assistant]},
    {"messages": [user, {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}, {"role": "tool", "content": "cold"},
                  {"role": "tool", "content": "wet"}, {"role": "assistant", "content": "Stay"}, user], "tools": TOOLS},
    {"messages": [user, {"role": "assistant", "content": None, "tool_calls": [TEXT_CALL, TEXT_CALL]}, {"role": "tool", "content": "cold"}]},
    {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " look "}]}]},
    {"messages": [assistant]}, {"messages": [user, user]}, {"messages": []}]
CONTEXTS = [c | {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": g, "enable_thinking": g} for c in CONVERSATIONS for g in (True, False)]

SMALL = [
    "{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 3 }} {{ 1.0 }} {{ 1e20 }} {{ 0.1 + 0.2 }} {{ -2 ** 2 }} {{ 1 + 2 ~ 3 }}",
    "{{ [1, 'a', none, {'k': 1.0}, true] }} {{ \"it's\" ~ [\"it's\", 'q\"'] }} {{ (1, 2)[1] }} {{ {'a': 1}['a'] }}",
    "a\n  {% if true %}\nb\n  {% endif %}\nc\n", "a  {%- if true -%}  b  {%- endif %}\n c", "  {# x #}  \n a {#- y -#} \n b", "{% if true +%}\nb\n\n{% endif %}\n\n",
    "{% if true %}  \n  {% set a = 1 %}\n\t{{ a }}\n{% endif %} x {% if true %}\n y{% endif %}", "\n\n{{ 1 }}\n\n{{ 2 }}\n\n\n",
    "{% for m in messages if m.role == 'user' %}{{ loop.index }}/{{ loop.length }} {{ loop.revindex0 }} {{ m.content | trim }}{% else %}none{% endfor %}",
    "{% set a = 1 %}{% for i in range(3) %}{% set a = i %}{{ a }}{% endfor %}{{ a }}{% if true %}{% set a = 9 %}{% endif %}{{ a }}",
    "{% macro f(a, b='z') %}[{{ a }}{{ b }}]{% endmacro %}{{ f(1) }}{{ f(b=2, a=messages | length) | upper }}{{ f() }}",
    "{{ messages | map(attribute='role') | unique | join(',') }} {{ 'a b  c '.split(' ') }} {{ 'a b  c '.split() }} {{ 'abc'.split('b', 1) }}",
    "{{ 'Hello World foo'.title() }} {{ 'hELLO'.capitalize() }} {{ 'x-y' | replace('-', '+') }} {{ 'abcabc'.replace('b', '', 1) }} {{ 'ab'.find('z') }}",
    "{{ [3, 1, 2] | sort }} {{ ['b', 'A', 'c'] | sort }} {{ [3, 1] | sort(reverse=true) }} {{ [[2, 1], [1, 5]] | sort }} {{ [1, 2, 3] | sum }} {{ [4, 2] | min }}",
    "{{ x | default('d') }} {{ '' | default('d', true) }} {{ none | default('d') }} {{ x is defined }} {{ 3.7 | int }} {{ 'z' | int }} {{ '2' | float }} {{ 2.5 | round }}",
    "{{ 'abcdef'[1:4] }} {{ 'abcdef'[::-2] }} {{ [1, 2, 3][-2:] }} {{ [1, 2, 3][5:] }} {{ 'abc'[-1] }} {{ [1, 2, 3][:-1] }} {{ 'abc'[3:0:-1] }}",
    "{{ {'b': 1, 'a': [1, {'c': none}]} | tojson }} {{ [] | tojson }} {{ {'a': [1, 2]} | tojson(indent=2) }} {{ '\\u00e9\"' | tojson }} {{ 1.0 | tojson }}",
    "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% endfor %}{{ {'a': 1}.get('z') }}{{ {'b': 1, 'a': 2} | dictsort | map('first') | join }}{{ {'a': 1}.keys() | list }}",
    "{{ 1 is odd }} {{ 'a' in 'abc' }} {{ 1 in [1, 2] }} {{ 'k' in {'k': 1} }} {{ not 1 == 2 }} {{ 1 < 2 and 2 < 3 or false }} {{ '' or 'x' }} {{ 1 and 0 }}",
    "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}{% set t %} {{ 1 }} {% endset %}{{ t }}|",
    "{{ 'a\nb\n\nc' | indent(2) }} {{ 'a\nb' | indent(2, true) }} {{ 'a' * 3 }} {{ [1] + [2] }} {{ 'abc' | list }} {{ 'abc' | first }} {{ [1, 2] | last }} {{ 'é' | length }}",
    "{{ undefined_name }}{{ messages.nothing }}{{ 1 + none }}", "{{ nope.x }}", "{{ 'a' + 1 }}", "{{ raise_exception('no') }}", "{{ x | map('upper') | list }}",
    "{{ ['a', 'b'] | map('upper') | list }} {{ [1, 2, 3, 4] | select('even') | list }} {{ [0, 1] | reject | list }} {{ messages | selectattr('content') | list | length }}",
    "{{ 'x' if false }}|{{ 'a' if x else 'b' if true else 'c' }} {{ ' a '|trim|length }} {{ 'xxaxx'.strip('x') }} {{ 'xa'.lstrip('x') }} {{ 'ab'.endswith(('b', 'c')) }}",
]

templates = {f"small {i}": s for i, s in enumerate(SMALL)}
for config in sorted(FOLDER.glob("*/tokenizer_config.json")):
    source = json.loads(config.read_text()).get("chat_template")
    if isinstance(source, str):
        templates[config.parent.name] = source

asked, wanted = [], []
for name, source in templates.items():
    for context in CONTEXTS if not name.startswith("small") else CONTEXTS[8:9]:
        try:
            text = home.from_string(source).render(**context)
        except Exception as e:  # whatever Python finds wrong with it
            text = None
        asked.append({"template": source, "context": context})
        wanted.append((name, text))
done = subprocess.run([TOOL, "bytes"], input="".join(json.dumps(a) + "\n" for a in asked), capture_output=True, text=True, check=True)
faults = 0
for (name, text), line, question in zip(wanted, done.stdout.splitlines(), asked, strict=True):
    got = json.loads(line)
    if got.get("text") != text:
        faults += 1
        print(f"{name}: {question['template'][:200]!r}\n  wanted {text!r}\n  found  {got}")
real = sorted(n for n in templates if not n.startswith("small"))
print(f"{len(asked)} renderings, {faults} differences; real templates: {', '.join(real) or 'none'}")
sys.exit(faults > 0)
