"""Stage a table or a query of a database, batch by batch, in a transaction that can only read."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from shared.errors import TaskFailure
from worker.tables.databases.statements import select
from worker.tables.inference import settle

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from shared.jobs.data.places import SqlSource
    from worker.tables.databases.base import Database
    from worker.tables.inference import Candidate

_UNKNOWN_DECIMAL = pa.decimal128(38, 10)  # of a column that has no value yet, and whose table names no scale
# the parts of SQL in which a semicolon or a parenthesis means nothing, and all other single signs
_TOKEN = re.compile(
    r"""(?P<opaque>'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|--[^\n]*|/\*.*?\*/)|(?P<sign>.)""",
    re.DOTALL,
)
_READING = re.compile(r"(?is)\s*(?:(?:--[^\n]*\n|/\*.*?\*/)\s*)*\(*\s*(select|with|values|table|from)\b")


def stage_sql(
    database: Database,
    source: SqlSource,
    staged: Path,
    *,
    memory_limit_bytes: int,
    on_rows: Callable[[int], None],
) -> dict[str, Candidate]:
    """Write the rows of a table or a query to the Parquet file `staged`.

    Returns what the columns may become that came as text although they are something else; the other columns have
    their types. Raises `TaskFailure` (``query_refused``, ``query_failed``, ``unsupported_type``) and
    `TransientFailure` (``database_unavailable``).
    """
    whole_table = select(database.dialect, source.table or "")
    query = whole_table if source.query is None else single_select(source.query)
    with _storable():
        return database.stage_query(query, staged, memory_limit_bytes=memory_limit_bytes, on_rows=on_rows)


def read_table(
    database: Database,
    table: str,
    output: Path,
    *,
    scratch: Path,
    memory_limit_bytes: int,
    on_rows: Callable[[int], None],
    condition: str = "",
    temporal: Collection[str] = (),
    when_empty: Mapping[str, pa.DataType] | None = None,
) -> int:
    """Write the rows of `table` that meet `condition` to the new Parquet file `output`; return how many there are.

    `condition` is SQL of this worker's own, never a client's. Columns in `temporal` become dates or times also where
    the engine knows them as text only. `when_empty` types columns without a value, if their values would have said it.
    Raises `TaskFailure` and `TransientFailure`, see `stage_sql`.
    """
    staged = scratch / f"{output.stem}-staged.parquet"
    with _storable():
        candidates = database.stage_table(
            table, condition, staged, temporal=temporal, memory_limit_bytes=memory_limit_bytes, on_rows=on_rows
        )
    unknown = {name: _UNKNOWN_DECIMAL for name, candidate in candidates.items() if candidate == "decimal"}
    count = settle(staged, output, candidates, lambda _: None, when_empty={**unknown, **(when_empty or {})})
    staged.unlink()
    return count


def single_select(query: str) -> str:
    """Return `query` without a closing semicolon.

    Raises `TaskFailure` (``query_refused``) if it is anything but one statement that reads. This is for the
    message's sake and for drivers that wrap the query; that nothing is written is the transaction's business.
    """
    depth, end, opaque_free = 0, len(query), True
    for token in _TOKEN.finditer(query):
        sign = token["sign"]
        if sign is None:
            continue
        if not opaque_free and not sign.isspace():
            raise _refused("it has more than one statement")
        if sign in {"'", '"'}:
            raise _refused("it has a quote that is never closed")
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if depth < 0:
            raise _refused("it closes a parenthesis that was not opened")
        if sign == ";":
            end, opaque_free = token.start(), False
    if depth:
        raise _refused("it opens a parenthesis that is not closed")
    if not _READING.match(query):
        raise _refused("it does not begin with SELECT, WITH, VALUES, TABLE or FROM")
    return query[:end].strip()


@contextmanager
def _storable() -> Iterator[None]:
    try:
        yield
    except pa.ArrowNotImplementedError as unsupported:
        raise TaskFailure(
            "unsupported_type",
            f"A column has a type that Parquet lacks: {unsupported}.",
            remedy="Convert it to text in 'query'.",
        ) from None


def _refused(why: str) -> TaskFailure:
    return TaskFailure(
        "query_refused", f"source.query: {why}.", remedy="Give one SELECT statement, without others beside it."
    )
