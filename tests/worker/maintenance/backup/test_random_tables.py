"""Random tables of every type of each engine come back equal, by the database's own comparison, or are refused by name.

`make test` tries some examples, the same each time; CELERIAC_EXAMPLES=500 tries as many, other ones each time.
"""

# ruff: noqa: S608 - the test's own names and values

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from shared.errors import TaskFailure
from shared.jobs.data.places import SqlSource
from tests.support.engines import Engine, make_engine
from tests.worker.maintenance.backup.literals import OWN, TYPES
from tests.worker.maintenance.backup.test_backup import bounds
from worker.maintenance.backup.backup import back_up_tables
from worker.maintenance.backup.restore import restore_tables
from worker.tables.inference import settle
from worker.tables.read import stage_sql

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES = int(os.environ.get("CELERIAC_EXAMPLES", "0"))
random_tables = settings(
    max_examples=EXAMPLES or 6,
    derandomize=not EXAMPLES,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],  # a failure names the column and its values
)
_KEEPING_ALL = {"", "BLOB", "blob", "DATE BLOB"}
_LOOSE = {"numeric", "numeric(12,3)", "numeric(50,10)", "numeric[]"}  # 1.5 equals 1.50, which their text does not


@dataclass(frozen=True)
class Column:
    """A column and its values, a literal or NULL for each row."""

    type: str
    values: tuple[str | None, ...]


@st.composite
def columns_of(draw: st.DrawFn, kind: str) -> list[Column]:
    """Return a table: some columns of different types, none to four rows."""
    types = draw(st.lists(st.sampled_from(sorted(TYPES[kind])), min_size=1, max_size=8, unique=True))
    count = draw(st.integers(0, 4))
    values = {name: st.lists(st.none() | TYPES[kind][name], min_size=count, max_size=count) for name in types}
    return [Column(name, tuple(draw(values[name]))) for name in types]


def declared(columns: dict[str, Column]) -> str:
    return ", ".join(["id INTEGER PRIMARY KEY", *(f"{name} {column.type}" for name, column in columns.items())])


def written(engine: Engine, table: str, columns: dict[str, Column]) -> None:
    """Create a table and write its rows by the engine's own client."""
    count = len(next(iter(columns.values())).values)

    def literal(column: Column, row: int) -> str:
        value = column.values[row]
        return "NULL" if value is None else value if engine.kind == "sqlite" else f"CAST({value} AS {column.type})"

    rows = [", ".join([str(row), *(literal(column, row) for column in columns.values())]) for row in range(count)]
    engine.run(f"CREATE TABLE {table} ({declared(columns)})", *[f"INSERT INTO {table} VALUES ({row})" for row in rows])


def differing(engine: Engine, one: str, other: str, columns: dict[str, Column], *, as_texts: bool) -> list[str]:
    """Return the columns with a value that differs for the database; ``rows`` if their number does."""
    if engine.run(f"SELECT count(*) FROM {one}") != engine.run(f"SELECT count(*) FROM {other}"):
        return ["rows"]

    def differs(name: str, column: Column) -> str:
        if engine.kind == "sqlite":
            is_mixed = f"SELECT count(DISTINCT typeof({name})) FROM {one} WHERE {name} IS NOT NULL"
            if as_texts and column.type in _KEEPING_ALL and engine.run(is_mixed) != [(1,)]:
                return "false"  # such values are read as texts, and a column that keeps all keeps these
            return f"a.{name} IS NOT b.{name}"
        as_text = "::text" if engine.kind == "postgresql" and column.type not in _LOOSE else ""
        return f"a.{name}{as_text} IS DISTINCT FROM b.{name}{as_text}"

    counts = ", ".join(f"count(CASE WHEN {differs(name, column)} THEN 1 END)" for name, column in columns.items())
    (found,) = engine.run(f"SELECT {counts} FROM {one} a JOIN {other} b ON a.id = b.id")
    return [f"{name} {columns[name]}" for name, count in zip(columns, found, strict=True) if count]


def refused_column(failure: TaskFailure, columns: dict[str, Column]) -> str:
    """Return the column that a failure names; fail where it names none, or would be tried again."""
    assert not failure.retryable, failure
    named = [name for name in columns if repr(name) in failure.message or failure.details.get("column") == name]
    assert named, f"{failure} names no column of {columns}"
    return named[0]


def copied(engine: Engine, source: str, target: str) -> None:
    """Extract a table to a staged file, settle its types, and load it."""
    staged, settled = (engine.folder / f"{secrets.token_hex(4)}.parquet" for _ in range(2))
    what = SqlSource.model_validate({"kind": "sql", "connection": "warehouse", "table": source})
    candidates = stage_sql(engine.database, what, staged, memory_limit_bytes=64 * 1024**2, on_rows=lambda _: None)
    settle(staged, settled, candidates, lambda _: None)
    engine.load(settled, into=target, load_id=secrets.token_hex(8))


def restored(engine: Engine, source: str, target: str) -> None:
    """Back a table up and restore it as a new one."""
    backup = engine.folder / f"{secrets.token_hex(4)}.zip"
    back_up_tables(engine.database, [source], backup, bounds(engine.folder))
    restore_tables(
        backup, engine.database, {source: target}, replace=False, load_id=secrets.token_hex(8),
        bounds=bounds(engine.folder),
    )  # fmt: skip


@pytest.fixture(params=sorted(TYPES))
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """Return a database for all examples."""
    made = make_engine(request.param, tmp_path, request)
    if request.param == "postgresql":
        made.run(*OWN)
    return made


def check(engine: Engine, drawn: list[Column], way: Callable[[Engine, str, str], None], *, makes: bool) -> None:
    """Send a table one way and compare, without the columns that were refused on the way."""
    columns = {f"x{at}": column for at, column in enumerate(drawn)}
    while columns:
        source, target = (f"{side}_{secrets.token_hex(6)}" for side in ("source", "target"))
        written(engine, source, columns)
        try:
            if not makes:
                engine.run(f"CREATE TABLE {target} ({declared(columns)})")
            way(engine, source, target)
        except TaskFailure as failure:
            gone = refused_column(failure, columns)
            event(f"refused: {columns.pop(gone).type}")
        else:
            assert differing(engine, source, target, columns, as_texts=not makes) == []
            return
        finally:
            engine.run(f"DROP TABLE IF EXISTS {source}", f"DROP TABLE IF EXISTS {target}")


@random_tables
@given(data=st.data())
def test_a_random_table_is_copied_as_it_is(engine: Engine, data: st.DataObject) -> None:
    """From the database to a staged file and into a table of the same types."""
    check(engine, data.draw(columns_of(engine.kind)), copied, makes=False)


@random_tables
@given(data=st.data())
def test_a_random_table_is_restored_as_it_was(engine: Engine, data: st.DataObject) -> None:
    """From a backup into a new table."""
    check(engine, data.draw(columns_of(engine.kind)), restored, makes=True)
