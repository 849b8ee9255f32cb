"""Digests of content: of a table, independent of the order of its rows, and of a set of files."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from worker.tables.duck.engine import locked_engine, parquet
from worker.tables.parquet.columns import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from worker.tables.parquet.columns import Columns

_ROW_BYTES = 512
_WORD_DIGITS = 16
_WORDS = 2


def rows_digest(
    path: Path,
    *,
    like: Path | None = None,
    scratch: Path,
    memory_limit_bytes: int,
    threads: int,
    on_fraction: Callable[[float], None],
) -> tuple[int, str]:
    """Return the row count of a Parquet file and the digest of its rows, independent of their order.

    A row's text is, column by column in the order of their names, ``<length>:<value>`` or ``-`` for a missing one; the
    digest is the sum of the first two 64 bit words of the rows' SHA-256, in hexadecimal. With `like`, each column is
    first converted to its type in that file, so that a database's own representation compares equal. Raises
    `TaskFailure` if the conversion fails, or if a column is missing.
    """
    readable = {path: "the table", **({like: "the backup"} if like else {})}
    with locked_engine(
        readable=readable,
        writable=[],
        scratch=scratch,
        memory_limit_bytes=memory_limit_bytes,
        threads=threads,
        row_bytes=_ROW_BYTES,
        on_fraction=on_fraction,
    ) as engine:
        columns = engine.columns(parquet([like or path]))
        words = ", ".join(
            f"sum(CAST('0x' || substr(digest, {1 + _WORD_DIGITS * word}, {_WORD_DIGITS}) AS UBIGINT))"
            for word in range(_WORDS)
        )
        query = f"SELECT sha256({_row_text(columns)}) AS digest FROM ({parquet([path])})"  # noqa: S608 - quoted names
        ((count, *sums),) = engine.rows(f"SELECT count(*), {words} FROM ({query})")  # noqa: S608 - quoted names
    return int(count), "-".join(f"{int(value or 0):x}" for value in sums)


def files_digest(files: Iterable[tuple[str, str]]) -> str:
    """Return the digest of files given by path and SHA-256: the SHA-256 of their sorted ``<sha256>  <path>`` lines."""
    lines = sorted(f"{sha256}  {path}\n" for path, sha256 in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _row_text(columns: Columns) -> str:
    parts = []
    for name in sorted(columns):
        value = f"CAST({quoted(name)} AS {columns[name]})"
        value = f"hex({value})" if columns[name] == "BLOB" else f"CAST({value} AS VARCHAR)"
        parts.append(f"coalesce(length({value}) || ':' || {value}, '-')")
    return " || ".join(parts)
