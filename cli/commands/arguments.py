"""What a person types for a job's parameters and options, read into JSON."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Mistyped(ValueError):
    """An argument cannot be read; the text says which and how it should look."""


def read_params(
    source: str | None, assignments: Sequence[str] = (), *, of: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the parameters in `source` with `assignments` (`a.b=1`) made in them.

    `source` is JSON text, `@file` or `-` for standard input; None is those in `of`, or none. Raises `Mistyped`.
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
    """Set one value, such as `source.url=...`, `steps.0.columns=["a"]`; objects on the way are made."""
    path, equals, text = assignment.partition("=")
    names = path.split(".")
    if not equals or not all(names):
        raise Mistyped(f"--set {assignment}: write NAME=VALUE, with dots between nested names.")
    holder: Any = params
    for name in names[:-1]:
        inner = _place(holder, name, assignment)
        holder = holder.setdefault(inner, {}) if isinstance(holder, dict) else holder[inner]
    holder[_place(holder, names[-1], assignment)] = _value(text)


def _place(holder: Any, name: str, assignment: str) -> Any:
    """Return the key or index that `name` is in `holder`."""
    if isinstance(holder, dict):
        return name
    if isinstance(holder, list):
        if name.isdecimal() and int(name) < len(holder):
            return int(name)
        raise Mistyped(f"--set {assignment}: the list has {len(holder)} items, counted from 0; {name!r} is none.")
    raise Mistyped(f"--set {assignment}: there is nothing named {name!r} inside a plain value.")


def _value(text: str) -> Any:
    """Return `text` as JSON if it is that, else as a string."""
    try:
        return json.loads(text)
    except ValueError:
        return text
