#!/usr/bin/env python3
"""Files stay small, and nothing is left for later."""
import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2])
LIMITS = [("src/mixers/", 300), ("src/kernels/", 500), ("", 800)]  # lines, by the first prefix that fits
FORBIDDEN = re.compile(r"\b(TODO|FIXME|XXX)\b")
SUFFIXES = {".h", ".cpp", ".cmake", ".py", ".ts", ".css", ".html", ".md", ".sh", ".txt"}
SKIPPED = {"build", "node_modules", ".git", "seeds", "regressions"}


def complaints():
    for path in sorted(ROOT.rglob("*")):
        name = path.relative_to(ROOT)
        if path.suffix not in SUFFIXES or SKIPPED & set(name.parts) or not path.is_file():
            continue
        lines = path.read_text(errors="replace").splitlines()
        limit = next(most for prefix, most in LIMITS if str(name).startswith(prefix))
        if path.suffix in (".h", ".cpp", ".py", ".ts") and len(lines) > limit:
            yield f"{name}: {len(lines)} lines, at most {limit}"
        if path.samefile(__file__):
            continue
        for number, line in enumerate(lines, 1):
            if FORBIDDEN.search(line):
                yield f"{name}:{number}: {line.strip()}"


found = list(complaints())
print("\n".join(found) or "all files are small and finished")
sys.exit(bool(found))
