"""The script's parts say what they take from which other part, and that is true."""

from __future__ import annotations

import re
from itertools import chain

from shared.ledger.script import OFTEN, SELDOM, part

TAKES = re.compile(r"^-- luacheck: (?:read )?globals ([\w ]+) \((\w+)\)$", re.MULTILINE)
DEFINES = re.compile(r"^local (?:function (\w+)|([\w, ]+))", re.MULTILINE)
COMMENTS_AND_TEXTS = re.compile(r"--[^\n]*|'[^'\n]*'")
GENERATED = {"counters": {"DURATION_BOUNDS_S"}}


def defined(name: str) -> set[str]:
    found = (one or many for one, many in DEFINES.findall(part(name)))
    return set(chain.from_iterable(re.findall(r"\w+", names) for names in found))


def test_parts_take_what_earlier_parts_define_and_use_it() -> None:
    earlier = dict(GENERATED)
    for name in (*OFTEN, *SELDOM):
        used = set(re.findall(r"\w+", COMMENTS_AND_TEXTS.sub("", part(name))))
        for names, source in TAKES.findall(part(name)):
            taken = set(names.split())
            assert taken <= earlier[source], f"{name} takes from {source} what it does not define"
            assert taken <= used, f"{name} does not use what it takes from {source}"
        earlier[name] = defined(name)
