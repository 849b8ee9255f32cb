"""Walk through the text of a JSON file object by object; only the part around the position is in memory."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from shared.errors import TaskFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from io import TextIOWrapper

_LARGEST_OBJECT = 8 * 1024**2  # characters
_LARGEST_KEY = 64 * 1024  # characters
_CHUNK = 256 * 1024  # characters
_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r"[^\"{}\[\]]*")
_IN_TEXT = re.compile(r"[^\"\\]*")
_SCALAR = re.compile(r"[^,}\]\s]*")
_KEYS = json.JSONDecoder()
_MOST_NAMES = 20
Row = tuple[dict[str, Any], str]


class Cursor:
    """A position in the text of a file."""

    def __init__(self, file: TextIOWrapper, decoder: json.JSONDecoder, on_read: Callable[[], None]) -> None:
        """Begin at the start of `file`. `decoder` reads the objects; `on_read` is called after each piece."""
        self._file = file
        self._decoder = decoder
        self._on_read = on_read
        self._text = ""
        self.at = 0
        self.number = 0

    def peek(self) -> str:
        """Return the next character that is not a space, without consuming it; an empty string at the end."""
        while True:
            matched = _SPACE.match(self._text, self.at)
            self.at = matched.end() if matched else self.at
            if self.at < len(self._text) or not self._more():
                return self._text[self.at : self.at + 1]

    def take(self) -> Row:
        """Consume the next object and return it."""
        self.number += 1
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self.at)
            except json.JSONDecodeError as broken:
                if len(self._text) - self.at < _LARGEST_OBJECT and self._more():
                    continue  # the object may end in the part that was not read yet
                raise malformed(f"object {self.number}: {broken.msg}") from None
            except (ValueError, RecursionError) as odd:
                reason = "its values are nested too deeply" if isinstance(odd, RecursionError) else str(odd)
                raise malformed(f"object {self.number}: {reason}") from None
            if not isinstance(value, dict):
                raise malformed(f"value {self.number} is not an object, so it has no columns")
            source, self.at = self._text[self.at : end], end
            return value, source

    def descend(self, path: Sequence[str]) -> None:
        """Go to the value at the keys `path`, past all values before it.

        Raises `TaskFailure` (``record_path_missing``) that names the keys that there are.
        """
        for depth, wanted in enumerate(path):
            seen: list[str] = []
            where = "/".join(path[:depth]) or "the top"
            if self.peek() != "{":
                raise _missing(f"at {where} is not an object, so it has no key {wanted!r}")
            self.at += 1
            while (key := self._key()) != wanted:
                if key is None:
                    raise _missing(f"{where} has no key {wanted!r}; it has {', '.join(map(repr, seen)) or 'none'}")
                seen = [*seen, key[:100]][:_MOST_NAMES]
                self.skip()

    def ascend(self, depth: int) -> None:
        """Go past all that follows within `depth` objects; what is cut off is refused."""
        for _ in range(depth):
            while self._key() is not None:
                self.skip()

    def skip(self) -> None:
        """Go past one value without keeping it."""
        depth = 0
        while True:
            sign = self.peek()
            if sign in {"{", "["}:
                depth += 1
                self.at += 1
            elif sign in {"}", "]"} and depth:
                depth -= 1
                self.at += 1
            elif sign == '"':
                self.at += 1
                self._end_of_text()
            elif sign and depth:
                self._pass(_PLAIN)
            elif sign and sign not in ",}]":
                self._pass(_SCALAR)
            else:
                raise malformed("a value is missing or cut off")
            if not depth:
                return

    def _key(self) -> str | None:
        """Return the next key of an object and go to its value; None, and past the object, at its end."""
        if self.peek() == ",":
            self.at += 1
        if self.peek() == "}":
            self.at += 1
            return None
        if self.peek() != '"':
            raise malformed("a key is missing, or the file is cut off")
        while True:
            try:
                key, end = _KEYS.raw_decode(self._text, self.at)
                break
            except json.JSONDecodeError:
                if len(self._text) - self.at > _LARGEST_KEY or not self._more():
                    raise malformed("a key is too long or cut off") from None
        self.at = end
        if self.peek() != ":":
            raise malformed(f"after the key {key[:100]!r} there is no colon")
        self.at += 1
        self.peek()
        return str(key)

    def _end_of_text(self) -> None:
        while True:
            self._pass(_IN_TEXT)
            sign = self._text[self.at : self.at + 1]
            if not sign:
                raise malformed("a text is cut off")
            if sign == '"':
                self.at += 1
                return
            if len(self._text) - self.at < 2 and not self._more():  # noqa: PLR2004 - a backslash and what it escapes
                raise malformed("a text is cut off")
            self.at += 2

    def _pass(self, pattern: re.Pattern[str]) -> None:
        while True:
            matched = pattern.match(self._text, self.at)
            self.at = matched.end() if matched else self.at
            if self.at < len(self._text) or not self._more():
                return

    def _more(self) -> bool:
        """Read twice as much as is buffered; return whether there was anything left to read."""
        rest = self._text[self.at :]
        chunk = self._file.read(max(_CHUNK, len(rest)))
        self._text, self.at = rest + chunk, 0
        self._on_read()
        return bool(chunk)


def _missing(what: str) -> TaskFailure:
    return TaskFailure(
        "record_path_missing",
        f"layout.record_path: {what}.",
        remedy="Name the keys that lead to the list of objects, for example 'data.items' or '/data/items'.",
    )


def malformed(what: str) -> TaskFailure:
    """Return the failure for a file that is not JSON."""
    return TaskFailure(
        "source_malformed",
        f"The source is not well-formed JSON: {what}.",
        remedy="Provide an array of objects, one object, or one object per line.",
    )
