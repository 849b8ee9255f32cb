"""The plan of a load: the dataset's columns, the target table, and whether they fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shared.errors import TaskFailure
from worker.tables.parquet.calendar import within_calendar
from worker.tables.parquet.staging import batches_of, schema_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from shared.jobs.data.places import TableDestination
    from worker.tables.databases.dialect import Dialect
    from worker.tables.databases.types import ExistingColumn

Mode = Literal["append", "replace", "upsert"]
Progress = Callable[[int, "int | None"], None]
"""Takes the rows so far and the total, if known. An exception from it ends the load and rolls it back."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The counts of a load; `already_loaded` if an earlier delivery made it."""

    destination: str
    mode: str
    inserted_count: int
    updated_count: int
    deleted_count: int
    already_loaded: bool = False


@dataclass(frozen=True, slots=True)
class TablePlan:
    """One load into one table."""

    load_id: str
    connection: str
    table: str
    mode: Mode
    key: tuple[str, ...]
    dataset: Path
    columns: Mapping[str, pa.DataType]
    row_count: int
    dialect: Dialect
    typeless: frozenset[str] = frozenset()
    """The columns without any value, which fit every type."""
    adds_columns: bool = False
    """Whether the table gets the columns that it lacks."""

    @property
    def destination(self) -> str:
        """Where the rows go, without credentials."""
        return f"{self.connection}:{self.table}"

    @property
    def target(self) -> str:
        """The quoted name of the table, with its schema if one was given."""
        return self.dialect.target(self.table)

    def without(self, names: Iterable[str]) -> TablePlan:
        """Return the plan without some columns of the target, which keep their own values."""
        left_out = set(map(self.dialect.fold, names)) - set(map(self.dialect.fold, self.key))
        kept = {name: kind for name, kind in self.columns.items() if self.dialect.fold(name) not in left_out}
        return replace(self, columns=kept)


def plan_table(
    connection: str,
    destination: TableDestination,
    dataset: Path,
    *,
    load_id: str,
    dialect: Dialect,
) -> TablePlan:
    """Return the plan, with each column in the type that the engine stores.

    Raises `TaskFailure` for a reserved table, columns that cannot be told apart, or a key that is not there.
    """
    _refuse_reserved(destination.table, dialect)
    schema, row_count = schema_of(dataset), pq.read_metadata(dataset).num_rows
    _refuse_ambiguous(schema.names, dialect.fold)
    if missing := [name for name in destination.key if name not in schema.names]:
        raise TaskFailure(
            "key_column_missing",
            f"The key names {missing}, but the dataset has the columns {schema.names}.",
            remedy="Use columns of the dataset in destination.key.",
        )
    return TablePlan(
        load_id=load_id,
        connection=connection,
        table=destination.table,
        mode=destination.mode,
        key=tuple(destination.key),
        dataset=dataset,
        columns=_represented(schema, dialect),
        row_count=row_count,
        dialect=dialect,
        typeless=frozenset(field.name for field in schema if pa.types.is_null(field.type)),
        adds_columns=destination.new_columns == "add",
    )


def bare_plan(connection: str, destination: TableDestination, dialect: Dialect) -> TablePlan:
    """Return the plan of a load without rows, to look at the target. Raises `TaskFailure` for a reserved table."""
    _refuse_reserved(destination.table, dialect)
    return TablePlan("", connection, destination.table, destination.mode, (), Path(), {}, 0, dialect)


def read_batches(plan: TablePlan, on_progress: Progress) -> Iterator[pa.RecordBatch]:
    """Yield the dataset in batches of the plan's types and report the rows once each batch has been taken.

    Raises `TaskFailure`: ``value_not_exact`` for a value that the type cannot hold, ``date_out_of_range`` for a date
    beyond the years 1 to 9999.
    """
    schema = pa.schema(list(plan.columns.items()))
    done = 0
    for batch in batches_of(plan.dataset, list(plan.columns)):
        arrays = [_exact(batch.column(name), kind, name) for name, kind in plan.columns.items()]
        yield within_calendar(pa.RecordBatch.from_arrays(arrays, schema=schema))
        done += batch.num_rows
        on_progress(done, plan.row_count)


def adapted(
    plan: TablePlan,
    existing: Sequence[ExistingColumn],
    fits: Callable[[ExistingColumn, pa.DataType], bool],
) -> TablePlan:
    """Return the plan with types of the table where nothing is lost: for columns without values, and whole numbers."""
    known = {plan.dialect.fold(column.name): column for column in existing}
    columns = dict(plan.columns)
    for name, kind in plan.columns.items():
        column = known.get(plan.dialect.fold(name))
        if column is None:
            continue
        if name in plan.typeless:
            columns[name] = plan.dialect.when_empty(column)
        elif pa.types.is_integer(kind) and not fits(column, kind) and (floating := plan.dialect.floating(column)):
            columns[name] = floating if _are_exact_in(plan, name, floating) else kind
    return replace(plan, columns=columns)


def _are_exact_in(plan: TablePlan, name: str, kind: pa.DataType) -> bool:
    try:
        for batch in batches_of(plan.dataset, [name]):
            pc.cast(batch.column(0), kind, safe=True)
    except pa.ArrowInvalid:
        return False
    return True


def check_fits(
    plan: TablePlan,
    existing: Sequence[ExistingColumn],
    fits: Callable[[ExistingColumn, pa.DataType], bool],
) -> None:
    """Raise `TaskFailure` (``columns_do_not_fit``) that names every column that does not fit, with both types.

    The table may have further columns that are nullable or have a default; they get NULL or the default.
    """
    fold = plan.dialect.fold
    known = {fold(column.name): column for column in existing}
    named = {fold(name) for name in plan.columns}
    problems = []
    for name, kind in plan.columns.items():
        column = known.get(fold(name))
        if column is None:
            problems.append(f"{name!r} ({kind} in the dataset) is not in the table")
        elif not fits(column, kind):
            problems.append(f"{name!r} is {kind} in the dataset, but {column.declared} in the table")
    problems += [
        f"{column.name!r} ({column.declared} in the table) is required but not in the dataset"
        for key, column in known.items()
        if column.required and key not in named
    ]
    if problems:
        raise TaskFailure(
            "columns_do_not_fit",
            f"The dataset does not fit the table {plan.destination}: {'; '.join(problems[:20])}.",
            remedy="Rename, cast, select or derive these columns in a transform step, name their types in "
            "layout.types, set destination.new_columns to 'add', or change the table.",
            problem_count=len(problems),
        )


def _represented(schema: pa.Schema, dialect: Dialect) -> dict[str, pa.DataType]:
    """Return the type of each column as the engine stores it. Raises `TaskFailure` that names all that it cannot."""
    columns: dict[str, pa.DataType] = {}
    refused: list[tuple[str, TaskFailure]] = []
    for field in schema:
        try:
            columns[field.name] = dialect.represent(field.type)
        except TaskFailure as unloadable:
            refused.append((field.name, unloadable))
    if refused:
        name, first = refused[0]
        others = f" Nor can the columns {[other for other, _ in refused[1:]]} be stored." if refused[1:] else ""
        raise TaskFailure(
            first.code, f"The column {name!r}: {first.message}{others}", remedy=first.remedy, column=name
        ) from None
    return columns


def _exact(column: pa.Array, kind: pa.DataType, name: str) -> pa.Array:
    if column.type == kind:
        return column
    try:
        return pc.cast(column, kind, safe=True)
    except pa.ArrowInvalid as inexact:
        raise TaskFailure(
            "value_not_exact",
            f"A value of column {name!r} ({column.type}) does not fit {kind}: {inexact}.",
            remedy="Cast or round the column in a transform step.",
            column=name,
        ) from None


def _refuse_reserved(table: str, dialect: Dialect) -> None:
    *schema, name = table.lower().split(".")
    if name.startswith(("celeriac_", "sqlite_")) or (schema and schema[0].startswith(dialect.system_schemas)):
        raise TaskFailure(
            "table_reserved",
            f"The table {table!r} belongs to the database or to this service.",
            remedy="Choose another table name.",
        )


def _refuse_ambiguous(names: Sequence[str], fold: Callable[[str], str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if not name or "\0" in name:
            raise TaskFailure(
                "column_name_refused",
                f"The column name {name!r} cannot be used in a table.",
                remedy="Rename the column in a transform step.",
            )
        if (other := seen.get(fold(name))) is not None:
            raise TaskFailure(
                "column_name_refused",
                f"The columns {other!r} and {name!r} have the same name for this database.",
                remedy="Rename one of them in a transform step.",
            )
        seen[fold(name)] = name
    if not names:
        raise TaskFailure("column_name_refused", "The dataset has no columns.", remedy="Select at least one column.")
