"""Stage JSON: an array of objects, one object, or one object per line.

The columns are the union of all objects' keys. Numbers and booleans get types, and columns of nothing but dates or
times in ISO 8601; other strings stay strings; nested values, and columns with values of several types, are kept as
JSON text. The file is read twice, object by object: once for the keys, once for the values. (DuckDB's reader holds
many wide objects at once.)
"""

from __future__ import annotations

import json
import re
from io import TextIOWrapper
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

import pyarrow as pa

from shared.errors import TaskFailure
from worker.tables.parquet.staging import MAX_COLUMNS, ParquetSink, column_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from worker.tables.inference import Candidate

_LARGEST_OBJECT = 8 * 1024**2  # characters
_CHUNK = 256 * 1024  # characters
_BATCH_ROWS = 2_048
_BATCH_LENGTH = 4 * 1024**2  # characters
_SPACE = re.compile(r"[ \t\r\n]*")
Row = tuple[dict[str, Any], str]


class _Number(str):
    """A number as it is written in the file, so that no digit is lost."""

    __slots__ = ()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not valid JSON")


_DECODER = json.JSONDecoder(parse_float=_Number, parse_int=_Number, parse_constant=_no_constant)


def stage_documents(path: Path, staged: Path, *, on_bytes: Callable[[int], None]) -> dict[str, Candidate]:
    """Write the objects of a plain JSON file to `staged` as text; return the possible type of each column.

    Raises `TaskFailure` (``source_malformed``, ``source_encoding``, ``source_empty``, ``too_many_columns``).
    """
    try:
        candidates = _candidates(_objects(path, on_bytes))
        names = column_names(candidates)
        schema = pa.schema([(name, pa.string()) for name in names])
        objects = _objects(path, on_bytes)
        with ParquetSink(staged, schema) as sink:
            while rows := list(_batch(objects)):
                columns = [pa.array([_text(row, key) for row in rows], pa.string()) for key in candidates]
                sink.write(pa.RecordBatch.from_arrays(columns, schema=schema))
    except UnicodeDecodeError:
        raise TaskFailure(
            "source_encoding", "The source is not encoded in UTF-8.", remedy="Convert it, for example with iconv."
        ) from None
    except UnicodeEncodeError:
        raise _malformed("it has half of a surrogate pair, which is not a character") from None
    return dict(zip(names, candidates.values(), strict=True))


def _candidates(objects: Iterator[Row]) -> dict[str, Candidate]:
    """Return the possible type of each key's values, keys in the order in which they first appear."""
    kinds: dict[str, set[type]] = {}
    for fields, _ in objects:
        for key, value in fields.items():
            kinds.setdefault(key, set()).add(type(value))
        if len(kinds) > MAX_COLUMNS:
            column_names(kinds)  # raises the failure for too many columns
    if not kinds:
        raise TaskFailure(
            "source_empty",
            "The source has no JSON object with a key.",
            remedy="Provide at least one object with a key.",
        )
    return {key: _candidate(found - {type(None)}) for key, found in kinds.items()}


def _candidate(kinds: set[type]) -> Candidate:
    if kinds == {_Number}:
        return "number"
    if kinds == {str}:
        return "temporal"
    return "boolean" if kinds == {bool} else "text"


def _batch(objects: Iterator[Row]) -> Iterator[Row]:
    length = 0
    for row in islice(objects, _BATCH_ROWS):
        yield row
        length += len(row[1])
        if length > _BATCH_LENGTH:
            return


def _text(row: Row, key: str) -> str | None:
    fields, source = row
    value = fields.get(key)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):  # encode again, with numbers as numbers
        return json.dumps(json.loads(source)[key], ensure_ascii=False, separators=(",", ":"))
    return value


def _objects(path: Path, on_bytes: Callable[[int], None]) -> Iterator[Row]:
    """Yield the objects of a file, each with its text."""
    with path.open("rb") as raw, TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
        cursor = _Cursor(file, lambda: on_bytes(raw.tell()))
        if cursor.peek() != "[":
            while cursor.peek():
                yield cursor.take()
            return
        cursor.at += 1
        if cursor.peek() != "]":
            yield cursor.take()
            while cursor.peek() == ",":
                cursor.at += 1
                yield cursor.take()
        if cursor.peek() != "]":
            raise _malformed(f"after object {cursor.number} there is neither a comma nor the end of the array")
        cursor.at += 1
        if cursor.peek():
            raise _malformed("something follows the array")


class _Cursor:
    """A position in the text of a file; only the part around it is in memory."""

    def __init__(self, file: TextIOWrapper, on_read: Callable[[], None]) -> None:
        self._file = file
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
                value, end = _DECODER.raw_decode(self._text, self.at)
            except json.JSONDecodeError as broken:
                if len(self._text) - self.at < _LARGEST_OBJECT and self._more():
                    continue  # the object may end in the part that was not read yet
                raise _malformed(f"object {self.number}: {broken.msg}") from None
            except (ValueError, RecursionError) as odd:
                reason = "its values are nested too deeply" if isinstance(odd, RecursionError) else str(odd)
                raise _malformed(f"object {self.number}: {reason}") from None
            if not isinstance(value, dict):
                raise _malformed(f"value {self.number} is not an object, so it has no columns")
            source, self.at = self._text[self.at : end], end
            return value, source

    def _more(self) -> bool:
        """Read twice as much as is buffered; return whether there was anything left to read."""
        rest = self._text[self.at :]
        chunk = self._file.read(max(_CHUNK, len(rest)))
        self._text, self.at = rest + chunk, 0
        self._on_read()
        return bool(chunk)


def _malformed(what: str) -> TaskFailure:
    return TaskFailure(
        "source_malformed",
        f"The source is not well-formed JSON: {what}.",
        remedy="Provide an array of objects, one object, or one object per line.",
    )
