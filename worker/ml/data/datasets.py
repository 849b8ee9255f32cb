"""Open datasets. A client may name any uploaded file as a dataset, so the file is checked."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from shared.errors import TaskFailure
from worker.tables.parquet.staging import MAX_COLUMNS, schema_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shared.storage import ArtifactStore

_LONGEST_NAME = 255


@contextmanager
def dataset_copy(store: ArtifactStore, uri: str, scratch: Path) -> Iterator[Path]:
    """Yield the local path of the Parquet file of `uri`, whose column names are checked.

    Raises `TaskFailure`: ``artifact_missing``, or ``unreadable_dataset`` for another file, also if the error occurs
    only while the block reads it.
    """
    with store.local_copy(uri, scratch) as path:
        try:
            _need_names(schema_of(path).names)
            yield path
        except (pa.ArrowInvalid, OSError) as broken:
            if getattr(broken, "errno", None) is not None:  # a disk error; errors of Arrow's own have no errno
                raise
            raise _unreadable(f"it is not a valid Parquet file: {str(broken).partition(chr(10))[0][:300]}") from broken


def _need_names(names: list[str]) -> None:
    if len(names) > MAX_COLUMNS:
        raise _unreadable(f"it has {len(names)} columns; the maximum is {MAX_COLUMNS}")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    strange = [name for name in names if not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME]
    if repeated or strange:
        raise _unreadable(f"a column's name is repeated, too long or not printable: {(repeated or strange)[0][:100]!r}")


def _unreadable(why: str) -> TaskFailure:
    return TaskFailure(
        "unreadable_dataset",
        f"The file cannot be used as a dataset: {why}.",
        remedy="Stage it with etl.extract_data, which writes a dataset.",
    )
