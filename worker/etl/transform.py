"""Transform datasets with DuckDB: steps or one SQL query, from Parquet to Parquet, in bounded memory."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from shared.contract.artifacts import Column
from shared.errors import TaskFailure
from worker.etl.sandbox import checked
from worker.etl.steps.stepwise import Counts, Stepwise
from worker.etl.unite import define_united
from worker.tables.duck.engine import locked_engine
from worker.tables.parquet.columns import fresh_name, quoted
from worker.tables.parquet.staging import columns_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from shared.jobs.etl import TransformSpec

_LEAST_ROW_BYTES = 128  # with dictionaries, a file's sizes are less than what its rows take in memory


@dataclass(frozen=True)
class Transformed:
    """The outcome of a transformation: `output` has `row_count` rows; `rejects` is set if `rejected_count` is not 0."""

    row_count: int
    columns: list[Column]
    input_row_count: int
    rejected_count: int = 0
    nulled_count: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)


def transform(
    spec: TransformSpec | None,
    datasets: Sequence[Path],
    *,
    inputs: Mapping[str, Path],
    output: Path,
    rejects: Path,
    memory_limit_bytes: int,
    threads: int,
    scratch: Path,
    on_progress: Callable[[int, int | None], None],
) -> Transformed:
    """Unite `datasets` (Parquet, same columns) as the view `input`, transform it, and write Parquet to `output`.

    Without a spec the datasets are only united. Data beyond `memory_limit_bytes` spills into `scratch`.
    `on_progress` takes the input rows done and in total; an exception that it or a signal handler raises interrupts
    the query and is raised unchanged.

    Raises `TaskFailure`: ``columns_differ``, ``unknown_column``, ``duplicate_column``, ``wrong_type``, ``bad_row``,
    ``invalid_sql``, ``invalid_transformation``, ``value_out_of_range``, ``out_of_memory``, ``unreadable_dataset``.
    """
    readable = {path: f"dataset {number}" for number, path in enumerate(datasets, start=1)}
    readable |= {path: f"input {name!r}" for name, path in inputs.items()}
    sizes = [_rows_and_bytes(path, readable[path]) for path in [*datasets, *inputs.values()]]
    input_row_count = sum(rows for rows, _ in sizes[: len(datasets)])
    stepwise = Stepwise(spec.steps, spec.bad_rows, scratch) if spec and spec.sql is None else None
    progress = _Progress(input_row_count, stepwise.passes if stepwise else 1, on_progress)
    with locked_engine(
        readable=readable,
        writable=[output, *(stepwise.files if stepwise else [])],
        scratch=scratch,
        memory_limit_bytes=memory_limit_bytes,
        threads=threads,
        row_bytes=sum(max(_LEAST_ROW_BYTES, size // max(rows, 1)) for rows, size in sizes),
        on_fraction=progress.within_pass,
    ) as engine:
        columns = define_united("input", datasets, engine)
        others = {name: define_united(name, [path], engine) for name, path in inputs.items()}
        if stepwise:
            sql = stepwise.compile(columns, others, engine, progress.next_pass)
        elif spec and spec.sql is not None:
            result = fresh_name("result", inputs)
            engine.define(result, checked(spec.sql, ["input", *inputs], engine))
            sql = f"SELECT * FROM {quoted(result)}"  # noqa: S608 - quoted
        else:
            sql = "SELECT * FROM input"
        params = stepwise.bindings.used_in(sql) if stepwise else {}
        row_count = engine.write(sql, params, output)
        if stepwise and stepwise.counts.rejected:
            shutil.move(stepwise.gather_rejects(engine), rejects)
    on_progress(input_row_count, input_row_count)
    counts = stepwise.counts if stepwise else Counts()
    return Transformed(row_count, columns_of(output), input_row_count, counts.rejected, counts.nulled, counts.by_reason)


def _rows_and_bytes(path: Path, label: str) -> tuple[int, int]:
    """Return the rows of a Parquet file and their size in bytes before compression."""
    try:
        footer = pq.read_metadata(path)
    except (OSError, ValueError) as error:  # pyarrow raises these for a file that is not Parquet or is truncated
        raise TaskFailure(
            "unreadable_dataset",
            f"The {label} is not a readable Parquet file: {str(error).replace(str(path), label)}",
            remedy="Stage it with etl.extract_data, which writes Parquet.",
        ) from None
    return footer.num_rows, sum(footer.row_group(index).total_byte_size for index in range(footer.num_row_groups))


class _Progress:
    """Rows done over several passes; the number never decreases."""

    def __init__(self, row_count: int, passes: int, report: Callable[[int, int | None], None]) -> None:
        self._row_count = row_count
        self._passes = passes
        self._report = report
        self._done = 0
        self._reported = 0

    def within_pass(self, fraction: float) -> None:
        whole = min(1.0, (self._done + min(fraction, 1.0)) / max(self._passes, self._done + 1))
        self._reported = max(self._reported, int(whole * self._row_count))
        self._report(self._reported, self._row_count)

    def next_pass(self) -> None:
        self._done += 1
        self.within_pass(0)
