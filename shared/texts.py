"""Texts and JSON that every reader can take, whatever a task's body said: valid, bounded, without credentials."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

TEXT_LENGTH = 2_000  # characters of a message, a log line, a text among the details of a failure
_LARGEST_INT = 2**63 - 1  # what other languages' readers of JSON take
_DEPTH = 6
_NAME_LENGTH = 100

# Each of these looks at a character a bounded number of times: a body's message may have megabytes.
_USERINFO = re.compile(r"://[^\s/\"]*@")  # up to the last @: a password may contain one
_SENSITIVE = (
    "password|passwd|passphrase|pwd|secret|token|credential|signature|authorization|cookie"
    "|(?:api|access|private|signing)[_-]?key"
)
_SENSITIVE_ALONE = "key|sig"  # sort_key and design are something else
_SECRET_NAME = re.compile(rf"(?i){_SENSITIVE}|\A(?:{_SENSITIVE_ALONE})\Z")
_SECRET_PAIR = re.compile(  # name=value, and 'name': value as JSON and Python write it
    rf"(?i)\b((?:\w{{0,64}}?(?:{_SENSITIVE})|{_SENSITIVE_ALONE})(?:=|['\"]: ?))"
    r"('[^']*(?:'|\Z)|\"[^\"]*(?:\"|\Z)|[^\s&;'\"]+)"
)
_API_KEY = re.compile(r"(cel(?:_|%5[fF])[0-9A-Za-z]{8})(?:_|%5[fF])[0-9A-Za-z]{16,}")  # its id may be seen
_PAIR_SIGNS = ("=", "':", '":')  # no pair is without one, and finding that takes a thousandth of the time
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def by_commas(text: str) -> tuple[str, ...]:
    """Return what stands between the commas of `text`, without blanks around it; nothing for what is blank."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def redact(text: str) -> str:
    """Return `text` without the user info of URLs, API keys, and the values of pairs whose name is that of a secret."""
    text = _API_KEY.sub(r"\1_***", _USERINFO.sub("://", text))
    return _SECRET_PAIR.sub(r"\1***", text) if any(sign in text for sign in _PAIR_SIGNS) else text


def names_secret(name: str) -> bool:
    """Return whether a field of this name holds a secret: `password`, `client_secret`, `api_key`; `key` as a whole."""
    return _SECRET_NAME.search(name) is not None


def redact_field(name: str, value: object) -> str:
    """Return `value` as text for a log: fully hidden if `name` is that of a secret, else redacted."""
    return "***" if names_secret(name) else redact(as_text(value))


def valid(text: str) -> str:
    """Return `text` with each unpaired surrogate (half of an emoji) replaced by a question mark."""
    return text.encode("utf-8", "replace").decode()


def as_text(value: object) -> str:
    """Return `str(value)`, the empty text for None, and a description of what has no text."""
    if value is None:
        return ""
    try:
        return str(value)
    except Exception as failure:  # noqa: BLE001 - the text of a foreign object: its code may raise anything
        return f"<{type(value).__name__} without a text: {type(failure).__name__}>"


def said(value: object, most: int = TEXT_LENGTH) -> str:
    """Return what a body said as a text of at most `most` characters.

    Credentials are taken out, and control characters and half emojis replaced by question marks.
    """
    text = redact(as_text(value))
    if len(text) > most:
        notice = f"… ({len(text)} characters)"
        text = text[: max(most - len(notice), 0)] + notice
    return valid(_CONTROL.sub("?", text.replace("\r\n", "\n").replace("\r", "\n")))


def finite(number: Any) -> float | None:
    """Return `number` if it is a finite number; None otherwise (a word, NaN, infinity)."""
    try:
        plain = number if type(number) is int else float(number)
        return plain if math.isfinite(plain) else None
    except Exception:  # noqa: BLE001 - a foreign object's own __float__ may raise anything
        return None


def _number(number: Any) -> float | None:
    is_whole = isinstance(number, Integral) and abs(int(number)) <= _LARGEST_INT
    return int(number) if is_whole else finite(number)


def plain(values: Mapping[Any, Any], most: int = 4 * TEXT_LENGTH) -> dict[str, Any]:
    """Return what a body gave as values for programs: JSON values, bounded in depth and in all to about `most` bytes.

    The values of secrets are hidden by their names. What has no JSON form becomes its text, numbers that are not finite
    become null, and the rest of what is too much is left out: ``"…"`` stands for it.
    """
    return _Plain(most).object(values, 0)


class _Plain:
    """Copies values as long as there is room."""

    def __init__(self, room: int) -> None:
        self._room = room

    def object(self, values: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, value in values.items():
            if self._room <= 0:
                made["…"] = "…"
                break
            key = said(name, _NAME_LENGTH)
            self._room -= len(key) + 4
            made[key] = "***" if names_secret(key) else self._value(value, depth)
        return made

    def _value(self, value: Any, depth: int) -> Any:
        self._room -= 8
        try:
            return self._converted(value, depth)
        except Exception:  # noqa: BLE001 - a foreign object's own code may raise anything
            return self._text(value)

    def _converted(self, value: Any, depth: int) -> Any:
        match value:
            case None | bool():
                return value
            case Integral() | Real() | Decimal():
                return _number(value)
            case Mapping() if depth < _DEPTH:
                return self.object(value, depth + 1)
            case list() | tuple() | set() | frozenset() if depth < _DEPTH:
                return self._list(value, depth)
            case _:
                return self._text(value)

    def _list(self, values: Any, depth: int) -> list[Any]:
        made: list[Any] = []
        for value in values:
            if self._room <= 0:
                made.append("…")
                break
            made.append(self._value(value, depth + 1))
        return made

    def _text(self, value: Any) -> str:
        text = said(value, min(TEXT_LENGTH, max(self._room, 1)))
        self._room -= len(text)
        return text


def json_text(value: Any) -> str:
    """Return `value` as JSON that is valid everywhere.

    Numbers that are not finite become null, and objects without a JSON form their text.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=as_text)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, default=as_text)
    return valid(text)


def _finite(value: Any) -> Any:
    match value:
        case float():
            return finite(value)
        case dict():
            return {name: _finite(item) for name, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value
