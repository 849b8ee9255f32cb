"""Stage a table or a query of a database in batches, in a read-only transaction."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from shared.errors import TaskFailure
from worker.tables.databases.statements import select, select_from
from worker.tables.inference import settle
from worker.tables.parquet.staging import schema_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from shared.jobs.data.places import SqlSource
    from worker.tables.databases.base import Database, Transaction
    from worker.tables.inference import Candidate
    from worker.tables.parquet.calendar import OutOfRange

_UNKNOWN_DECIMAL = pa.decimal128(38, 10)  # for a column without values whose table does not declare a scale
# first the parts of SQL in which semicolons and parentheses mean nothing, then any other single character
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

    Returns the columns staged as text whose type is still to be inferred from their values; the other columns have
    their final types. Raises `TaskFailure` (``query_refused``, ``query_failed``, ``unsupported_type``,
    ``date_out_of_range``) and `TransientFailure` (``database_unavailable``).
    """
    whole_table = select(database.dialect, source.table or "")
    query = whole_table if source.query is None else single_select(source.query)
    with _storable():
        return database.stage_query(
            query,
            staged,
            memory_limit_bytes=memory_limit_bytes,
            on_rows=on_rows,
            out_of_range=source.dates_out_of_range,
        )


def read_table(
    source: Database | Transaction,
    table: str,
    output: Path,
    *,
    scratch: Path,
    memory_limit_bytes: int,
    on_rows: Callable[[int], None],
    condition: str = "",
    columns: Collection[str] = (),
    temporal: Collection[str] = (),
    when_empty: Mapping[str, pa.DataType] | None = None,
    out_of_range: OutOfRange = "fail",
) -> int:
    """Write the rows of `table` that meet `condition` to the new Parquet file `output`; return how many there are.

    A transaction gives the rows as it sees them, before its commit.
    `condition` is SQL of this worker, never of a client. `columns` are the only ones that are read.
    Columns in `temporal` become dates or times even if the
    engine stores them as text. `when_empty` is the type of columns without values whose type is inferred from them.
    `out_of_range` is that of `Database.stage_query`. Raises `TaskFailure` and `TransientFailure`, see `stage_sql`.
    """
    staged = scratch / f"{output.stem}-staged.parquet"
    with _storable():
        candidates = source.stage_table(
            table,
            condition,
            staged,
            temporal=temporal,
            memory_limit_bytes=memory_limit_bytes,
            on_rows=on_rows,
            out_of_range=out_of_range,
            columns=columns,
        )
    return _settled(staged, output, candidates, when_empty or {})


def read_query(
    source: Database,
    query: str,
    output: Path,
    *,
    scratch: Path,
    memory_limit_bytes: int,
    on_rows: Callable[[int], None],
    condition: str = "",
    columns: Collection[str] = (),
    temporal: Collection[str] = (),
    when_empty: Mapping[str, pa.DataType] | None = None,
    out_of_range: OutOfRange = "fail",
) -> int:
    """Write the rows of a client's `query` as `read_table` does those of a table."""
    staged = scratch / f"{output.stem}-staged.parquet"
    rows = select_from(source.dialect, single_select(query), condition, columns)
    with _storable():
        candidates = source.stage_query(
            rows, staged, memory_limit_bytes=memory_limit_bytes, on_rows=on_rows, out_of_range=out_of_range
        )
    if source.dialect.times_are_texts:
        texts = {field.name for field in schema_of(staged) if pa.types.is_string(field.type)}
        candidates |= dict.fromkeys(texts.intersection(temporal), "temporal")
    return _settled(staged, output, candidates, when_empty or {})


def _settled(
    staged: Path, output: Path, candidates: Mapping[str, Candidate], when_empty: Mapping[str, pa.DataType]
) -> int:
    empty = {**_empty_decimals(candidates), **when_empty}
    count = settle(staged, output, candidates, lambda _: None, when_empty=empty)
    staged.unlink()
    return count


def read_as_stored(
    source: Transaction,
    table: str,
    output: Path,
    *,
    scratch: Path,
    memory_limit_bytes: int,
    on_rows: Callable[[int], None],
) -> tuple[int, list[str]]:
    """Write the rows of `table` to `output` with every text as the database stores it.

    Returns how many there are, and the columns of texts that are dates or times for `read_table`: spelled by another
    engine they would be other texts. Raises `TaskFailure` and `TransientFailure`, see `stage_sql`.
    """
    staged = scratch / f"{output.stem}-staged.parquet"
    with _storable():
        candidates = source.stage_table(
            table, "", staged, temporal=(), memory_limit_bytes=memory_limit_bytes, on_rows=on_rows
        )
    times = [name for name, candidate in candidates.items() if candidate == "temporal"]
    others = {name: candidate for name, candidate in candidates.items() if candidate != "temporal"}
    count = settle(staged, output, others, lambda _: None, when_empty=_empty_decimals(candidates))
    staged.unlink()
    return count, times


def _empty_decimals(candidates: Mapping[str, Candidate]) -> dict[str, pa.DataType]:
    return {name: _UNKNOWN_DECIMAL for name, candidate in candidates.items() if candidate == "decimal"}


def single_select(query: str) -> str:
    """Return `query` without a closing semicolon.

    Raises `TaskFailure` (``query_refused``) unless it is a single reading statement. This gives a clear message and
    protects drivers that wrap the query; the read-only transaction prevents writes.
    """
    depth, end, opaque_free = 0, len(query), True
    for token in _TOKEN.finditer(query):
        sign = token["sign"]
        if sign is None:
            continue
        if not opaque_free and not sign.isspace():
            raise _refused("it has more than one statement")
        if sign in {"'", '"'}:
            raise _refused("it has an unclosed quote")
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if depth < 0:
            raise _refused("it has an unopened closing parenthesis")
        if sign == ";":
            end, opaque_free = token.start(), False
    if depth:
        raise _refused("it has an unclosed parenthesis")
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
            f"A column has a type that Parquet does not support: {unsupported}.",
            remedy="Cast the column to text in 'query'.",
        ) from None


def _refused(why: str) -> TaskFailure:
    return TaskFailure("query_refused", f"source.query: {why}.", remedy="Use a single SELECT statement.")
