"""The ledger's script, assembled from its parts.

It is one library of functions of the server, so that transitions share code, and the server loads it only once. A part
begins by declaring, for luacheck, what it uses of which other part; it uses only parts before it. A part that no other
uses is a block: Lua has room for 200 local variables outside of blocks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Mapping
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

from shared.ledger.counters import lua_bounds
from shared.ledger.envelopes import lua_forms
from shared.ledger.keys import Keys
from shared.ledger.records import EVENTS_KEPT, MOST_CHILDREN, ROWS_WAITING
from shared.ledger.states import lua_states

#: The parts in order, by folder.
PARTS = {
    "jobs": (
        "records",
        "events",
        "results",
        "files",
        "messages",
        "queues",
        "holds",
        "steps",
        "endings",
        "submission",
        "claims",
        "expanding",
        "cancelling",
    ),
    "service": (
        "reading",
        "callbacks",
        "schedules",
        "forgetting",
        "keeper",
        "pauses",
        "workers",
        "metrics",
        "unclaimed",
        "writing",
        "access",
    ),
}
#: The transitions that only read: the server runs them even while its memory or disk is full.
READS = frozenset(
    {
        "access",
        "keys",
        "known",
        "list",
        "look",
        "look_in_hands",
        "metrics",
        "queues",
        "read",
        "schedule",
        "schedules",
        "schedules_due",
        "waiting_lists",
        "workers",
    }
)
#: How the error reply begins if the server does not have the function; this reply has no error code.
NOT_LOADED = "Function not found"
_FAMILY = "celeriac_"
_MOST_LIBRARIES = 16  # of all versions and prefixes on a server


class Library(NamedTuple):
    """The script in the form that the server loads. Its name differs between versions and prefixes."""

    name: str
    code: str

    def call(self, transition: str, *arguments: Any) -> tuple[Any, ...]:
        """Return the command that runs a transition.

        With `until` among the arguments it does nothing after that time: the reply is then the error `LATE` with the
        current time. Both are milliseconds by the server's clock.
        """
        reads = transition in READS
        return ("FCALL", f"{self.name}_read" if reads else self.name, 0, transition, *arguments)

    def loading(self) -> Generator[tuple[Any, ...], Any]:
        """Yield the commands that load it; send the reply of each command back into the generator.

        Libraries outlive the processes that loaded them, so if there are many, the others are deleted. A process that
        still needs one of them loads it again.
        """
        listed = yield ("FUNCTION", "LIST", "LIBRARYNAME", f"{_FAMILY}*")
        others = sorted(set(map(_name, listed)) - {self.name})
        for other in others if len(others) >= _MOST_LIBRARIES else ():
            yield ("FUNCTION", "DELETE", other)
        yield ("FUNCTION", "LOAD", "REPLACE", self.code)


def _name(listed: Any) -> str:
    """Return the name of a library in the reply of FUNCTION LIST, whose form depends on protocol and client."""
    of = listed if isinstance(listed, dict) else dict(zip(listed[::2], listed[1::2], strict=True))
    name = of.get("library_name") or of[b"library_name"]
    return name.decode() if isinstance(name, bytes) else name


def part(name: str) -> str:
    """Return the text of one part."""
    folder = next(folder for folder, names in PARTS.items() if name in names)
    return resources.files(__name__).joinpath(folder, f"{name}.lua").read_text("utf-8")


def all_parts() -> list[str]:
    """Return the names of the parts in order."""
    return [name for names in PARTS.values() for name in names]


@lru_cache
def library(keys: Keys) -> Library:
    """Return the whole script, with these names of keys."""
    parts = keys.written_into(_joined({name: part(name) for name in all_parts()}))
    text = f"{lua_states()}\n{lua_bounds()}\n{lua_limits()}\n{lua_forms()}\n{parts}\n{_ANSWER}"
    name = _FAMILY + hashlib.sha256(text.encode()).hexdigest()[:16]
    return Library(name, f"#!lua name={name}\n{text}{_registered(name)}")


def _joined(texts: Mapping[str, str]) -> str:
    """Join the parts; one whose names no other uses is a block, as a function of Lua has at most 200 of them."""
    used = set(re.findall(r"^-- luacheck: .*\((\w+)\)$", "\n".join(texts.values()), re.MULTILINE))
    return "\n".join(text if name in used else f"do\n{text}\nend" for name, text in texts.items())


def lua_limits() -> str:
    """Return the limits that the callers share with the script, as Lua."""
    return f"local EVENTS_KEPT, MOST_CHILDREN, ROWS_WAITING = {EVENTS_KEPT}, {MOST_CHILDREN}, {ROWS_WAITING}"


def _registered(name: str) -> str:
    return f"""
redis.register_function('{name}', answer)
redis.register_function{{ function_name = '{name}_read', callback = answer, flags = {{ 'no-writes' }} }}
"""


_ANSWER = """
local function answer(_, arguments)
  begin()
  local done, reply = try(function()
    local a = cjson.decode(arguments[2])
    if a['until'] and NOW > a['until'] then error('LATE ' .. int(NOW), 0) end
    return T[arguments[1]](a, arguments)
  end)
  if not done then
    local has_code = ({ OOM = true, MISCONF = true, READONLY = true, LATE = true })[string.match(reply, '^%u+')]
    return redis.error_reply((has_code and '' or 'REFUSED ') .. (string.gsub(reply, '%c', ' ')))
  end
  admit_all()
  write_counts()
  return reply
end
"""
