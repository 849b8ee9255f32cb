"""Staged files are read in pieces of a few MB, whatever is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from worker.tables.parquet.staging import batches_of

if TYPE_CHECKING:
    from pathlib import Path


def test_texts_that_stand_in_the_file_once_do_not_make_large_pieces(tmp_path: Path) -> None:
    """A file of a few KB that is 64 MB of rows comes in pieces of about 4 MB, all rows of it."""
    path = tmp_path / "table.parquet"
    texts = ["a" * 16_000, "b" * 16_000] * 2_000
    pq.write_table(pa.table({"text": texts}), path, row_group_size=3_000)
    assert path.stat().st_size < 100_000
    pieces = [(batch.num_rows, batch.nbytes) for batch in batches_of(path)]
    assert sum(rows for rows, _ in pieces) == 4_000
    assert max(size for _, size in pieces) <= 5 * 1024**2
