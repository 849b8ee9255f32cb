"""Reading one file, as the tests of the readers do it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.errors import TaskFailure
from shared.jobs.data.places import FileLayout
from worker.etl.reading.readers import ReadLimits, SourceFile, read_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIMITS = ReadLimits(memory_limit_bytes=128 * 1024**2, plain_max_bytes=256 * 1024**2)
Read = "Callable[..., pa.Table]"


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., pa.Table]:
    """Return a function that reads the bytes of a file called `name` and returns the staged table."""

    def run(content: bytes, name: str, *, limits: ReadLimits = LIMITS, **layout: Any) -> pa.Table:
        scratch = tmp_path / str(len(list(tmp_path.iterdir())))
        scratch.mkdir()
        path, output = scratch / "source", scratch / "output.parquet"
        path.write_bytes(content)
        found = read_file(
            SourceFile(path, name),
            FileLayout(**layout),
            output=output,
            scratch=scratch,
            limits=limits,
            on_progress=lambda *_: None,
        )
        table = pq.read_table(output)
        assert table.num_rows == found.row_count
        run.bad_rows, run.warnings = found.bad_rows, found.warnings  # type: ignore[attr-defined] # of the last file
        return table

    return run


def code_of(attempt: Callable[[], Any]) -> str:
    """Return the code of the failure that `attempt` ends with."""
    with pytest.raises(TaskFailure) as raised:
        attempt()
    assert raised.value.remedy
    return raised.value.code


def types(table: pa.Table) -> dict[str, str]:
    return {field.name: str(field.type) for field in table.schema}
