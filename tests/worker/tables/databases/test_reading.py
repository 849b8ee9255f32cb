"""What reading promises, the same for every engine of the registry."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from shared.errors import ClaimLost, TaskFailure
from shared.jobs.data.places import SqlSource
from tests.support.engines import ENGINES, Engine, make_engine
from worker.runtime.scratch import comes_of_full_disk
from worker.tables.read import read_table, stage_sql

DAY = dt.date(2026, 1, 2)
MOMENT = dt.datetime(2026, 1, 2, 10, 0, 0, 500_000)  # noqa: DTZ001 - a moment without a zone is the point


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """Return a database with the table `sales` of 25,000 rows: several batches."""
    made = make_engine(request.param, tmp_path, request)
    count = 25_000
    made.load(
        pa.table(
            {
                "id": pa.array(range(count), pa.int64()),
                "name": pa.array([f"n {number}" for number in range(count)]),
                "price": pa.array([Decimal(number) / 4 for number in range(count)], pa.decimal128(12, 2)),
                "day": pa.array([DAY] * count),
                "at": pa.array([MOMENT] * count),
                "paid": pa.array([True, None] * (count // 2)),
                "note": pa.array([None] * count, pa.string()),
            }
        )
    )
    return made


def test_a_table_comes_back_with_all_of_its_rows_and_exact_values(engine: Engine) -> None:
    """Copies and backups get the types of the table; a decimal is a decimal, or the text that spells it."""
    table = engine.read()
    row = dict(table.slice(0, 1).to_pylist()[0], price=Decimal(table["price"][0].as_py()))
    assert row == {"id": 0, "name": "n 0", "price": 0, "day": DAY, "at": MOMENT, "paid": True, "note": None}
    assert sum(map(Decimal, table["price"].to_pylist())) == sum(range(25_000)) * Decimal("0.25")
    assert sorted(table["id"].to_pylist()) == list(range(25_000))


def test_a_table_in_a_schema(engine: Engine) -> None:
    """`schema.table` is read where it is."""
    schema = "mart" if engine.schemas else "main"
    if engine.schemas:
        engine.run("CREATE SCHEMA mart")
    engine.load(pa.table({"x": [1]}), into=f"{schema}.other", load_id="second")
    assert engine.read(f"{schema}.other").to_pylist() == [{"x": 1}]
    assert len(engine.stage(table=f"{schema}.other")[0]) == 1


def test_a_condition_and_its_dialect_narrow_the_rows(engine: Engine) -> None:
    """What is not below a number, a day or a moment, as a synchronisation asks for it."""
    dialect = engine.database.dialect
    assert engine.read(condition=dialect.at_least("id", 24_990)).num_rows == 10
    for column, value in (("day", DAY), ("at", MOMENT)):
        assert engine.read(condition=dialect.at_least(column, value)).num_rows == 25_000
        later = value + dt.timedelta(days=1)
        assert engine.read(condition=dialect.at_least(column, later)).num_rows == 0


def test_types_do_not_depend_on_which_rows_are_read(engine: Engine) -> None:
    """Of no row and of all, apart from what only a value can tell."""
    whole, nothing = engine.read(), engine.read(condition="id < 0")
    assert nothing.num_rows == 0
    for name in ("id", "name", "day", "at", "paid"):
        assert nothing.schema.field(name).type == whole.schema.field(name).type, name


def test_a_disk_that_is_full_is_not_the_database_s_fault(engine: Engine) -> None:
    """The error of the file that is written comes through: no failure tells to correct the query."""
    source = SqlSource(kind="sql", connection="warehouse", query="SELECT * FROM sales")
    with pytest.raises(OSError, match="No space left") as raised:
        stage_sql(engine.database, source, Path("/dev/full"), memory_limit_bytes=2**26, on_rows=lambda _: None)
    assert comes_of_full_disk(raised.value)


def test_a_query_is_staged_with_distinct_names(engine: Engine) -> None:
    """It may end in a semicolon; equal column names are told apart."""
    query = "SELECT a.id, b.id, a.name FROM sales a JOIN sales b ON a.id = b.id WHERE a.id = 7;"
    rows, _ = engine.stage(query=query)
    assert [{name: str(value) for name, value in row.items()} for row in rows] == [
        {"id": "7", "id_2": "7", "name": "n 7"}
    ]


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM sales",
        "SELECT 1; DELETE FROM sales",
        "WITH x AS (SELECT 1) DELETE FROM sales",
        "SELECT 'a' FROM no_such_table",
        "SELECT nothing FROM sales",
        "SELECT (1",
    ],
)
def test_nothing_can_be_written(engine: Engine, query: str) -> None:
    """Whatever the query is, the database stays as it was; the failure is final and says what to do."""
    with pytest.raises(TaskFailure) as raised:
        engine.stage(query=query)
    assert raised.value.code in {"query_refused", "query_failed"}
    assert (raised.value.retryable, bool(raised.value.remedy)) == (False, True)
    assert engine.run("SELECT count(*) FROM sales") == [(25_000,)]


def test_a_table_that_is_not_there_is_named(engine: Engine) -> None:
    """The database's own words say which."""
    for read in (lambda: engine.stage(table="nowhere"), lambda: engine.read("nowhere")):
        with pytest.raises(TaskFailure, match="nowhere") as raised:
            read()
        assert raised.value.code == "query_failed"


def test_hostile_names_are_only_names(engine: Engine) -> None:
    """Quotes, keywords and placeholders in column names come back as they are."""
    names = ['a"; DROP TABLE sales; --', "select", "a?b", "ünï", "%s", "$1", "a'b"]
    table = pa.table({name: pa.array([index], pa.int64()) for index, name in enumerate(names)})
    engine.load(table, into="hostile", load_id="hostile")
    assert engine.read("hostile").to_pylist() == table.to_pylist()


def test_progress_counts_the_rows_and_what_it_raises_ends_the_reading(engine: Engine, tmp_path: Path) -> None:
    """A lost claim passes through as it is."""
    seen: list[int] = []
    count = read_table(
        engine.database,
        "sales",
        tmp_path / "all.parquet",
        scratch=tmp_path,
        memory_limit_bytes=64 * 1024**2,
        on_rows=seen.append,
    )
    assert (count, seen[-1], seen) == (25_000, 25_000, sorted(seen))

    def lost(_: int) -> None:
        raise ClaimLost("another worker has it")

    with pytest.raises(ClaimLost, match="another worker has it"):
        read_table(
            engine.database,
            "sales",
            tmp_path / "some.parquet",
            scratch=tmp_path,
            memory_limit_bytes=64 * 1024**2,
            on_rows=lost,
        )
