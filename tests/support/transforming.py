"""Run one transformation on frames and read back what it made; shared by the tests of transformations."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from shared.jobs.etl import TransformSpec
from worker.etl.transform import Transformed, transform

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

URI = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/data.parquet"
MIB = 1024**2


@dataclass
class Outcome:
    """What a transformation returned, wrote and reported."""

    transformed: Transformed
    table: pa.Table
    rejects: pd.DataFrame | None
    progress: list[tuple[int, int | None]] = field(default_factory=list)

    @property
    def rows(self) -> pd.DataFrame:
        """The rows written, as a frame."""
        return pd.DataFrame(self.table.to_pandas())

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows written, as exact Python values with None for what is missing."""
        return list(self.table.to_pylist())


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame with None for what is missing."""
    plain = frame.astype(object)
    return [
        {str(name): value for name, value in row.items()} for row in plain.where(plain.notna(), None).to_dict("records")
    ]


def spec(params: Mapping[str, Any]) -> TransformSpec:
    """Return the specification as it arrives in a message."""
    return TransformSpec.model_validate_json(json.dumps(params))


def run(
    folder: Path,
    frames: pd.DataFrame | pa.Table | Sequence[pd.DataFrame | pa.Table],
    params: Mapping[str, Any] | None,
    *,
    inputs: Mapping[str, pd.DataFrame] | None = None,
    threads: int = 1,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> Outcome:
    """Transform frames in `folder` (empty) and read back the outcome."""
    for part in ("in", "scratch"):
        (folder / part).mkdir(parents=True)
    paths = []
    for index, frame in enumerate(frames if isinstance(frames, list) else [frames]):
        paths.append(folder / "in" / f"{index}.parquet")
        if isinstance(frame, pa.Table):
            pq.write_table(frame, paths[-1])
        else:
            frame.to_parquet(paths[-1], index=False)
    others = {}
    for index, (name, frame) in enumerate((inputs or {}).items()):
        others[name] = folder / "in" / f"other-{index}.parquet"
        frame.to_parquet(others[name], index=False)
    progress: list[tuple[int, int | None]] = []
    transformed = transform(
        None if params is None else spec({**params, "inputs": dict.fromkeys(others, URI)}),
        paths,
        inputs=others,
        output=folder / "output.parquet",
        rejects=folder / "rejects.parquet",
        memory_limit_bytes=64 * MIB,
        threads=threads,
        scratch=folder / "scratch",
        on_progress=on_progress or (lambda current, total: progress.append((current, total))),
    )
    rejects = folder / "rejects.parquet"
    return Outcome(
        transformed,
        pq.read_table(folder / "output.parquet"),
        pq.read_table(rejects).to_pandas() if rejects.exists() else None,
        progress,
    )
