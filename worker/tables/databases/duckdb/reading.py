"""Read DuckDB: types that Arrow would give another value are read as numbers of 38 digits, or as DuckDB writes them.

In Arrow a time with an offset would lose it, the largest UHUGEINT would be -1, and bits would be bytes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from shared.errors import TaskFailure
from worker.tables.duck.session import interruptible
from worker.tables.parquet.columns import quoted, text

if TYPE_CHECKING:
    import duckdb

#: Read as texts, and loaded from texts.
AS_TEXTS = frozenset({"TIME WITH TIME ZONE", "BIT", "BIGNUM", "INTERVAL"})
HUGE = frozenset({"HUGEINT", "UHUGEINT"})
_OPAQUE = re.compile(r'"(?:[^"]|"")*"|\'(?:[^\']|\'\')*\'')
_WITHIN = re.compile(r"\b(TIME WITH TIME ZONE|BIT|BIGNUM|UHUGEINT)\b")
_LARGEST = "9" * 38


def kept(session: duckdb.DuckDBPyConnection, query: str) -> str:
    """Return the query with each column read so that its values are kept.

    Raises `TaskFailure` (``unsupported_type``) for a list or the like of values that would not be.
    """
    described = interruptible(session, lambda: session.execute(f"DESCRIBE {query}\n").fetchall())
    kinds = [(str(name), str(kind)) for name, kind, *_ in described]
    for name, kind in kinds:
        if kind not in AS_TEXTS | HUGE and (found := _WITHIN.search(_OPAQUE.sub("", kind))) is not None:
            raise TaskFailure(
                "unsupported_type",
                f"The column {name!r} is {kind}, and values of {found[0]} are read only by themselves.",
                remedy="Cast the column to text in 'query'.",
                column=name,
            )
    if not any(kind in AS_TEXTS | HUGE for _, kind in kinds):
        return query
    parts = [f"{_read(f'q.c{at}', name, kind)} AS {quoted(name)}" for at, (name, kind) in enumerate(kinds)]
    columns = ", ".join(f"c{at}" for at in range(len(kinds)))
    return f"SELECT {', '.join(parts)} FROM ({query}\n) AS q ({columns})"  # noqa: S608 - quoted names


def _read(column: str, name: str, kind: str) -> str:
    if kind in AS_TEXTS:
        return f"CAST({column} AS VARCHAR)"
    if kind in HUGE:
        beyond = f"error({text(f'The column {name!r} has more than 38 digits: ')} || {column})"
        inside = f"{column} BETWEEN {'0' if kind == 'UHUGEINT' else f'-{_LARGEST}'} AND {_LARGEST}"
        return f"CASE WHEN {column} IS NULL OR {inside} THEN CAST({column} AS DECIMAL(38, 0)) ELSE {beyond} END"
    return column
