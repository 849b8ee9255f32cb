"""The script's parts say what they take from which other part, and that is true."""

from __future__ import annotations

import re
from itertools import chain

from shared.ledger.counters import lua_bounds
from shared.ledger.envelopes import lua_forms
from shared.ledger.keys import KEYS
from shared.ledger.script import all_parts, lua_limits, part
from shared.ledger.states import lua_states

TAKES = re.compile(r"^-- luacheck: (?:read )?globals ([\w ]+) \((\w+)\)$", re.MULTILINE)
DEFINES = re.compile(r"^local (?:function (\w+)|([\w, ]+))", re.MULTILINE)
COMMENTS_AND_TEXTS = re.compile(r"--[^\n]*|'[^'\n]*'")
GENERATED = {
    "counters": lua_bounds(),
    "envelopes": lua_forms(),
    "keys": "local KEY = {}",
    "limits": lua_limits(),
    "states": lua_states(),
}


def defined(text: str) -> set[str]:
    found = (one or many for one, many in DEFINES.findall(text))
    return set(chain.from_iterable(re.findall(r"\w+", names) for names in found))


def test_parts_take_what_earlier_parts_define_and_use_it() -> None:
    earlier = {name: defined(text) for name, text in GENERATED.items()}
    for name in all_parts():
        used = set(re.findall(r"\w+", COMMENTS_AND_TEXTS.sub("", part(name))))
        for names, source in TAKES.findall(part(name)):
            taken = set(names.split())
            assert taken <= earlier[source], f"{name} takes from {source} what it does not define"
            assert taken <= used, f"{name} does not use what it takes from {source}"
        earlier[name] = defined(part(name))


def test_parts_name_keys_that_are_in_the_list() -> None:
    """A name that is not there would be nil, and so an error of the transition that uses it."""
    used = {found for name in all_parts() for found in re.findall(r"\bKEY\.(\w+)", part(name))}
    assert used <= KEYS.keys()


def test_only_the_end_of_a_transition_writes() -> None:
    """Redis does not roll back: what a transition would change it notes, and the last step writes all or nothing."""
    reads = {
        "TIME",
        "HGETALL",
        "HGET",
        "HMGET",
        "HEXISTS",
        "GET",
        "EXISTS",
        "ZSCORE",
        "ZRANGE",
        "ZCARD",
        "ZCOUNT",
    }
    reads |= {"ZMSCORE", "ZINTERCARD", "LRANGE", "LLEN", "HLEN", "HSCAN"}
    reads |= {"ZRANK", "SCARD", "SISMEMBER", "SMEMBERS", "SRANDMEMBER", "LINDEX", "XREVRANGE", "PTTL", "OBJECT"}
    texts = {name: part(name) for name in all_parts()}
    called = {(name, command) for name in texts for command in re.findall(r"redis\.p?call\(([^,()]+)", texts[name])}
    others = {(name, command) for name, command in called if command.strip("'") not in reads}
    assert others == {("records", "unpack"), ("events", "'HSET'"), ("records", "SIZE_OF[wanted]")}  # the last one reads
