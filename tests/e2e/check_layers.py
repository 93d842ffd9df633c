#!/usr/bin/env python3
"""Rooms include only themselves and rooms above them in src/CMakeLists.txt; kernels include only kernels and
base/cpu.h; nothing includes cli. A quoted include that names no room is an error too."""
import pathlib
import re
import sys

SRC = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2]) / "src"


def rooms_in_order():
    """The rooms in the order in which src/CMakeLists.txt lists them, lowest first."""
    order = []
    text = re.sub(r"#.*", "", (SRC / "CMakeLists.txt").read_text())
    for call in re.finditer(r"sennit_room\((\w+)|sennit_kernels\(|foreach\((?:socket|room) IN ITEMS ([^)]*)\)", text):
        if call.group(1):
            order.append(call.group(1))
        elif call.group(2):
            quoted = re.findall(r'"(\w+) \w+"', call.group(2))
            order += quoted or call.group(2).split()
        else:
            order.append("kernels")
    return ["sennit"] + order + ["cli"]  # include/sennit: the public headers, which include nothing of src


def complaints():
    rank = {room: i for i, room in enumerate(rooms_in_order())}
    for path in sorted(SRC.glob("*/*")):
        if path.suffix not in (".h", ".cpp"):
            continue
        room = path.parent.name
        if room not in rank:
            yield f"{path}: room {room} is not in src/CMakeLists.txt"
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found = re.match(r'\s*#include "([^"]+)"', line)
            if not found:
                continue
            at, other = f"{path}:{number}", found.group(1).split("/")[0]
            if other not in rank:
                yield f"{at}: {found.group(1)} is in no room"
            elif rank[other] > rank[room]:
                yield f"{at}: {room} includes {other}, which lies above it"
            elif room == "kernels" and other != "kernels" and found.group(1) != "base/cpu.h":
                yield f"{at}: a kernel includes {found.group(1)}"


found = list(complaints())
print("\n".join(found) or "all includes point downwards")
sys.exit(bool(found))
