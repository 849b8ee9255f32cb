"""What loading into a table promises, the same for every engine."""

from __future__ import annotations

import datetime as dt
import threading
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.errors import ClaimLost, TaskFailure
from tests.support.engines import ENGINES, Engine, make_engine, memory_growth_of_load
from worker.tables.databases.plan import Loaded

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return make_engine(request.param, tmp_path, request)


def sales(row_count: int = 3, first: int = 1) -> pa.Table:
    ids = range(first, first + row_count)
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "category": pa.array([f"c{i % 3}" for i in ids], pa.string()),
            "value": pa.array([i * 0.5 for i in ids], pa.float64()),
        }
    )


def test_append_makes_the_table_and_adds_rows(engine: Engine) -> None:
    """A missing table is made from the dataset; a second load adds to it."""
    assert engine.load(sales(3)) == Loaded("warehouse:sales", "append", 3, 0, 0)
    assert engine.load(sales(2, first=4), load_id="second") == Loaded("warehouse:sales", "append", 2, 0, 0)
    assert engine.run("SELECT count(*), min(id), max(id) FROM sales") == [(5, 1, 5)]


@pytest.mark.parametrize(("mode", "key"), [("append", []), ("replace", []), ("upsert", ["id"])])
def test_the_same_load_delivered_twice_loads_once(engine: Engine, mode: str, key: list[str]) -> None:
    """The second delivery changes nothing and gives back the first one's counts."""
    engine.load(sales(5), load_id="earlier")
    first = engine.load(sales(3), mode=mode, key=key)
    second = engine.load(sales(3), mode=mode, key=key)
    assert not first.already_loaded
    assert second == Loaded(
        first.destination,
        mode,
        first.inserted_count,
        first.updated_count,
        first.deleted_count,
        True,  # noqa: FBT003 - the field's place
    )
    assert engine.run("SELECT count(*) FROM sales") == [({"append": 8, "replace": 3, "upsert": 5}[mode],)]


def test_replace_leaves_only_the_new_rows(engine: Engine) -> None:
    """`replace` counts what it removes and what it adds."""
    engine.load(sales(5), load_id="old")
    assert engine.load(sales(2, first=9), mode="replace") == Loaded("warehouse:sales", "replace", 2, 0, 5)
    assert engine.run("SELECT id FROM sales ORDER BY id") == [(9,), (10,)]


def test_replace_by_nothing_empties_the_table(engine: Engine) -> None:
    """A dataset without rows is a dataset."""
    engine.load(sales(5), load_id="old")
    assert engine.load(sales(0), mode="replace") == Loaded("warehouse:sales", "replace", 0, 0, 5)
    assert engine.run("SELECT count(*) FROM sales") == [(0,)]


@pytest.mark.parametrize("constraint", ["", ", UNIQUE (id)"])
def test_upsert_updates_and_inserts_with_and_without_a_constraint(engine: Engine, constraint: str) -> None:
    """Rows whose key is there are updated, the others inserted; the table needs no unique constraint."""
    engine.run(
        f"CREATE TABLE sales (id BIGINT, category TEXT, value DOUBLE PRECISION, note TEXT{constraint})",
        "INSERT INTO sales VALUES (2, 'old', 0, 'kept'), (7, 'other', 7, 'kept')",
    )
    assert engine.load(sales(3), mode="upsert", key=["id"]) == Loaded("warehouse:sales", "upsert", 2, 1, 0)
    assert engine.run("SELECT id, category, value, note FROM sales ORDER BY id") == [
        (1, "c1", 0.5, None),
        (2, "c2", 1.0, "kept"),
        (3, "c0", 1.5, None),
        (7, "other", 7.0, "kept"),
    ]


def test_upsert_makes_its_table_and_takes_a_key_of_several_columns(engine: Engine) -> None:
    """The key may be several columns; all columns may be key."""
    pairs = pa.table({"a": [1, 1, 2], "b": ["x", "y", "x"]})
    assert engine.load(pairs, mode="upsert", key=["a", "b"]) == Loaded("warehouse:sales", "upsert", 3, 0, 0)
    more = pa.table({"a": [1, 2], "b": ["y", "y"]})
    again = engine.load(more, mode="upsert", key=["a", "b"], load_id="second")
    assert again == Loaded("warehouse:sales", "upsert", 1, 0, 0)
    assert engine.run("SELECT count(*) FROM sales") == [(4,)]


def test_upsert_names_a_key_that_occurs_twice(engine: Engine) -> None:
    """Duplicates within the dataset fail with an example, and nothing is loaded."""
    engine.load(sales(2), load_id="before")
    twice = pa.table({"id": [5, 5], "category": ["a", "b"], "value": [1.0, 2.0]})
    with pytest.raises(TaskFailure, match=r"id = 5 occurs 2 times") as caught:
        engine.load(twice, mode="upsert", key=["id"])
    assert caught.value.code == "key_not_unique"
    assert engine.run("SELECT count(*) FROM sales") == [(2,)]


def test_upsert_refuses_rows_without_a_key(engine: Engine) -> None:
    """A missing value in the key fails with the number of rows."""
    with pytest.raises(TaskFailure) as caught:
        engine.load(pa.table({"id": [1, None, None], "x": [1, 2, 3]}), mode="upsert", key=["id"])
    assert (caught.value.code, caught.value.details) == ("key_missing", {"row_count": 2})


def test_a_key_that_the_dataset_lacks_is_named(engine: Engine) -> None:
    """The failure lists the dataset's columns."""
    with pytest.raises(TaskFailure, match="'category', 'value'") as caught:
        engine.load(sales(), mode="upsert", key=["nope"])
    assert caught.value.code == "key_column_missing"


def test_columns_that_do_not_fit_are_all_named(engine: Engine) -> None:
    """Both types stand in the message; required columns that the dataset lacks too."""
    engine.run("CREATE TABLE sales (id TEXT, category TEXT, must INTEGER NOT NULL)")
    with pytest.raises(TaskFailure) as caught:
        engine.load(sales())
    assert caught.value.code == "columns_do_not_fit"
    assert caught.value.details == {"problem_count": 3}
    for part in ("'id' is int64 in the dataset", "'value' (double in the dataset) is not in", "'must' (INTEGER"):
        assert part.lower() in caught.value.message.lower()


def test_nullable_columns_and_defaults_of_the_table_are_filled_in(engine: Engine) -> None:
    """A column that the dataset lacks gets its default, or is missing where it may be."""
    engine.run(
        "CREATE TABLE sales (value DOUBLE PRECISION, category TEXT, id BIGINT, note TEXT, n INTEGER NOT NULL DEFAULT 7)"
    )
    engine.load(sales(1))
    assert engine.run("SELECT id, category, value, note, n FROM sales") == [(1, "c1", 0.5, None, 7)]


def test_hostile_names_are_only_names(engine: Engine) -> None:
    """Quotes, semicolons, placeholders and keywords in column names do no harm."""
    names = ['a"; DROP TABLE sales; --', "select", "a?b", "ünï", "%s", "$1", "a'b"]
    table = pa.table({name: pa.array([index], pa.int64()) for index, name in enumerate(names)})
    engine.load(table)
    assert engine.load(table, mode="upsert", key=[names[0], "a?b"], load_id="2") == Loaded(
        "warehouse:sales", "upsert", 0, 1, 0
    )
    assert engine.run("SELECT * FROM sales") == [tuple(range(len(names)))]


@pytest.mark.parametrize("table", ["celeriac_loads", "CELERIAC_Loads", "temp.x", "pg_temp.x", "sqlite_master"])
def test_reserved_tables_are_refused(engine: Engine, table: str) -> None:
    """Nobody writes into the tables of the service or of the database, nor into temporary ones."""
    with pytest.raises(TaskFailure) as caught:
        engine.load(sales(), into=table)
    assert caught.value.code == "table_reserved"


def test_a_table_in_a_schema(engine: Engine) -> None:
    """`schema.table` goes where it says."""
    schema = "mart" if engine.schemas else "main"
    if engine.schemas:
        engine.run("CREATE SCHEMA mart")
    for load_id in ("1", "2"):
        engine.load(sales(2), into=f"{schema}.sales", load_id=load_id)
    assert engine.run(f"SELECT count(*) FROM {schema}.sales") == [(4,)]  # noqa: S608 - a schema of ours


def test_a_schema_that_is_not_there_fails(engine: Engine) -> None:
    """The failure cannot pass by itself."""
    with pytest.raises(TaskFailure, match=r"nowhere") as caught:
        engine.load(sales(), into="nowhere.sales")
    assert not caught.value.retryable


def test_a_violated_constraint_undoes_everything(engine: Engine) -> None:
    """The failure names the constraint's kind; neither rows nor a note of the load stay."""
    engine.run("CREATE TABLE sales (id BIGINT UNIQUE, category TEXT, value DOUBLE PRECISION)")
    engine.run("INSERT INTO sales VALUES (3, 'there', 0)")
    with pytest.raises(TaskFailure) as caught:
        engine.load(sales(5))
    assert (caught.value.code, caught.value.retryable) == ("constraint_violated", False)
    assert engine.run("SELECT count(*) FROM sales") == [(1,)]
    engine.run("DELETE FROM sales")
    assert not engine.load(sales(5)).already_loaded


def test_what_progress_raises_ends_the_load_and_undoes_it(engine: Engine) -> None:
    """A lost claim passes through as it is, and the table is as before."""
    engine.load(sales(2), load_id="before")

    def lost(done: int, _total: int | None) -> None:
        if done > 0:
            raise ClaimLost("another worker has it")

    with pytest.raises(ClaimLost, match="another worker has it"):
        engine.load(sales(200_000), mode="replace", on_progress=lost)
    assert engine.run("SELECT count(*) FROM sales") == [(2,)]


def test_progress_counts_rows_up_to_the_total(engine: Engine) -> None:
    """Progress ascends from 0 to the row count, which is known from the start."""
    seen: list[tuple[int, int | None]] = []
    engine.load(sales(150_000), on_progress=lambda done, total: seen.append((done, total)))
    assert (seen[0], seen[-1]) == ((0, 150_000), (150_000, 150_000))
    assert seen == sorted(seen)


def test_two_deliveries_at_once_load_once(engine: Engine) -> None:
    """One waits for the other and then sees that it is done (DuckDB: or is told to try again)."""
    outcomes: list[Loaded | TaskFailure] = []
    barrier = threading.Barrier(2)
    table = sales(100_000)

    def deliver() -> None:
        barrier.wait(60)
        try:
            outcomes.append(engine.load(table))
        except TaskFailure as failure:
            outcomes.append(failure)

    threads = [threading.Thread(target=deliver) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert engine.load(table).already_loaded
    assert engine.run("SELECT count(*) FROM sales") == [(100_000,)]
    loaded = [outcome for outcome in outcomes if isinstance(outcome, Loaded)]
    assert sum(not outcome.already_loaded for outcome in loaded) == 1
    assert all(outcome.retryable for outcome in outcomes if isinstance(outcome, TaskFailure))


def test_a_load_id_of_another_destination_is_refused(engine: Engine) -> None:
    """Counts of another load are never given out as this one's."""
    engine.load(sales())
    with pytest.raises(TaskFailure) as caught:
        engine.load(sales(), into="other")
    assert caught.value.code == "load_id_reused"


def test_sums_equal_those_of_pandas(engine: Engine) -> None:
    """What the database sums up per group is what pandas computes from the same rows."""
    rng = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "category": rng.choice(["a", "b", "c"], 20_000),
            "value": rng.integers(-1_000, 1_000, 20_000) / 4,  # quarters: sums are exact in any order
            "count": rng.integers(0, 2**40, 20_000),
        }
    )
    engine.load(pa.Table.from_pandas(frame, preserve_index=False))
    grouped = frame.groupby("category")[["value", "count"]].sum()
    expected = [(category, float(value), int(count)) for category, value, count in grouped.itertuples()]
    actual = engine.run('SELECT category, sum(value), sum("count") FROM sales GROUP BY category ORDER BY category')
    assert expected == [(category, float(value), int(count)) for category, value, count in actual]


def test_two_columns_with_one_name_are_refused(engine: Engine) -> None:
    """So are names that only case tells apart, where the engine ignores case."""
    same = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(TaskFailure) as caught:
        engine.load(same)
    assert caught.value.code == "column_name_refused"
    by_case = pa.table({"a": [1], "A": [2]})
    if engine.database.dialect.fold("A") == "A":
        assert engine.load(by_case).inserted_count == 1
    else:
        with pytest.raises(TaskFailure, match="same name"):
            engine.load(by_case)


def test_a_moment_is_noted_with_each_load(engine: Engine) -> None:
    """`celeriac_loads` says what was loaded when."""
    before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=2)
    engine.load(sales(3))
    ((load_id, destination, count, at),) = engine.run(
        "SELECT load_id, destination, inserted_count, CAST(loaded_at AS TEXT) FROM celeriac_loads"
    )
    assert (load_id, destination, count) == ("first", "warehouse:sales", 3)
    moment = dt.datetime.fromisoformat(at)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    assert before <= moment <= dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2)


@pytest.mark.parametrize(("mode", "key"), [("append", []), ("upsert", ["id"])])
def test_memory_stays_bounded(engine: Engine, mode: str, key: list[str]) -> None:
    """A dataset of 300 MB in one row group is loaded with a fraction of that (DuckDB: 64 MiB and its own)."""
    row_count, text_bytes = 75_000, 4_000
    dataset = engine.folder / "large.parquet"
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    with pq.ParquetWriter(dataset, schema) as writer:  # alike texts: small on disk, large in memory
        texts = pa.array(["x" * text_bytes]).take(pa.array(np.zeros(row_count, np.int64)))
        writer.write_table(pa.table({"id": range(row_count), "text": texts}, schema=schema), row_group_size=row_count)
    growth = memory_growth_of_load(engine, dataset, mode=mode, key=key, memory_limit_bytes=64 * 1024**2)
    assert growth < 0.6 * row_count * text_bytes
    assert engine.run("SELECT count(*), sum(length(text)) FROM sales") == [(row_count, row_count * text_bytes)]
