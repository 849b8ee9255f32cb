"""Tables are kept in step across engines: late and changed rows, interruptions, deletions."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from shared.errors import TaskFailure, TransientFailure
from tests.worker.maintenance.sync.pair import BY_TIME, CREATE, PAIRS, Pair, counts, fill


@pytest.mark.parametrize("pair", PAIRS, indirect=True)
def test_a_watermark_copies_what_is_new_and_changed(pair: Pair) -> None:
    """The first run copies all, the next what has grown beyond the watermark, with exact values."""
    pair.source.run(CREATE)
    fill(pair, (1, "ann", "2026-01-01 10:00:00"), (2, "bob", "2026-01-01 11:00:00"))
    first = pair.sync()
    assert (counts(first), first.read_count) == ((2, 0, 0, 0), 2)
    assert (first.watermark_from, first.watermark_to) == (None, "2026-01-01T11:00:00")
    fill(pair, (3, "cid", "2026-01-01 12:00:00.250"))
    pair.source.run("UPDATE orders SET customer = 'ANN', updated_at = '2026-01-01 12:30:00' WHERE id = 1")
    second = pair.sync()
    assert (counts(second), second.read_count) == ((1, 1, 0, 1), 3)
    assert (second.watermark_from, second.watermark_to) == ("2026-01-01T11:00:00", "2026-01-01T12:30:00")
    assert pair.rows() == [(1, "ANN"), (2, "bob"), (3, "cid")]
    third = pair.sync()
    assert (counts(third), third.read_count) == ((0, 0, 0, 1), 1)
    values = pair.destination.run("SELECT CAST(price AS TEXT), CAST(day AS TEXT) FROM orders WHERE id = 3")
    assert (Decimal(values[0][0]), values[0][1][:10]) == (Decimal("3.5"), "2026-01-01")


@pytest.mark.parametrize("pair", PAIRS, indirect=True)
def test_a_comparison_inserts_updates_and_deletes(pair: Pair) -> None:
    """Every difference is found whatever the times say; rows are deleted only when that is asked for."""
    pair.source.run(CREATE)
    fill(pair, *((number, "x", "2026-01-01 10:00:00") for number in range(1, 7)))
    assert counts(pair.sync({"kind": "full"})) == (6, 0, 0, 0)
    pair.source.run("UPDATE orders SET customer = NULL WHERE id = 2", "DELETE FROM orders WHERE id IN (5, 6)")
    fill(pair, (7, "new", "2025-01-01 00:00:00"))
    assert counts(pair.sync({"kind": "full"}, batch_rows=2)) == (1, 1, 0, 3)
    assert [number for number, _ in pair.rows()] == [1, 2, 3, 4, 5, 6, 7]
    assert counts(pair.sync({"kind": "full", "delete_missing": True}, batch_rows=2)) == (0, 0, 2, 5)
    assert pair.rows() == [(1, "x"), (2, None), (3, "x"), (4, "x"), (7, "new")]


def test_late_rows_come_with_the_overlap(pair: Pair) -> None:
    """A row committed later with an earlier time is copied if the overlap reaches it, and not before."""
    pair.source.run(CREATE)
    fill(pair, (1, "a", "2026-01-01 10:00:00"), (2, "b", "2026-01-01 11:00:00"))
    pair.sync()
    fill(pair, (3, "late", "2026-01-01 10:30:00"))
    assert counts(pair.sync({**BY_TIME, "overlap_s": 60})) == (0, 0, 0, 1)
    result = pair.sync({**BY_TIME, "overlap_s": 3_600})
    assert (counts(result), result.watermark_to) == ((1, 0, 0, 2), "2026-01-01T11:00:00")


def test_rows_of_the_same_moment_are_not_lost(pair: Pair) -> None:
    """A row with the very time of the watermark, committed after it was read, is copied by the next run."""
    pair.source.run(CREATE)
    fill(pair, (1, "a", "2026-01-01 10:00:00"))
    pair.sync()
    fill(pair, (2, "b", "2026-01-01 10:00:00"))
    assert counts(pair.sync()) == (1, 0, 0, 1)


def test_rows_without_a_watermark_are_looked_at_every_time(pair: Pair) -> None:
    """A row that was never updated may have no time; its changes are found nevertheless."""
    pair.source.run(CREATE)
    fill(pair, (1, "a", "2026-01-01 10:00:00"), (2, "b", "2026-01-01 10:00:00"))
    pair.source.run("UPDATE orders SET updated_at = NULL WHERE id = 2")
    pair.sync()
    pair.source.run("UPDATE orders SET customer = 'B' WHERE id = 2")
    assert counts(pair.sync()) == (0, 1, 0, 1)


@pytest.mark.parametrize("pair", [("sqlite", "sqlite"), ("duckdb", "postgresql")], indirect=True)
def test_an_interrupted_job_goes_on_where_it_was(pair: Pair) -> None:
    """Parts that were committed are not read again, and the counts are those of the whole job."""
    pair.source.run(CREATE)
    fill(pair, *((number, "x", f"2026-01-{number:02} 10:00:00") for number in range(1, 11)))

    def stop(done: int, _total: int | None) -> None:
        if done > 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pair.sync(batch_rows=3, job_key="one", on_progress=stop)
    assert len(pair.rows()) == 6
    result = pair.sync(batch_rows=3, job_key="one")
    assert (counts(result), result.read_count) == ((10, 0, 0, 1), 5)  # from the last committed row on
    assert (result.watermark_from, result.watermark_to) == (None, "2026-01-10T10:00:00")
    assert [number for number, _ in pair.rows()] == list(range(1, 11))


def test_what_another_job_has_copied_meanwhile_is_not_overwritten(pair: Pair) -> None:
    """An attempt that read the source before another one wrote gives up, and may begin again.

    Another one can write if it is on another machine, or somebody removes the file that keeps it away.
    """
    pair.source.run(CREATE)
    fill(pair, (1, "old", "2026-01-01 10:00:00"))
    overtaken = False

    def overtake(_done: int, total: int | None) -> None:
        nonlocal overtaken
        if total is not None and not overtaken:
            overtaken = True
            for lock in (pair.folder / "destination").glob("*.lock"):
                lock.unlink()
            pair.source.run("UPDATE orders SET customer = 'new', updated_at = '2026-01-02 00:00:00'")
            pair.sync()

    for mode in (BY_TIME, {"kind": "full"}):
        overtaken = False
        with pytest.raises(TransientFailure) as failure:
            pair.sync(mode, on_progress=lambda done, total: overtake(done, total) if done == 0 else None)
        assert failure.value.code == "sync_overtaken"
        assert pair.rows() == [(1, "new")]


def test_modes_know_of_each_other(pair: Pair) -> None:
    """A comparison keeps the watermark for the next run by it; another column begins with none."""
    pair.source.run(CREATE)
    fill(pair, (1, "a", "2026-01-01 10:00:00"), (2, "b", "2026-01-02 10:00:00"))
    pair.sync()
    full = pair.sync({"kind": "full"})
    assert (full.watermark_from, full.watermark_to, full.read_count) == (None, None, 2)
    again = pair.sync()
    assert (again.watermark_from, again.read_count) == ("2026-01-02T10:00:00", 1)
    other = pair.sync({"kind": "watermark", "column": "id"})
    assert (other.watermark_from, other.watermark_to, other.read_count) == (None, "2", 2)


def test_a_number_is_a_watermark_too(pair: Pair) -> None:
    """An overlap of a number is a number."""
    pair.source.run("CREATE TABLE orders (id INTEGER, customer TEXT)", "INSERT INTO orders VALUES (10, 'a'), (12, 'b')")
    mode = {"kind": "watermark", "column": "id"}
    pair.sync(mode)
    pair.source.run("INSERT INTO orders VALUES (11, 'late')")
    assert counts(pair.sync(mode)) == (0, 0, 0, 1)
    result = pair.sync({**mode, "overlap_count": 1})
    assert (counts(result), result.watermark_from, result.watermark_to) == ((1, 0, 0, 1), "12", "12")
    with pytest.raises(TaskFailure) as failure:
        pair.sync({**mode, "overlap_s": 1})
    assert failure.value.code == "overlap_does_not_fit"


@pytest.mark.parametrize(
    "pair", [("postgresql", "duckdb"), ("duckdb", "postgresql"), ("sqlite", "postgresql")], indirect=True
)
def test_types_do_not_depend_on_which_rows_are_read(pair: Pair) -> None:
    """Columns without a value, whole floats and whole decimals in a later run fit the table that the first run made."""
    number = "numeric" if pair.source.kind == "postgresql" else "DECIMAL(12, 3)"
    pair.source.run(
        f"CREATE TABLE orders (id BIGINT, customer TEXT, price {number}, weight DOUBLE PRECISION, day DATE, "
        "paid BOOLEAN)",
        "INSERT INTO orders VALUES (1, 'a', 1.125, 0.5, '2026-01-01', true)",
    )
    mode = {"kind": "watermark", "column": "id"}
    pair.sync(mode)
    pair.source.run("INSERT INTO orders VALUES (2, NULL, NULL, NULL, NULL, NULL)", "DELETE FROM orders WHERE id = 1")
    pair.sync(mode)
    pair.source.run("INSERT INTO orders VALUES (3, '3', 3, 3, '2026-01-03', false)", "DELETE FROM orders WHERE id = 2")
    assert counts(pair.sync(mode)) == (1, 0, 0, 0)
    found = pair.destination.run("SELECT id, customer, price, weight, day, paid FROM orders ORDER BY id")
    assert [(row[0], row[1], row[2] and float(row[2]), *row[3:]) for row in found] == [
        (1, "a", 1.125, 0.5, date(2026, 1, 1), True),
        (2, None, None, None, None, None),
        (3, "3", 3.0, 3.0, date(2026, 1, 3), False),
    ]


@pytest.mark.parametrize("pair", [("sqlite", "postgresql")], indirect=True)
def test_values_are_compared_as_the_destination_stores_them(pair: Pair) -> None:
    """What a table of other types made of the values is not a difference, and a real one is found."""
    pair.destination.run(
        "CREATE TABLE orders (id bigint PRIMARY KEY, plain json, binary_json jsonb, name varchar(20), kept integer "
        "DEFAULT 7, price double precision)"
    )
    pair.source.run(
        "CREATE TABLE orders (id SMALLINT, plain TEXT, binary_json TEXT, name TEXT, price REAL)",
        """INSERT INTO orders VALUES (1, '{"a": 1}', '{"b":  1}', 'x', 0.5), (2, NULL, NULL, NULL, NULL)""",
    )
    mode = {"kind": "full"}
    assert counts(pair.sync(mode)) == (2, 0, 0, 0)
    assert counts(pair.sync(mode)) == (0, 0, 0, 2)
    pair.source.run("""UPDATE orders SET plain = '{"a": 2}' WHERE id = 1""")
    assert counts(pair.sync(mode)) == (0, 1, 0, 1)
    found = pair.destination.run("SELECT id, plain, binary_json, name, kept, price FROM orders ORDER BY id")
    assert found == [(1, {"a": 2}, {"b": 1}, "x", 7, 0.5), (2, None, None, None, 7, None)]


def test_a_source_that_was_emptied_does_not_empty_its_copy(pair: Pair) -> None:
    """More deletions than allowed fail the job, and none is made."""
    pair.source.run(CREATE)
    fill(pair, *((number, "x", "2026-01-01 10:00:00") for number in range(4)))
    pair.sync({"kind": "full"})
    pair.source.run("DELETE FROM orders")
    with pytest.raises(TaskFailure) as failure:
        pair.sync({"kind": "full", "delete_missing": True})
    assert (failure.value.code, len(pair.rows())) == ("too_many_deletions", 4)
    result = pair.sync({"kind": "full", "delete_missing": True, "most_deleted_ratio": 1.0})
    assert (result.deleted_count, pair.rows()) == (4, [])


def test_a_destination_that_was_dropped_is_filled_again(pair: Pair) -> None:
    """The watermark of a table that is gone says nothing."""
    pair.source.run(CREATE)
    fill(pair, (1, "a", "2026-01-01 10:00:00"), (2, "b", "2026-01-02 10:00:00"))
    pair.sync()
    pair.destination.run("DROP TABLE orders")
    assert counts(pair.sync()) == (2, 0, 0, 0)


@pytest.mark.parametrize(
    ("mode", "key", "code", "named"),
    [
        ({"kind": "watermark", "column": "updated"}, ("id",), "unknown_column", "updated_at"),
        ({"kind": "watermark", "column": "customer"}, ("id",), "watermark_not_ordered", "customer"),
        ({"kind": "full"}, ("number",), "unknown_column", "number"),
        ({"kind": "full"}, ("customer",), "key_not_unique", "customer = a"),
    ],
)
def test_what_cannot_be_synchronised_says_why(
    pair: Pair, mode: dict[str, Any], key: tuple[str, ...], code: str, named: str
) -> None:
    """Failures name the field and the column."""
    pair.source.run(CREATE)
    fill(pair, (1, "a", "2026-01-01 10:00:00"), (2, "a", "2026-01-02 10:00:00"))
    with pytest.raises(TaskFailure) as failure:
        pair.sync(mode, key=key)
    assert failure.value.code == code
    assert named in failure.value.message + failure.value.remedy


def test_an_empty_table_is_in_step(pair: Pair) -> None:
    """Nothing to copy is not a failure, and no watermark."""
    pair.source.run(CREATE)
    result = pair.sync()
    assert (counts(result), result.watermark_to) == ((0, 0, 0, 0), None)
    fill(pair, (1, "a", "2026-01-01 10:00:00"))
    assert pair.sync().watermark_to == "2026-01-01T10:00:00"
