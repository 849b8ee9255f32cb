"""Write the page of the public names from their docstrings: `make reference`."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import celeriac
from celeriac import testing
from celeriac.testing import fixtures, service

PAGE = Path(__file__).resolve().parent.parent / "docs" / "authors" / "reference.md"
_HEAD = """\
# The public names

What authors of kinds import: everything from `celeriac`, for tests from `celeriac.testing`. All other modules may
change in any release. This page is written from the docstrings by `make reference`.
"""


def page() -> str:
    """Return the page."""
    parts = [_HEAD, *_section(celeriac, celeriac.__all__), *_section(testing, testing.__all__)]
    parts += _section(service, ["Refused", "Service"])
    parts += _section(fixtures, ["celeriac_environment", "celeriac_service"])
    return "\n".join(parts)


def _section(module: ModuleType, names: list[str]) -> Iterator[str]:
    yield f"## {module.__name__}\n"
    for name in sorted(names, key=str.lower):
        yield f"### {name}\n"
        yield from _described(name, getattr(module, name))


def _described(name: str, thing: Any) -> Iterator[str]:
    if typing.get_origin(thing) is typing.Annotated:
        base, *marks = typing.get_args(thing)
        example = next(example for mark in marks for example in getattr(mark, "examples", None) or ())
        yield f"A type for annotations: `{base.__name__}` such as `{example}`.\n"
    elif members := [member.__name__ for member in typing.get_args(thing)]:
        yield f"A type for annotations: one of {', '.join(f'`{member}`' for member in members)}.\n"
    elif isinstance(thing, type):
        yield _text(thing)
        yield from _fields(thing)
        yield from _methods(thing)
    else:
        function = inspect.unwrap(thing)
        yield f"`{name}{_signature(function)}`\n"
        yield _text(function)


def _fields(model: type) -> Iterator[str]:
    if dataclasses.is_dataclass(model):
        names = [f"`{field.name}`" for field in dataclasses.fields(model) if not field.name.startswith("_")]
        yield f"Attributes: {', '.join(names)}.\n"
    described = [(name, field.description) for name, field in getattr(model, "model_fields", {}).items()]
    if any(text for _, text in described):
        yield "| field | |\n| --- | --- |"
        yield from (f"| `{name}` | {text} |" for name, text in described if text)
        yield ""


def _methods(owner: type) -> Iterator[str]:
    found = []
    for name, member in vars(owner).items():
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if name.startswith("_") or not inspect.isfunction(function) or not inspect.getdoc(function):
            continue
        called = name if isinstance(member, property) else f"{name}{_signature(function)}"
        prose = [line for line in _text(function).splitlines() if not line.startswith("    ")]  # an example's lines do
        found.append(f"- `{called}`: {' '.join(' '.join(prose).split())}")
    if found:
        yield from found
        yield ""


def _signature(function: Any) -> str:
    """Return the parameters without self and without quotes around their types."""
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(function)))
    return re.sub(r"^\((self|cls)(, )?", "(", text)


def _text(thing: Any) -> str:
    text = inspect.getdoc(thing) or ""
    listed = re.sub(r":\n((?:    \w+: .*\n?)+)", lambda found: ":\n\n" + textwrap.dedent(found[1]), text)
    return re.sub(r"^(\w+): (?=.*$)", r"- `\1`: ", listed, flags=re.MULTILINE) + "\n" if listed != text else text + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
