"""Split a staged file into parts, in its order; rows with the same watermark stay in one part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.compute as pc

from worker.tables.parquet.staging import ParquetSink, batches_of, schema_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

    from worker.maintenance.sync.copied import Copied


def parts_of(
    path: Path, scratch: Path, rows: int, by: str | None, copied: Copied
) -> Iterator[tuple[Path, pa.Scalar | None]]:
    """Yield Parquet files of what is copied of about `rows` rows each, with the last value of the column `by`.

    A part grows beyond `rows` while its last value repeats, so that a copied part has all rows of that value. Each file
    is deleted when the next one is requested.
    """
    part, schema = scratch / "part.parquet", copied.schema(schema_of(path))
    sink: ParquetSink | None = None
    taken = 0
    last: pa.Scalar | None = None
    for batch in batches_of(path):
        rest = batch
        while rest.num_rows:
            room = rows - taken
            take = min(room, rest.num_rows) if room > 0 else _leading_ties(rest, by, last)
            if not take:
                assert sink is not None  # noqa: S101 - only a part with rows has no room
                sink.__exit__(None)
                yield part, last
                sink, taken = None, 0
                continue
            sink = sink or ParquetSink(part, schema)
            sink.write(copied.rows(rest.slice(0, take)))
            taken += take
            last = rest.column(by)[take - 1] if by else None
            rest = rest.slice(take)
    if sink is not None:
        sink.__exit__(None)
        yield part, last
    part.unlink(missing_ok=True)


def _leading_ties(batch: pa.RecordBatch, by: str | None, last: pa.Scalar | None) -> int:
    """Return how many rows at the start of `batch` have the value `last`. Missing values never match."""
    if by is None or last is None or not last.is_valid:
        return 0
    differs = pc.invert(pc.fill_null(pc.equal(batch.column(by), last), fill_value=False))
    first: int = pc.index(differs, value=True).as_py()
    return batch.num_rows if first < 0 else first
