"""A backup is of what can be restored, by the database's own rules, and nothing is lost in trying."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.errors import TaskFailure
from tests.support.engines import ENGINES, Engine, make_engine
from tests.worker.maintenance.backup.test_backup import bounds
from tests.worker.tables.databases.test_postgresql_types import ORDER_ROWS, ORDERS
from worker.maintenance.backup.backup import back_up_tables
from worker.maintenance.backup.restore import Restored, restore_table

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def postgresql(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return make_engine("postgresql", tmp_path, request)


def backed_up(engine: Engine, table: str) -> Path:
    """Return a backup of a table."""
    backup = engine.folder / f"{table}.zip"
    back_up_tables(engine.database, [table], backup, bounds(engine.folder))
    return backup


def restored(engine: Engine, backup: Path, table: str, *, load_id: str = "one", replace: bool = True) -> Restored:
    """Restore a backup."""
    return restore_table(backup, engine.database, table, replace=replace, load_id=load_id, bounds=bounds(engine.folder))


def test_orders_are_restored_into_their_own_table_and_into_another(postgresql: Engine) -> None:
    """Every value is equal for the database itself."""
    postgresql.run(ORDERS.format("orders"), ORDERS.format("copies"), ORDER_ROWS)
    before = postgresql.run("SELECT o::text FROM orders o ORDER BY 1")
    backup = backed_up(postgresql, "orders")
    postgresql.run("DELETE FROM orders WHERE price = 'NaN'")
    for table in ("orders", "copies"):
        restored(postgresql, backup, table, load_id=table)
        assert postgresql.run(f"SELECT o::text FROM {table} o ORDER BY 1") == before  # noqa: S608 - names of the test


def test_numbers_and_computed_columns_go_on_after_the_restored_rows(postgresql: Engine) -> None:
    """An identity keeps its values, a generated column is computed again, and the next row gets the next number."""
    postgresql.run(
        "CREATE TABLE sales (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, old serial, price numeric(10, 2), "
        "twice numeric GENERATED ALWAYS AS (price * 2) STORED)",
        "INSERT INTO sales (price) SELECT i FROM generate_series(1, 5) AS i",
    )
    before = postgresql.run("SELECT s::text FROM sales s ORDER BY id")
    backup = backed_up(postgresql, "sales")
    postgresql.run("TRUNCATE sales RESTART IDENTITY")
    restored(postgresql, backup, "sales")
    assert postgresql.run("SELECT s::text FROM sales s ORDER BY id") == before
    assert postgresql.run("INSERT INTO sales (price) VALUES (6) RETURNING id, old, twice::int") == [(6, 6, 12)]


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_computed_columns_of_the_other_engines_are_restored(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """They are read like others, and computed again."""
    engine = make_engine(kind, tmp_path, request)
    engine.run(
        "CREATE TABLE sales (id INTEGER, twice INTEGER GENERATED ALWAYS AS (id * 2))",
        "INSERT INTO sales VALUES (1), (2)",
    )
    backup = backed_up(engine, "sales")
    engine.run("DELETE FROM sales")
    restored(engine, backup, "sales")
    assert engine.run("SELECT id, twice FROM sales ORDER BY id") == [(1, 2), (2, 4)]


@pytest.mark.parametrize("engine", [e for e in ENGINES if e != "duckdb"], indirect=True)
def test_the_old_rows_stay_where_the_new_ones_are_not_those_of_the_backup(engine: Engine) -> None:
    """The check comes before the commit: a trigger that changes rows makes the job fail, and nothing is gone."""
    engine.run("CREATE TABLE sales (id INTEGER)", "INSERT INTO sales VALUES (1), (2)")
    backup = backed_up(engine, "sales")
    engine.run("DELETE FROM sales", "INSERT INTO sales VALUES (7)")
    if engine.kind == "postgresql":
        engine.run(
            "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.id = NEW.id + 10; RETURN NEW; END'",
            "CREATE TRIGGER odd BEFORE INSERT ON sales FOR EACH ROW EXECUTE FUNCTION odd()",
        )
    else:
        engine.run("CREATE TRIGGER odd AFTER INSERT ON sales BEGIN UPDATE sales SET id = id + 10 WHERE id < 10; END")
    with pytest.raises(TaskFailure) as raised:
        restored(engine, backup, "sales")
    assert (raised.value.code, engine.run("SELECT id FROM sales")) == ("restore_not_exact", [(7,)])


@pytest.fixture
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return make_engine(request.param, tmp_path, request)


@pytest.mark.parametrize(
    ("declared", "value"), [('"char"', "'a'"), ("int[]", "'{{1,2},{3,4}}'"), ("date", "'infinity'")]
)
def test_what_could_not_be_restored_is_refused_when_it_is_backed_up(
    postgresql: Engine, declared: str, value: str
) -> None:
    """The failure names the column."""
    postgresql.run(f"CREATE TABLE sales (id int, x {declared})", f"INSERT INTO sales VALUES (1, {value})")  # noqa: S608 - the test's own
    with pytest.raises(TaskFailure, match="'x'"):
        backed_up(postgresql, "sales")
