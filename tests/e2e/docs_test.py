#!/usr/bin/env python3
"""docs_test.py SOURCE BUILD: the table of systems is complete and tells the truth, and the generated docs are up to date."""

import json
import pathlib
import re
import subprocess
import sys

SOURCE, BUILD = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
KEYS = ["id", "name", "title", "arxiv", "kind", "room", "mechanism", "status", "file", "law_or_test", "missing"]
ROOMS = {"mixers", "channels", "projections", "norms", "activations", "positions", "blocks", "caches", "decoding", "passes",
         "optimizers", "tasks", "probes", "sequence", "state", "model", "train", "serve", "dist", "report"}
faults = []


def expect(truth, message):
    if not truth:
        faults.append(message)


def check_rows(rows):
    expect(len(rows) == 305, f"305 systems, found {len(rows)}")
    expect([r["id"] for r in rows] == [f"P{i:03}" for i in range(1, 306)], "ids from P001 to P305 in order, each once")
    for r in rows:
        expect(list(r) == KEYS, f"{r['id']}: the keys {KEYS}")
        expect(r["name"] and r["title"] and r["kind"] and r["mechanism"], f"{r['id']}: a name, title, kind and mechanism")
        expect(r["room"] in ROOMS, f"{r['id']}: a known room, found {r['room']}")
        expect(not r["arxiv"] or re.fullmatch(r"\d{4}\.\d{5}", r["arxiv"]), f"{r['id']}: an arXiv id, found {r['arxiv']}")
        expect(r["status"] in ("works", "part", "open"), f"{r['id']}: a status, found {r['status']}")
        expect((r["status"] == "part") == bool(r["missing"]), f"{r['id']}: `missing` where a part works, and only there")
        expect((r["status"] == "open") != bool(r["file"] and r["law_or_test"]), f"{r['id']}: a file and a test unless open")


def check_claims(rows):
    listing = subprocess.run(["ctest", "--test-dir", BUILD, "--show-only=json-v1"], capture_output=True, text=True, check=True)
    tests = {re.sub(r"_\d+$", "", t["name"]) for t in json.loads(listing.stdout)["tests"]}  # parts of one program are numbered
    for r in rows:
        if r["status"] == "open":
            continue
        expect((SOURCE / r["file"]).is_file(), f"{r['id']}: {r['file']} is no file")
        name, *arguments = r["law_or_test"].split()
        if not arguments:
            expect(name in tests, f"{r['id']}: ctest lists no {name}")
            continue
        found = subprocess.run([BUILD / "tests" / name, "--gtest_list_tests", *arguments], capture_output=True, text=True)
        expect(found.returncode == 0 and "\n  " in found.stdout, f"{r['id']}: no test {r['law_or_test']}")


# A registered thing is a file that defines register_<its name>.
def check_tables():
    for room in ["mixers", "channels", "norms", "positions", "blocks", "optimizers", "tasks"]:
        page = (SOURCE / "docs" / f"{room}.md").read_text()
        for file in (SOURCE / "src" / room).glob("*.cpp"):
            for name in re.findall(r"^void register_(\w+)\(", file.read_text(), re.M):
                expect(f"`{name}`" in page, f"docs/{room}.md: no {name}")


def check_links():
    for page in [*SOURCE.glob("*.md"), *(SOURCE / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            expect((page.parent / target).exists(), f"{page.relative_to(SOURCE)}: a link to {target}, which is not there")


def check_generated():
    program = BUILD / "sennit"
    if not program.exists():
        print("generated files not checked: the program is not built")
        return
    done = subprocess.run([SOURCE / "scripts/docs", "--check", "--sennit", program], capture_output=True, text=True)
    print(done.stdout, end="")
    expect(done.returncode == 0, done.stderr.strip())


systems = json.loads((SOURCE / "docs/systems.json").read_text())
check_rows(systems)
check_claims(systems)
check_tables()
check_links()
check_generated()
for fault in faults:
    print("expected", fault)
sys.exit(1 if faults else 0)
