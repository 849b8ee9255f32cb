"""Read PostgreSQL: look at the server's types, and choose for each one the Arrow type that keeps its value.

| PostgreSQL | Arrow |
| --- | --- |
| boolean, smallint, integer, bigint, real, double precision, bytea | the same |
| oid | int64 |
| text, varchar, char, name | string |
| date, timestamp, timestamptz, time | date32, timestamp, timestamp with zone, time64; the years 1 to 9999 |
| numeric, money | text here, a decimal afterwards |
| arrays of booleans, integers, floats and texts | list of these |
| arrays of others | list of strings, each as PostgreSQL writes it |
| all others (uuid, inet, timetz, interval, jsonb, ranges, enumerations ...) | string, as PostgreSQL writes it |

A domain is read as its base. An array of several dimensions, or one that does not begin at 1, is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from shared.errors import TaskFailure
from worker.tables.parquet.columns import quoted
from worker.tables.parquet.staging import write_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from adbc_driver_manager import dbapi as adbc

    from worker.tables.inference import Candidate
    from worker.tables.parquet.calendar import OutOfRange

_BATCH_BYTES = 4 * 1024**2
#: Texts of types within arrays, ranges and queries are read by any PostgreSQL in this spelling only.
SPELLING = ("SET LOCAL DateStyle = 'ISO'", "SET LOCAL IntervalStyle = 'postgres'", "SET LOCAL extra_float_digits = 1")
_IN_LISTS = {"bool", "int2", "int4", "int8", "float4", "float8", "text", "varchar", "bpchar"}
_AS_THEY_ARE = {*_IN_LISTS, "name", "bytea", "date", "timestamp", "timestamptz", "time"}
_CHOSEN = {"oid": "{}::bigint", "money": "{}::numeric::text", "inet": "abbrev({})"}  # inet::text would add /32
_DECIMALS = {"numeric", "money"}
_CHOSEN_LISTS = {"money": "{}::numeric[]::text[]"}
_FLAG = "celeriac_irregular_"
_TYPES = """
    WITH RECURSIVE held (position, type) AS (
        SELECT position, type FROM ({typed}) AS found (position, type)
        UNION ALL
        SELECT held.position, t.typbasetype
        FROM held JOIN pg_catalog.pg_type t ON t.oid = held.type WHERE t.typtype = 'd'
    )
    SELECT CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN t.typname::text ELSE '' END,
           e.oid IS NOT NULL, CASE WHEN e.typnamespace = 'pg_catalog'::regnamespace THEN e.typname::text ELSE '' END
    FROM held JOIN pg_catalog.pg_type t ON t.oid = held.type LEFT JOIN pg_catalog.pg_type e ON e.typarray = t.oid
    WHERE t.typtype <> 'd' ORDER BY held.position
"""


class _Read(NamedTuple):
    """How one column is read: the expression, for a list the condition that it is not one, and whether as digits."""

    expression: str
    irregular: str = ""
    is_decimal: bool = False


def stage_rows(
    cursor: adbc.Cursor,
    query: str,
    staged: Path,
    *,
    out_of_range: OutOfRange,
    on_rows: Callable[[int], None],
) -> dict[str, Candidate]:
    """Write the rows of a query in the open transaction of `cursor` to a Parquet file, in batches.

    Returns the columns that are numeric: they are staged as text, which keeps all digits.
    """
    for setting in SPELLING:
        cursor.execute(setting)
    names = cursor.adbc_execute_schema(f"{query}\n").names
    reads = _reads(cursor, query, len(names)) if names else []
    cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)})
    cursor.execute(_rewritten(query, names, reads))  # the driver wraps it; the newline ends a trailing comment
    reader = cursor.fetch_record_batch()
    schema = pa.schema([reader.schema.field(at) for at in range(len(names))])
    clean = write_batches(_regular(reader, schema), schema, staged, on_rows, out_of_range=out_of_range)
    return {name: "decimal" for name, read in zip(clean, reads, strict=True) if read.is_decimal}


def _reads(cursor: adbc.Cursor, query: str, count: int) -> list[_Read]:
    """Ask the server for the types of a query's columns, without running it, and return how each is read."""
    names = [f"c{at}" for at in range(count)]
    of_nulls = f"(SELECT 1) AS one LEFT JOIN ({query}\n) AS q ({', '.join(names)}) ON false"
    listed = ", ".join(f"({at}, pg_typeof(q.{name})::oid)" for at, name in enumerate(names))
    typed = f"SELECT v.position, v.type FROM {of_nulls}, LATERAL (VALUES {listed}) AS v (position, type)"  # noqa: S608 - names of ours
    cursor.execute(_TYPES.format(typed=typed))
    found = cursor.fetchall()
    return [_read(f"q.{name}", *one) for name, one in zip(names, found, strict=True)]


def _read(column: str, kind: str, is_array: bool, element: str | None) -> _Read:  # noqa: FBT001 - a row of the query
    if not is_array:
        expression = column if kind in _AS_THEY_ARE else _CHOSEN.get(kind, "{}::text").format(column)
        return _Read(expression, is_decimal=kind in _DECIMALS)
    expression = column if element in _IN_LISTS else _CHOSEN_LISTS.get(element or "", "{}::text[]").format(column)
    return _Read(expression, f"(array_ndims({column}) > 1 OR array_lower({column}, 1) <> 1) IS TRUE")


def _rewritten(query: str, names: list[str], reads: list[_Read]) -> str:
    """Return the query with each column read as chosen, and behind them one column that says what is not a list."""
    if all(read == _Read(f"q.c{at}") for at, read in enumerate(reads)):
        return f"{query}\n"
    parts = [f"{read.expression} AS {quoted(name)}" for name, read in zip(names, reads, strict=True)]
    parts += [f"{read.irregular} AS {_FLAG}{at}" for at, read in enumerate(reads) if read.irregular]
    columns = ", ".join(f"c{at}" for at in range(len(reads)))
    return f"SELECT {', '.join(parts)} FROM ({query}\n) AS q ({columns})"  # noqa: S608 - quoted names


def _regular(batches: pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the batches without the columns behind `schema`. Raises `TaskFailure` for an array that is not a list."""
    flags = {at: int(name.removeprefix(_FLAG)) for at, name in enumerate(batches.schema.names) if at >= len(schema)}
    for batch in batches:
        for at, position in flags.items():
            if pc.any(batch.column(at)).as_py():
                raise TaskFailure(
                    "unsupported_type",
                    f"The column {schema.names[position]!r} has an array of several dimensions, or not from 1.",
                    remedy="Use 'query' with the column cast to text.",
                    column=schema.names[position],
                )
        yield pa.RecordBatch.from_arrays(batch.columns[: len(schema)], schema=schema)
