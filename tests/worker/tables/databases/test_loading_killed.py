"""A worker that is killed while it loads leaves every engine's table untouched or complete."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from shared.errors import TaskFailure
from tests.support.engines import ENGINES, exit_code_of_load, make_engine

if TYPE_CHECKING:
    from pathlib import Path

ROW_COUNT = 200_000  # several batches
NEW = pa.table({"id": pa.array(range(ROW_COUNT)), "x": pa.array([1] * ROW_COUNT)})


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize(("mode", "key"), [("append", []), ("replace", []), ("upsert", ["id"])])
def test_a_load_killed_at_any_moment_is_untouched_or_complete(
    kind: str, mode: str, key: list[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """SIGKILL before, among and after the rows, and after the commit; the next delivery makes it whole, once."""
    engine = make_engine(kind, tmp_path, request)
    engine.load(pa.table({"id": pa.array(range(-10, 10)), "x": pa.array([0] * 20)}), load_id="old")
    what = "SELECT count(*), sum(x) FROM sales"
    after = {"append": (ROW_COUNT + 20, ROW_COUNT), "replace": (ROW_COUNT, ROW_COUNT)}.get(
        mode, (ROW_COUNT + 10, ROW_COUNT)
    )
    for kill_at in (0, 1, ROW_COUNT // 2, ROW_COUNT):
        assert exit_code_of_load(engine, NEW, kill_at=kill_at, mode=mode, key=key) == -signal.SIGKILL
        assert engine.run(what) == [(20, 0)]
    assert exit_code_of_load(engine, NEW, kill_at=None, mode=mode, key=key) == -signal.SIGKILL
    assert engine.run(what) == [after]
    assert engine.load(NEW, mode=mode, key=key).already_loaded
    assert engine.run(what) == [after]


@pytest.mark.parametrize("kind", ENGINES)
def test_a_killed_first_load_leaves_no_table(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The table's definition is part of the transaction."""
    engine = make_engine(kind, tmp_path, request)
    assert exit_code_of_load(engine, NEW, kill_at=ROW_COUNT // 2) == -signal.SIGKILL
    with pytest.raises(TaskFailure) as missing:
        engine.stage(table="sales")
    assert missing.value.code == "query_failed"
    assert engine.load(NEW).inserted_count == ROW_COUNT
