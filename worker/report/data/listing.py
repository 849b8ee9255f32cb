# ruff: noqa: S608 - this module builds SQL; names are quoted and numbers are typed
"""The tables of a report: rows of a dataset or groups of them, ordered and limited by DuckDB."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from shared.errors import TaskFailure
from shared.jobs.report import TableColumn
from worker.pages.content.document import Heading, Table
from worker.pages.content.values import printable
from worker.report.data.selection import Selection
from worker.report.data.sources import Table as Dataset
from worker.tables.parquet.columns import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.jobs.report import TableBlock
    from worker.report.data.sources import Sources

MOST_COLUMNS = 50
_TOTALS = {"sum": "sum", "mean": "avg", "min": "min", "max": "max", "count": "count"}


def listed(block: TableBlock, sources: Sources, where: str) -> Table:
    """Return the table that `block` describes; `where` names it in messages.

    Raises `TaskFailure`: ``unknown_column``, ``wrong_type``.
    """
    where = f"{where} (table {block.title!r})"
    dataset = sources.tables[block.dataset]
    source = _grouped(block, dataset, where) if block.measures else f"SELECT * FROM {quoted(dataset.name)}"
    seen = _described(source, sources, block.dataset)
    columns = list(block.columns) or [TableColumn(column=name) for name in list(seen.columns)[:MOST_COLUMNS]]
    for column in columns:
        seen.need(column.column, where)
    order = _order(block, seen, where)
    chosen = ", ".join(f"{seen.shown(column.column)} AS c{i}" for i, column in enumerate(columns))
    sql = f"SELECT {chosen} FROM ({source}) AS source{order}"

    def rows(limit: int) -> Iterator[tuple[Any, ...]]:
        return sources.stream(f"{sql} LIMIT {min(limit, block.limit)}")

    left = len(seen.columns) - len(columns) if not block.columns else 0
    ((count,),) = sources.rows(f"SELECT count(*) FROM ({source})")
    return Table(
        title=printable(block.title),
        headings=[Heading(printable(column.label or column.column), column.format) for column in columns],
        rows=rows,
        row_count=count,
        limit=block.limit,
        totals=_totals(columns, seen, source, sources, where),
        note=f"{left} more columns are not shown." if left > 0 else "",
    )


def _grouped(block: TableBlock, dataset: Dataset, where: str) -> str:
    chosen = Selection(dataset, where)
    keys = [f"{chosen.key(name)} AS {quoted(name)}" for name in block.group_by]
    measures = [f"{chosen.measure(measure)} AS {quoted(name)}" for name, measure in block.measures.items()]
    groups = f" GROUP BY {', '.join(str(number) for number in range(1, len(keys) + 1))}" if keys else ""
    for one, other in pairwise(sorted([*block.group_by, *block.measures], key=str.casefold)):
        if one.casefold() == other.casefold():
            raise TaskFailure(
                "duplicate_column",
                f"{where}: the columns {one!r} and {other!r} must differ by more than case.",
                remedy="Rename a measure.",
            )
    return f"SELECT {', '.join([*keys, *measures])} FROM ({chosen.sql}){groups}"


def _described(source: str, sources: Sources, name: str) -> Dataset:
    return Dataset(name, {str(column): str(kind) for column, kind, *_ in sources.rows(f"DESCRIBE {source}")}, 0)


def _order(block: TableBlock, seen: Dataset, where: str) -> str:
    keys = [
        f"{seen.need(key.column, where)} {key.order.upper()} NULLS {key.missing.upper()}" for key in block.sort
    ] or [f"{quoted(name)} NULLS LAST" for name in block.group_by]
    return f" ORDER BY {', '.join(keys)}" if keys else ""


def _totals(
    columns: list[TableColumn], seen: Dataset, source: str, sources: Sources, where: str
) -> tuple[Any, ...] | None:
    if not any(column.total for column in columns):
        return None
    for column in columns:
        if column.total not in {None, "count"} and not seen.is_number(column.column):
            raise TaskFailure(
                "wrong_type",
                f"{where}: the column {column.column!r} is {seen.columns[column.column]}, which has no {column.total}.",
                remedy="Omit the total, or use 'count'; the other totals need numbers.",
                column=column.column,
            )
    figures = [
        f"{_TOTALS[column.total]}({seen.finite(column.column)})" if column.total else "NULL" for column in columns
    ]
    (row,) = sources.rows(f"SELECT {', '.join(figures)} FROM ({source}) AS source")
    return row
