"""Files larger than the memory that may be used for them."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from worker.etl.reading.readers import ReadLimits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIMITS = ReadLimits(memory_limit_bytes=64 * 1024**2, plain_max_bytes=256 * 1024**2)
Read = "Callable[..., pa.Table]"


_CHILD = """
import sys
from pathlib import Path
from shared.jobs.data.places import FileLayout
from worker.etl.reading.readers import ReadLimits, SourceFile, read_file
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
for name in ("half.csv", "whole.csv"):
    scratch = folder / (name + ".scratch")
    scratch.mkdir()
    table = read_file(SourceFile(folder / name, name), FileLayout(), output=scratch / "output", scratch=scratch,
        limits=ReadLimits(memory_limit_bytes=limit, plain_max_bytes=10**12), on_progress=lambda *_: None)
    # not ru_maxrss: that takes over the peak of the process that started this one
    print(table.row_count, int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024)
"""


def test_a_csv_ten_times_the_memory_limit_passes(tmp_path: Path) -> None:
    """A process that has read half of such a file needs hardly more memory for the whole."""
    limit = 8 * 1024**2
    rows = 0
    whole, half = tmp_path / "whole.csv", tmp_path / "half.csv"
    with whole.open("w") as out:
        out.write("id,category,value,day\n")
        part = "".join(f"{i},category {i % 17},{i * 0.25:.2f},2024-01-{i % 28 + 1:02d}\n" for i in range(50_000))
        while out.tell() < 10 * limit:
            out.write(part)
            rows += 50_000
    with whole.open("rb") as file:
        half.write_bytes(file.read(10 * limit // 2).rpartition(b"\n")[0])
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(tmp_path), str(limit)], capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr[-2_000:]
    (_, first_bytes), (count, second_bytes) = (map(int, line.split()) for line in child.stdout.splitlines())
    assert rows == count
    assert second_bytes - first_bytes < 4 * limit
    assert second_bytes < 400 * 1024**2  # what Python, Arrow and its read-ahead take, whatever the file


@pytest.mark.parametrize("name", ["a.csv", "a.ndjson"])
def test_wide_rows_fit_into_the_memory_limit(read: Callable[..., pa.Table], name: str) -> None:
    """Rows of 10 kB are staged in small row groups: 80 MB pass under a limit of 64 MiB."""
    chance = random.Random(3)  # noqa: S311 - a reproducible test
    rows = [chance.randbytes(5_000).hex() for _ in range(8_000)]
    if name == "a.csv":
        body = "v,n\n" + "".join(f"{row},{at}\n" for at, row in enumerate(rows))
    else:
        body = "".join(f'{{"v": "{row}", "n": {at}}}\n' for at, row in enumerate(rows))
    table = read(body.encode(), name)
    assert rows == table["v"].to_pylist()
    assert list(range(8_000)) == table["n"].to_pylist()
