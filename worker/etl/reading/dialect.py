"""Recognise how a CSV file separates fields, from its first records; refuse where two readings are as good."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from shared.errors import TaskFailure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.jobs.data.places import FileLayout

_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_RECORDS = 50
_SEPARATOR_LINE = re.compile(r'"?sep=(?P<sign>[^\r\n"])"?[ \t]*(?:\r\n|\n|\r|\Z)', re.IGNORECASE)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r|\Z)")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)*")
_TYPED = re.compile(
    r"|[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|\d{4}-\d\d-\d\d([ T][\d:.+Z-]+)?|true|false", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the fields of a file are separated and quoted."""

    delimiter: str
    quote: str | None
    escape: str | None
    #: Whether the backslash was recognised, not named by the job: then it may stand before itself and quotes only.
    recognised_escape: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record, as it is written between its quotes."""

    text: str
    quoted: bool
    #: Whether something follows the closing quote, or there is none.
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """The first characters of a file, from its header on, and whether that is all."""

    text: str
    is_whole: bool


def separator_line(text: str) -> tuple[str | None, int]:
    """Return the delimiter that a first line ``sep=;`` states, and the length of that line."""
    found = _SEPARATOR_LINE.match(text)
    return (found["sign"], found.end()) if found else (None, 0)


def after_lines(text: str, count: int) -> int:
    """Return where the line after `count` lines begins."""
    at = 0
    for _ in range(count):
        found = _LINE.match(text, at)
        at = found.end() if found else at
    return at


def recognise(sample: Sample, layout: FileLayout, stated: str | None) -> tuple[Dialect, int]:
    """Return the dialect of a file and the number of its columns; 0: there is no record.

    `stated` is the delimiter by the name or the first line of the file. Raises `TaskFailure` (``source_ambiguous``).
    """
    known = layout.delimiter or stated
    readings = [
        _read(sample, Dialect(sign, layout.quote, layout.escape), layout.comment)
        for sign in ([known] if known else _DELIMITERS)
    ]
    readings = [_with_escape(sample, one, layout) for one in readings]
    whole = [one for one in readings if one.agreement == 1]
    best = _best(whole) if whole else max(readings, key=lambda one: (one.agreement, not one.broken))
    return best.dialect, best.width


@dataclass(frozen=True, slots=True)
class _Reading:
    """The records of a sample in one dialect."""

    dialect: Dialect
    records: list[list[Field]]

    @property
    def width(self) -> int:
        return len(self.records[0]) if self.records else 0

    @property
    def agreement(self) -> float:
        """The share of records that have the header's fields, if it has several."""
        if self.width < 2:  # noqa: PLR2004 - one field: nothing was separated
            return 0.0
        return sum(len(record) == self.width for record in self.records) / len(self.records)

    @property
    def broken(self) -> bool:
        return any(field.broken for record in self.records for field in record)

    def explains(self, sign: str) -> bool:
        """Return whether `sign` is part of the values in this reading: quoted, in numbers, or before a space."""
        texts = (field.text for record in self.records for field in record if not field.quoted and sign in field.text)
        return all(_NUMBER.fullmatch(text.strip()) or text.count(sign) == text.count(f"{sign} ") for text in texts)

    @property
    def typed(self) -> float:
        """The share of fields below the header that are numbers, dates, or empty."""
        fields = [field for record in self.records[1:] or self.records for field in record]
        return sum(bool(_TYPED.fullmatch(field.text)) for field in fields) / max(len(fields), 1)


def _read(sample: Sample, dialect: Dialect, comment: str | None) -> _Reading:
    records = list(islice(records_of(sample.text, dialect, comment), _SAMPLE_RECORDS + 1))
    cut = len(records) > _SAMPLE_RECORDS or (not sample.is_whole and len(records) > 1)
    return _Reading(dialect, records[:-1] if cut else records)


def _with_escape(sample: Sample, plain: _Reading, layout: FileLayout) -> _Reading:
    """Return the reading with backslash escapes where only that one is whole."""
    if layout.escape or not layout.quote or not plain.broken or f"\\{layout.quote}" not in sample.text:
        return plain
    dialect = replace(plain.dialect, escape="\\", recognised_escape=True)
    escaped = _read(sample, dialect, layout.comment)
    return plain if escaped.broken else escaped


def _best(whole: list[_Reading]) -> _Reading:
    """Return the reading that explains the delimiters of the others, or has the most typed values."""
    whole = [one for one in whole if not one.broken] or whole
    explaining = [
        one for one in whole if all(one.explains(other.dialect.delimiter) for other in whole if other is not one)
    ]
    if len(explaining) == 1:
        return explaining[0]
    first, *others = sorted(explaining or whole, key=lambda one: one.typed, reverse=True)
    if others and others[0].typed == first.typed:
        signs = " or ".join(repr(one.dialect.delimiter) for one in (first, others[0]))
        raise TaskFailure(
            "source_ambiguous",
            f"The source can be read as CSV with {signs} between its fields.",
            remedy="Set layout.delimiter to the one that separates the fields.",
        )
    return first


def records_of(text: str, dialect: Dialect, comment: str | None) -> Iterator[list[Field]]:
    """Yield the records of a text; blank lines and comments are none."""
    sign, ends = re.escape(dialect.delimiter), rf"{re.escape(dialect.delimiter)}|\r\n|\n|\r|\Z"
    escaped = rf"{re.escape(dialect.escape)}.|" if dialect.escape else ""
    escape = re.escape(dialect.escape) if dialect.escape else ""
    unquoted = re.compile(rf"(?P<text>(?:{escaped}[^{sign}\r\n{escape}])*+)(?P<end>{ends})", re.DOTALL)
    quoted = unquoted
    if dialect.quote:
        quote = re.escape(dialect.quote)
        quoted = re.compile(
            rf"{quote}(?P<text>(?:{escaped}{quote}{quote}|[^{quote}{escape}])*+)(?:{quote}|\Z)(?P<junk>[^{sign}\r\n]*+)(?P<end>{ends})",
            re.DOTALL,
        )
    at = 0
    while at < len(text):
        if text[at] in "\r\n" or text[at] == comment:
            line = _LINE.match(text, at)
            at = max(line.end() if line else at, at + 1)
            continue
        record: list[Field] = []
        while True:
            is_quoted = bool(dialect.quote) and text.startswith(dialect.quote or "\0", at)
            found = (quoted if is_quoted else unquoted).match(text, at)
            if found is None:  # an escape at the very end
                record.append(Field(text[at:], is_quoted, broken=True))
                at = len(text)
                break
            junk = is_quoted and (bool(found["junk"]) or found.end("text") == len(text))
            record.append(Field(found["text"], is_quoted, broken=bool(junk)))
            at = found.end()
            if found["end"] != dialect.delimiter:
                break
        yield record
