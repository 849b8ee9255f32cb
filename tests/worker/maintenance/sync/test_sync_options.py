# ruff: noqa: S608 - the SQL is that of the tests
"""What a synchronisation copies, deletes and adds by its options, on every engine."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from shared.errors import TaskFailure, TransientFailure
from tests.worker.maintenance.sync.pair import BY_TIME, CREATE, PAIRS, Pair, counts, fill

HOSTILE = 'a "b"; DROP TABLE orders; --'
HOSTILE_QUOTED = '"a ""b""; DROP TABLE orders; --"'


@pytest.mark.parametrize("pair", PAIRS, indirect=True)
def test_columns_are_chosen_and_renamed(pair: Pair) -> None:
    """Names may have any sign; the watermark need not be copied, and a column that no one has is refused by name."""
    pair.source.run(
        f"CREATE TABLE orders (id BIGINT, {HOSTILE_QUOTED} TEXT, secret TEXT, updated_at TIMESTAMP)",
        "INSERT INTO orders VALUES (1, 'x', 's', '2026-01-01 10:00:00'), (2, 'y', 's', '2026-01-01 11:00:00')",
    )
    columns = {"id": "id", HOSTILE: "customer"}
    assert counts(pair.sync(columns=columns)) == (2, 0, 0, 0)
    assert pair.destination.run("SELECT * FROM orders ORDER BY id") == [(1, "x"), (2, "y")]
    pair.source.run(f"UPDATE orders SET {HOSTILE_QUOTED} = 'z', updated_at = '2026-01-02 00:00:00' WHERE id = 1")
    result = pair.sync(columns=columns)
    assert (counts(result), result.watermark_to) == ((0, 1, 0, 1), "2026-01-02T00:00:00")
    swapped = {"id": "customer", HOSTILE: "id"}
    with pytest.raises(TaskFailure) as failure:
        pair.sync({"kind": "full"}, columns=swapped)
    assert failure.value.code == "columns_do_not_fit"
    with pytest.raises(TaskFailure) as failure:
        pair.sync({"kind": "full"}, columns={"id": "id", "custmer": "customer"})
    assert "custmer" in failure.value.message
    assert pair.rows() == [(1, "z"), (2, "y")]


@pytest.mark.parametrize("pair", PAIRS, indirect=True)
def test_a_query_is_a_source(pair: Pair) -> None:
    """It is read by its watermark like a table; two queries have two watermarks."""
    pair.source.run(CREATE)
    fill(pair, (1, "ann", "2026-01-01 10:00:00"), (2, "bob", "2026-01-01 11:00:00"), (3, "cid", "2026-01-01 12:00:00"))
    query = "SELECT id, upper(customer) AS customer, updated_at FROM orders WHERE id < 3 -- not all"
    first = pair.sync(query=query)
    assert (counts(first), first.source, first.watermark_to) == ((2, 0, 0, 0), "shop:query", "2026-01-01T11:00:00")
    pair.source.run("UPDATE orders SET customer = 'eve', updated_at = '2026-01-03 00:00:00' WHERE id = 1")
    assert counts(pair.sync(query=query)) == (0, 1, 0, 1)
    assert pair.rows() == [(1, "EVE"), (2, "BOB")]
    other = pair.sync(
        query="SELECT id, customer, updated_at FROM orders;", columns={"id": "id", "customer": "customer"}
    )
    assert (other.watermark_from, other.read_count) == (None, 3)
    assert pair.rows() == [(1, "eve"), (2, "bob"), (3, "cid")]
    with pytest.raises(TaskFailure) as failure:
        pair.sync(query="SELECT id FROM orders; DELETE FROM orders")
    assert failure.value.code == "query_refused"


@pytest.mark.parametrize("pair", PAIRS, indirect=True)
@pytest.mark.parametrize(
    ("kind", "not_deleted", "is_deleted"),
    [("TIMESTAMP", "NULL", "'2026-01-05 00:00:00'"), ("BOOLEAN", "false", "true"), ("INTEGER", "0", "1")],
)
def test_rows_that_the_source_marks_are_deleted(pair: Pair, kind: str, not_deleted: str, is_deleted: str) -> None:
    """Once, and they are never copied; the watermark goes on over them, and a row comes back without its mark."""
    pair.source.run(
        f"CREATE TABLE orders (id BIGINT, customer TEXT, gone {kind}, updated_at TIMESTAMP)",
        *(f"INSERT INTO orders VALUES ({n}, 'x', {not_deleted}, '2026-01-0{n} 00:00:00')" for n in (1, 2, 3)),
        f"UPDATE orders SET gone = {is_deleted} WHERE id = 3",
    )
    chosen: dict[str, Any] = {"columns": {"id": "id", "customer": "customer"}, "deleted_by": "gone", "batch_rows": 1}
    first = pair.sync(**chosen)
    assert (counts(first), first.watermark_to) == ((2, 0, 0, 0), "2026-01-03T00:00:00")
    pair.source.run(f"UPDATE orders SET gone = {is_deleted}, updated_at = '2026-01-04 00:00:00' WHERE id = 1")
    second = pair.sync(**chosen)
    assert (counts(second), second.read_count) == ((0, 0, 1, 0), 2)
    assert pair.rows() == [(2, "x")]
    assert counts(pair.sync(**chosen)) == (0, 0, 0, 0)
    pair.source.run(f"UPDATE orders SET gone = {not_deleted}, updated_at = '2026-01-06 00:00:00' WHERE id = 1")
    assert counts(pair.sync(**chosen)) == (1, 0, 0, 0)
    assert pair.rows() == [(1, "x"), (2, "x")]


def test_a_mark_that_cannot_be_read_is_refused(pair: Pair) -> None:
    """'N' and 'no' are texts, which mark every row or none."""
    pair.source.run("CREATE TABLE orders (id BIGINT, gone TEXT)", "INSERT INTO orders VALUES (1, 'N')")
    with pytest.raises(TaskFailure) as failure:
        pair.sync({"kind": "full"}, deleted_by="gone")
    assert (failure.value.code, failure.value.details["column"]) == ("mark_not_readable", "gone")


@pytest.mark.parametrize("pair", PAIRS, indirect=True)
def test_rows_that_are_gone_are_marked(pair: Pair) -> None:
    """Once, with the time, until they are there again; more than allowed are not."""
    pair.source.run(CREATE)
    fill(pair, *((number, "x", "2026-01-01 10:00:00") for number in (1, 2, 3, 4)))
    mode = {"kind": "full", "mark_missing": "gone_at"}
    assert counts(pair.sync(mode)) == (4, 0, 0, 0)
    pair.source.run("DELETE FROM orders WHERE id = 2")
    assert counts(pair.sync(mode)) == (0, 0, 1, 3)
    marked = pair.rows("id, gone_at IS NULL")
    assert [(number, bool(null)) for number, null in marked] == [(1, True), (2, False), (3, True), (4, True)]
    assert counts(pair.sync(mode)) == (0, 0, 0, 3)
    fill(pair, (2, "x", "2026-01-01 10:00:00"))
    assert counts(pair.sync(mode)) == (0, 1, 0, 4)
    assert all(null for _, null in pair.rows("id, gone_at IS NULL"))
    pair.source.run("DELETE FROM orders")
    with pytest.raises(TaskFailure) as failure:
        pair.sync(mode)
    assert failure.value.code == "too_many_deletions"
    with pytest.raises(TaskFailure) as failure:
        pair.sync({**mode, "mark_missing": "customer"})
    assert failure.value.code == "columns_do_not_fit"


@pytest.mark.parametrize("pair", PAIRS, indirect=True)
def test_new_columns_of_the_source_by_policy(pair: Pair) -> None:
    """They are refused, left out and said, or added: then rows below the watermark get their values, too."""
    pair.source.run(CREATE)
    fill(pair, (1, "ann", "2026-01-01 10:00:00"), (2, "bob", "2026-01-01 11:00:00"))
    pair.sync()
    pair.source.run("ALTER TABLE orders ADD COLUMN note TEXT", "UPDATE orders SET note = 'old'")
    with pytest.raises(TaskFailure) as failure:
        pair.sync()
    assert (failure.value.code, "note" in failure.value.message) == ("columns_do_not_fit", True)
    assert "new_columns" in failure.value.remedy
    ignoring = pair.sync(new_columns="ignore")
    assert (counts(ignoring), ignoring.ignored_columns) == ((0, 0, 0, 1), ["note"])
    adding = pair.sync(new_columns="add")
    assert (counts(adding), adding.added_columns, adding.read_count) == ((0, 2, 0, 0), ["note"], 2)
    assert pair.rows("id, note") == [(1, "old"), (2, "old")]
    assert pair.sync(new_columns="add").read_count == 1


@pytest.mark.parametrize("pair", PAIRS, indirect=True)
def test_an_emptied_destination_is_noticed(pair: Pair) -> None:
    """It is refused with what to do, or filled again where the job says so."""
    pair.source.run(CREATE)
    fill(pair, (1, "ann", "2026-01-01 10:00:00"), (2, "bob", "2026-01-01 11:00:00"))
    pair.sync()
    pair.destination.run("DELETE FROM orders")
    with pytest.raises(TaskFailure) as failure:
        pair.sync()
    assert (failure.value.code, "refill" in failure.value.remedy) == ("destination_emptied", True)
    assert counts(pair.sync({**BY_TIME, "when_emptied": "refill"})) == (2, 0, 0, 0)
    pair.destination.run("DELETE FROM orders")
    assert counts(pair.sync({"kind": "full"})) == (2, 0, 0, 0)


def test_a_destination_that_the_source_emptied_is_not_taken_for_a_truncated_one(pair: Pair) -> None:
    """Where all rows were deleted by the synchronisation itself, the next one goes on."""
    pair.source.run("CREATE TABLE orders (id BIGINT, gone BOOLEAN, updated_at INTEGER)")
    pair.source.run("INSERT INTO orders VALUES (1, true, 1)")
    mode = {"kind": "watermark", "column": "updated_at"}
    assert counts(pair.sync(mode, deleted_by="gone")) == (0, 0, 0, 0)
    pair.source.run("UPDATE orders SET gone = false, updated_at = 2")
    assert counts(pair.sync(mode, deleted_by="gone")) == (1, 0, 0, 0)
    pair.source.run("UPDATE orders SET gone = true, updated_at = 3")
    assert counts(pair.sync(mode, deleted_by="gone")) == (0, 0, 1, 0)
    assert counts(pair.sync(mode, deleted_by="gone")) == (0, 0, 0, 0)
    pair.source.run("UPDATE orders SET gone = false, updated_at = 4")
    assert counts(pair.sync(mode, deleted_by="gone")) == (1, 0, 0, 0)


def test_a_reset_reads_all_rows_once_a_job(pair: Pair) -> None:
    """A job that was interrupted after it has forgotten the watermark goes on from its own."""
    pair.source.run(CREATE)
    fill(pair, *((number, "x", f"2026-01-0{number} 10:00:00") for number in range(1, 7)))
    pair.sync()
    pair.source.run("UPDATE orders SET customer = 'silent' WHERE id = 1")
    assert counts(pair.sync()) == (0, 0, 0, 1)

    def stop(done: int, _total: int | None) -> None:
        if done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pair.sync(reset=True, batch_rows=3, job_key="one", on_progress=stop)
    result = pair.sync(reset=True, batch_rows=3, job_key="one")
    assert (counts(result), result.read_count) == ((0, 1, 0, 4), 4)
    assert pair.rows()[0] == (1, "silent")


@pytest.mark.parametrize("pair", PAIRS, indirect=True)
def test_a_second_synchronisation_of_the_same_tables_is_refused_before_it_reads(pair: Pair) -> None:
    """Whatever its names of the tables and connections are, and another pair is not; the end frees it."""
    pair.source.run(CREATE)
    fill(pair, (1, "ann", "2026-01-01 10:00:00"))
    inside, over = threading.Event(), threading.Event()

    def wait(_done: int, total: int | None) -> None:
        if total is None and not inside.is_set():
            inside.set()
            assert over.wait(60)

    first = threading.Thread(target=lambda: pair.sync(on_progress=wait))
    first.start()
    assert inside.wait(60)
    reads: list[int] = []
    with pytest.raises(TransientFailure) as failure:
        pair.sync(on_progress=lambda done, _: reads.append(done))
    assert (failure.value.code, reads) == ("work_in_progress", [])
    over.set()
    first.join(60)
    assert counts(pair.sync()) == (0, 0, 0, 1)
    assert list(pair.folder.glob("*/*.lock")) == []


@pytest.mark.parametrize("pair", [("postgresql", "sqlite"), ("duckdb", "sqlite")], indirect=True)
def test_infinite_times_are_refused_or_missing(pair: Pair) -> None:
    """As the job says, of a table and of a query; the watermark of the tables stays the same one."""
    pair.source.run(
        "CREATE TABLE orders (id BIGINT, until TIMESTAMP)",
        "INSERT INTO orders VALUES (1, 'infinity'), (2, '2026-01-01 10:00:00')",
    )
    mode = {"kind": "watermark", "column": "id"}
    for query in (None, "SELECT * FROM orders"):
        with pytest.raises(TaskFailure) as failure:
            pair.sync(mode, query=query)
        assert (failure.value.code, failure.value.details["column"]) == ("date_out_of_range", "until")
    assert counts(pair.sync(mode, dates_out_of_range="null")) == (2, 0, 0, 0)
    assert pair.rows("id, until IS NULL") == [(1, 1), (2, 0)]
    pair.source.run("INSERT INTO orders VALUES (3, NULL)")
    assert pair.sync(mode).read_count == 2
    query = "SELECT id, until FROM orders"
    assert counts(pair.sync(mode, query=query, dates_out_of_range="null")) == (0, 0, 0, 3)


@pytest.mark.parametrize("pair", [("postgresql", "sqlite"), ("duckdb", "sqlite")], indirect=True)
def test_a_type_without_a_place_is_named_and_has_a_way_round(pair: Pair) -> None:
    """Columns are left out, or the query makes texts of them."""
    pair.source.run(
        "CREATE TABLE orders (id BIGINT, customer TEXT, tags TEXT[], spent INTERVAL, more INTEGER[])",
        "INSERT INTO orders VALUES (1, 'ann', ARRAY['a', 'b'], INTERVAL '90 minutes', ARRAY[1])",
    )
    with pytest.raises(TaskFailure) as failure:
        pair.sync({"kind": "full"})
    assert "tags" in failure.value.message
    assert "more" in failure.value.message
    assert "query" in failure.value.remedy
    assert counts(pair.sync({"kind": "full"}, columns={"id": "id", "customer": "customer"})) == (1, 0, 0, 0)
    query = "SELECT id, customer, CAST(tags AS TEXT) AS tags, CAST(spent AS TEXT) AS spent FROM orders"
    assert pair.sync({"kind": "full"}, query=query, new_columns="add").added_columns == ["tags", "spent"]
    assert pair.rows("id, spent") == [(1, "01:30:00")]
