"""The ledger's script, put together from its parts.

Redis runs it as one chunk of Lua, so that what two transitions share is written once. A part begins with what it takes
from which other part, in the words of luacheck, and takes only from those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import resources

from shared.ledger.counters import lua_bounds
from shared.ledger.keys import Keys
from shared.ledger.states import lua_states

OFTEN = (
    "records",
    "events",
    "results",
    "files",
    "queues",
    "steps",
    "endings",
    "submission",
    "claims",
    "cancelling",
    "reading",
)
# Only set up for a transition that the parts above do not have: setting up is paid with every call, and it was a third
# of the cost of a small one.
SELDOM = ("callbacks", "schedules", "forgetting", "keeper", "pauses", "workers", "metrics")


def part(name: str) -> str:
    """Return the text of one part."""
    folder = "often" if name in OFTEN else "seldom"
    return resources.files(__name__).joinpath(folder, f"{name}.lua").read_text("utf-8")


@lru_cache
def source(keys: Keys) -> str:
    """Return the whole script, with these names of keys."""
    return f"""{lua_states()}
{lua_bounds()}
{keys.written_into(_text(OFTEN))}
if not T[ARGV[1]] then
{keys.written_into(_text(SELDOM))}
end
local done, reply = try(function() return T[ARGV[1]](cjson.decode(ARGV[2])) end)
if not done then
  local is_of_the_server = ({{ OOM = true, MISCONF = true, READONLY = true }})[string.match(reply, '^%u+')]
  return redis.error_reply((is_of_the_server and '' or 'REFUSED ') .. (string.gsub(reply, '%c', ' ')))
end
admit_all()
write_counts()
return reply
"""


def _text(parts: Sequence[str]) -> str:
    return "\n".join(part(name) for name in parts)
