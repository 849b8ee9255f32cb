"""Stage JSON: an array of objects, one object, or one object per line; or what is at a path within a document.

The columns are the union of all objects' keys. Numbers and booleans get types, and columns of nothing but dates or
times in ISO 8601; other strings stay strings; nested values, and columns with values of several types, are kept as
JSON text, or become columns of their own where the job wants it. The file is read twice, object by object: once for
the keys, once for the values. (DuckDB's reader holds many wide objects at once.)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from shared.errors import TaskFailure
from worker.etl.reading.cursor import Cursor, Row, malformed
from worker.tables.parquet.staging import MAX_COLUMNS, ParquetSink, column_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from worker.tables.inference import Candidate

_BATCH_ROWS = 2_048
_DEEPEST = 32  # what is nested deeper stays JSON text
_BATCH_LENGTH = 4 * 1024**2  # characters


class _Number(str):
    """A number as it is written in the file, so that no digit is lost."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """How objects are found in a file and become rows."""

    path: tuple[str, ...] = ()
    flatten: str | None = None
    non_finite: Literal["fail", "keep", "null"] = "fail"

    def constant(self, name: str) -> float | None:
        """Return what becomes of NaN or Infinity, which JSON does not have."""
        if self.non_finite == "fail":
            raise ValueError(f"{name} is not valid JSON; set layout.non_finite to 'null' or 'keep'")
        return float(name.replace("Infinity", "inf")) if self.non_finite == "keep" else None

    def decoder(self) -> json.JSONDecoder:
        """Return the decoder of objects: numbers stay as they are written."""

        def constant(name: str) -> _Number | None:
            found = self.constant(name)
            return None if found is None else _Number(repr(found))

        return json.JSONDecoder(parse_float=_Number, parse_int=_Number, parse_constant=constant)


def path_of(text: str | None) -> tuple[str, ...]:
    """Return the keys of a JSON Pointer (``/data/items``) or of a path with dots (``data.items``)."""
    if not text:
        return ()
    if text.startswith("/"):
        return tuple(key.replace("~1", "/").replace("~0", "~") for key in text[1:].split("/"))
    return tuple(text.split("."))


def stage_documents(
    path: Path, staged: Path, *, on_bytes: Callable[[int], None], shape: Shape = Shape()
) -> dict[str, Candidate]:
    """Write the objects of a plain JSON file to `staged` as text; return the possible type of each column.

    Raises `TaskFailure` (``source_malformed``, ``source_encoding``, ``source_empty``, ``too_many_columns``,
    ``record_path_missing``, ``duplicate_column``).
    """
    try:
        candidates = _candidates(_objects(path, on_bytes, shape))
        names = column_names(candidates)
        schema = pa.schema([(name, pa.string()) for name in names])
        objects = _objects(path, on_bytes, shape)
        with ParquetSink(staged, schema) as sink:
            while rows := list(_batch(objects)):
                columns = [pa.array([_text(row, key, shape) for row in rows], pa.string()) for key in candidates]
                sink.write(pa.RecordBatch.from_arrays(columns, schema=schema))
    except UnicodeDecodeError:
        raise TaskFailure(
            "source_encoding", "The source is not encoded in UTF-8.", remedy="Convert it, for example with iconv."
        ) from None
    except UnicodeEncodeError:
        raise malformed("it has half of a surrogate pair, which is not a character") from None
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


def _text(row: Row, key: str, shape: Shape) -> str | None:
    fields, source = row
    value = fields.get(key)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):  # encode again, with numbers as numbers
        whole = json.loads(source, parse_constant=shape.constant)
        if shape.flatten is not None:
            whole = dict(_flat(whole, shape.flatten))
        return json.dumps(whole[key], ensure_ascii=False, separators=(",", ":"))
    return value


def _objects(path: Path, on_bytes: Callable[[int], None], shape: Shape) -> Iterator[Row]:
    """Yield the objects of a file, each with its text."""
    origins: dict[str, tuple[str, ...]] = {}
    with path.open("rb") as raw, TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
        cursor = Cursor(file, shape.decoder(), lambda: on_bytes(raw.tell()))
        cursor.descend(shape.path)
        for fields, source in _listed(cursor, lines=not shape.path):
            if shape.flatten is None:
                yield fields, source
            else:
                yield _flattened(fields, shape.flatten, origins), source
        cursor.ascend(len(shape.path))
        if cursor.peek():
            raise malformed(f"something follows the {'document' if shape.path else 'array'}")


def _listed(cursor: Cursor, *, lines: bool) -> Iterator[Row]:
    """Yield the objects of an array, or one object; the objects of several `lines`."""
    if cursor.peek() != "[":
        while cursor.peek():
            yield cursor.take()
            if not lines:
                return
        return
    cursor.at += 1
    if cursor.peek() != "]":
        yield cursor.take()
        while cursor.peek() == ",":
            cursor.at += 1
            yield cursor.take()
    if cursor.peek() != "]":
        raise malformed(f"after object {cursor.number} there is neither a comma nor the end of the array")
    cursor.at += 1


def _flattened(fields: dict[str, Any], sign: str, origins: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return the values of nested objects under joined names. `origins` says what a name stands for in all rows."""
    flat: dict[str, Any] = {}
    for name, value, keys in _leaves(fields, sign, ()):
        if origins.setdefault(name, keys) != keys:
            raise TaskFailure(
                "duplicate_column",
                f"layout.flatten: {list(origins[name])} and {list(keys)} would both be the column {name!r}.",
                remedy="Choose another sign for layout.flatten, one that no key has.",
                column=name,
            )
        if len(origins) > MAX_COLUMNS:
            column_names(origins)  # raises the failure for too many columns
        flat[name] = value
    return flat


def _flat(fields: dict[str, Any], sign: str) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value, _ in _leaves(fields, sign, ()))


def _leaves(fields: dict[str, Any], sign: str, above: tuple[str, ...]) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    for key, value in fields.items():
        keys = (*above, key)
        if isinstance(value, dict) and value and len(keys) < _DEEPEST:
            yield from _leaves(value, sign, keys)
        else:
            yield sign.join(keys), value, keys
