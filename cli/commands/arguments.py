"""Parse a job's parameters and options from the command line into JSON."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Mistyped(ValueError):
    """An argument cannot be parsed; the text names it and the expected form."""


def read_params(
    source: str | None, assignments: Sequence[str] = (), *, of: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the parameters in `source` with the `assignments` (`a.b=1`) applied.

    `source` is JSON text, `@file` or `-` for standard input; None means those in `of`, or none. Raises `Mistyped`.
    """
    params = _object(source) if source is not None else copy.deepcopy(dict(of or {}))
    for assignment in assignments:
        _assign(params, assignment)
    return params


def _object(source: str) -> dict[str, Any]:
    text, where = _text(source)
    try:
        value = json.loads(text)
    except ValueError as broken:
        raise Mistyped(f"--params: {where} is not JSON: {broken}.") from None
    if not isinstance(value, dict):
        raise Mistyped(f'--params: {where} is not a JSON object such as {{"source": ...}}.')
    return value


def _text(source: str) -> tuple[str, str]:
    if source == "-":
        return sys.stdin.read(), "standard input"
    if not source.startswith("@"):
        return source, "the text"
    path = Path(source[1:])
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as unreadable:
        reason = getattr(unreadable, "strerror", None) or "it is not UTF-8 text"
        raise Mistyped(f"--params: {path} cannot be read: {reason}.") from None


def _assign(params: dict[str, Any], assignment: str) -> None:
    """Set one value, such as `source.url=...`, `steps.0.columns=["a"]`; missing objects are created."""
    path, equals, text = assignment.partition("=")
    names = path.split(".")
    if not equals or not all(names):
        raise Mistyped(f"--set {assignment}: use NAME=VALUE, with dots between nested names.")
    holder: Any = params
    for name in names[:-1]:
        inner = _place(holder, name, assignment)
        holder = holder.setdefault(inner, {}) if isinstance(holder, dict) else holder[inner]
    holder[_place(holder, names[-1], assignment)] = _value(text)


def _place(holder: Any, name: str, assignment: str) -> Any:
    """Return `name` as a key or index of `holder`."""
    if isinstance(holder, dict):
        return name
    if not isinstance(holder, list):
        raise Mistyped(f"--set {assignment}: {name!r} would be inside a plain value. Set that value as a whole.")
    if name.isdecimal() and int(name) < len(holder):
        return int(name)
    known = f"0 to {len(holder) - 1}" if holder else "none, the list is empty: set it as a whole"
    raise Mistyped(f"--set {assignment}: {name!r} is not an index of the list. Known: {known}.")


def _value(text: str) -> Any:
    """Return `text` parsed as JSON, or as a string if it is not JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text
