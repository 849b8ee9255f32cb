"""Messages that went wrong on the way: what programs, networks and people make of a right one."""

from __future__ import annotations

import base64
import copy
import json
import random
from collections.abc import Callable
from typing import Any

Message = dict[str, Any]

_ODD: tuple[Any, ...] = (
    None,
    "",
    0,
    -1,
    True,
    3.5,
    float("nan"),
    float("inf"),
    1 << 70,
    "/dev/null",  # as a path it harms nobody
    "x" * 300,
    "\ud83d",
    "\x00",
    [],
    ["args"],
    [[], {}, {}],
    {},
    {"a": 1},
    {"__type__": "uuid", "__value__": 7},
    {"__type__": [], "__value__": 7},
)


def _with(message: Message, part: str, **changed: Any) -> bytes:
    return json.dumps(message | {part: message[part] | changed}).encode()


def _body(message: Message, body: bytes) -> bytes:
    return json.dumps(message | {"body": base64.b64encode(body).decode()}).encode()


#: What was seen to end workers, by what is wrong with it.
POISON: dict[str, Callable[[Message], bytes]] = {
    "an empty body": lambda message: json.dumps(message | {"body": ""}).encode(),
    "a body that is a number": lambda message: _body(message, b"7"),
    "a body that is not base64": lambda message: json.dumps(message | {"body": "%%%"}).encode(),
    "a body that is not UTF-8": lambda message: _body(message, b"\xff\xfe[[], {}, {}]"),
    "arguments that are not a list": lambda message: _body(message, b"[7, {}, {}]"),
    "an unknown encoding": lambda message: _with(message, "properties", body_encoding="rot13"),
    "no delivery tag": lambda message: _with(message, "properties", delivery_tag=None),
    "an id that is an object": lambda message: _with(message, "headers", id={"a": 1}),
    "no id": lambda message: _with(message, "headers", id=None),
    "time limits that are not numbers": lambda message: _with(message, "headers", timelimit=["a", {}]),
    "a start that is not a time": lambda message: _with(message, "headers", eta="soon"),
    "an unknown compression": lambda message: _with(message, "headers", compression="application/x-none"),
    "an unknown content type": lambda message: json.dumps(message | {"content-type": "application/x-none"}).encode(),
    "another object": lambda _: b'{"a": 1}',
    "a list": lambda _: b"[]",
    "a number": lambda _: b"7",
    "no JSON": lambda _: b"notjson",
    "no UTF-8": lambda message: json.dumps(message).encode().replace(b"task", b"t\xffsk"),
    "a deep hole": lambda _: b"[" * 100_000,
    "nothing": lambda _: b"",
}


def mutated(message: Message, seed: int) -> bytes:
    """Return what is left of `message` after one to three accidents, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - nothing is to be secret
    if chance.random() < 0.15:
        return chance.choice(list(POISON.values()))(message)
    broken: Message = json.loads(json.dumps(message))
    for _ in range(chance.randint(1, 3)):
        _break(broken, chance)
    raw = bytearray(json.dumps(broken).encode())
    if chance.random() < 0.3:
        for _ in range(chance.randint(1, 4)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
    if chance.random() < 0.1:
        del raw[chance.randrange(len(raw)) :]
    return bytes(raw)


def _break(message: Message, chance: random.Random) -> None:
    """Change or remove a part, a header, a property, or something of the body."""
    where = chance.choice(("message", "headers", "properties", "delivery_info", "body"))
    if where == "body":
        message["body"] = _broken_body(message["body"] if isinstance(message.get("body"), str) else "", chance)
        return
    part: Any = message
    if where != "message":
        part = message.get("properties" if where == "delivery_info" else where)
        part = part.get(where) if where == "delivery_info" and isinstance(part, dict) else part
    if not isinstance(part, dict) or not part:
        return
    name = chance.choice(list(part))
    if chance.random() < 0.2:
        del part[name]
    else:
        part[name] = copy.deepcopy(chance.choice(_ODD))


def _broken_body(body: str, chance: random.Random) -> str:
    try:
        parts = json.loads(base64.b64decode(body))
    except ValueError:
        return body
    if isinstance(parts, list) and parts:
        at = chance.randrange(len(parts))
        if isinstance(parts[at], dict) and parts[at] and chance.random() < 0.5:
            parts[at][chance.choice(list(parts[at]))] = copy.deepcopy(chance.choice(_ODD))
        elif chance.random() < 0.2:
            del parts[at]
        else:
            parts[at] = copy.deepcopy(chance.choice(_ODD))
    return base64.b64encode(json.dumps(parts).encode()).decode()
