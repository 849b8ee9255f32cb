"""DuckDB as every family runs it."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.errors import TransientFailure
from tests.support.servers.disks import small_disk
from worker.tables.duck.engine import locked_engine
from worker.tables.duck.session import connect, disk_failures, interruptible, locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MEMORY_BYTES = 256 * 1024**2
ENDLESS = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range * b.range % 7 = 3"


class SoftLimitError(Exception):
    """What a signal handler raises."""


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with locked([], scratch=tmp_path, memory_limit_bytes=MEMORY_BYTES, threads=1) as made:
        yield made


def test_a_query_gives_what_it_returns_and_raises_what_it_raises(connection: duckdb.DuckDBPyConnection) -> None:
    """The thread that it runs in does not show."""
    assert interruptible(connection, lambda: connection.execute("SELECT 42").fetchall()) == [(42,)]
    with pytest.raises(duckdb.BinderException):
        interruptible(connection, lambda: connection.execute("SELECT nothing"))


def test_a_signal_ends_a_query_with_its_own_exception(connection: duckdb.DuckDBPyConnection) -> None:
    """The soft time limit comes out as itself, and the connection works afterwards."""

    def raise_limit(*_: object) -> None:
        raise SoftLimitError

    earlier = signal.signal(signal.SIGALRM, raise_limit)
    began = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(SoftLimitError):
            interruptible(connection, lambda: connection.execute(ENDLESS).fetchall())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    assert time.monotonic() - began < 60
    assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_what_hears_of_progress_may_end_the_query(connection: duckdb.DuckDBPyConnection) -> None:
    """It gets fractions from 0 to 1."""
    heard: list[float] = []

    def stop(fraction: float) -> None:
        heard.append(fraction)
        raise SoftLimitError

    with pytest.raises(SoftLimitError):
        interruptible(connection, lambda: connection.execute(ENDLESS).fetchall(), stop)
    assert all(0 <= fraction <= 1 for fraction in heard)


def test_nothing_but_the_given_files_is_in_reach(tmp_path: Path) -> None:
    """No other file, no extension, no setting; times are in UTC."""
    ours, others = tmp_path / "it's ours.parquet", tmp_path / "others.parquet"
    for path in (ours, others):
        pq.write_table(pa.table({"id": [1]}), path)
    with locked([ours], scratch=tmp_path, memory_limit_bytes=MEMORY_BYTES, threads=1) as connection:
        assert connection.read_parquet(str(ours)).fetchall() == [(1,)]
        with pytest.raises(duckdb.PermissionException):
            connection.read_parquet(str(others)).fetchall()
        for forbidden in ("SET memory_limit = '1TB'", "SET enable_external_access = true", "INSTALL httpfs"):
            with pytest.raises(duckdb.Error):
                connection.execute(forbidden)
        assert connection.execute("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]


def test_a_connection_has_the_bounds_that_it_is_given(tmp_path: Path) -> None:
    """Memory, threads and where it spills."""
    with connect(":memory:", memory_limit_bytes=MEMORY_BYTES, threads=3, spill=tmp_path) as connection:
        settings = dict(connection.execute("SELECT name, value FROM duckdb_settings()").fetchall())
    assert (settings["memory_limit"], settings["threads"]) == ("256.0 MiB", "3")
    assert settings["temp_directory"] == str(tmp_path)
    assert settings["python_enable_replacements"] == "false"


SPILLING = "SELECT count(*) FROM (SELECT hash(range)::VARCHAR || repeat('x', 200) h FROM range({}) ORDER BY h LIMIT {})"


@pytest.mark.parametrize("what", ["spills", "writes"])
def test_a_full_disk_is_transient_and_no_defect(tmp_path: Path, what: str) -> None:
    """Where DuckDB says that it may not spill more, but would have had less than its bound."""
    with small_disk(tmp_path / "disk", 3 * 2**20) as disk:
        target = disk / "rows.parquet"
        bounds: dict[str, Any] = {"memory_limit_bytes": 64 * 2**20, "threads": 1}
        with locked_engine(
            readable={}, writable=[target], scratch=disk, row_bytes=8, on_fraction=lambda _: None, **bounds
        ) as engine:
            act: dict[str, Callable[[], Any]] = {
                "spills": lambda: engine.rows(SPILLING.format(1_000_000, 900_000)),
                "writes": lambda: engine.write("SELECT hash(range) a FROM range(1_000_000)", {}, target),
            }
            with pytest.raises(TransientFailure) as failure:
                act[what]()
            assert failure.value.code == "scratch_full"


def test_who_spills_more_than_allowed_is_refused_for_good(tmp_path: Path) -> None:
    """The bound is its own, so another attempt would not help. That holds within a transaction, too."""
    with connect(":memory:", memory_limit_bytes=32 * 2**20, threads=1, spill=tmp_path) as connection:
        connection.execute("SET max_temp_directory_size = '4MiB'")
        connection.execute("BEGIN")
        with pytest.raises(duckdb.OutOfMemoryException), disk_failures(connection):
            connection.execute(SPILLING.format(1_000_000, 900_000))


def test_nobody_else_opens_duckdb() -> None:
    """`duckdb.connect` stands in one module of the workers, so its settings are the same for all families."""
    root = Path(__file__).parents[4]
    opening = [
        str(path.relative_to(root))
        for path in (root / "worker").rglob("*.py")
        if "duckdb.connect(" in path.read_text("utf-8")
    ]
    assert opening == ["worker/tables/duck/session.py"]
