"""The tasks of the ETL family. They call pure modules."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from shared.contract.artifacts import Dataset
from shared.jobs.data.places import SqlSource, TableDestination
from shared.jobs.etl import (
    BadRowsFound,
    CombineDatasets,
    ExtractData,
    ExtractResult,
    LoadData,
    LoadResult,
    Rejected,
    TransformData,
    TransformResult,
)
from worker.etl.extract import Extractor
from worker.etl.transform import transform
from worker.etl.writing.load_file import load_file
from worker.reach.connections import connections
from worker.runtime.task import Run, runs
from worker.settings import worker_settings
from worker.tables.databases.registry import database
from worker.tables.load import load_table
from worker.tables.parquet.staging import columns_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from shared.contract.artifacts import Column, Role
    from shared.jobs.data.places import Source
    from shared.jobs.etl import TransformSpec
    from worker.etl.reading.delimited import BadRow
    from worker.etl.transform import Transformed

_PARQUET = "application/vnd.apache.parquet"


@runs(ExtractData)
def extract_data(job: ExtractData, run: Run) -> ExtractResult:
    """Stage a source as the artifact ``data.parquet``. A rerun stages it again under its own attempt.

    Duration: about 0.5 s of one core per million rows of CSV with four columns.
    """
    output = run.scratch / "output.parquet"
    extractor = Extractor(
        settings=worker_settings(),
        connections=connections(),
        store=run.store,
        redis_client=run.redis,
        scratch=run.scratch,
        on_progress=lambda current, total, unit: run.progress(current, total, unit=unit),
    )
    extracted = extractor.extract(job.source, output)
    run.log("extracted", source=extracted.source, rows=extracted.row_count, read_bytes=extracted.read_bytes)
    dataset = _published(run, output, "dataset", extracted.row_count, extracted.columns, name="data.parquet")
    return ExtractResult(
        dataset=dataset,
        read_bytes=extracted.read_bytes,
        source=extracted.source,
        missing=extracted.missing,
        bad_rows=_bad_rows(run, extracted.bad_rows, job.source) if extracted.bad_rows else None,
        warnings=extracted.warnings,
    )


@runs(TransformData)
def transform_data(job: TransformData, run: Run) -> TransformResult:
    """Transform a dataset into ``data.parquet``, with refused rows in ``rejects.parquet``. A rerun repeats it."""
    return _transformed(job, [job.dataset], run)


@runs(CombineDatasets)
def combine_datasets(job: CombineDatasets, run: Run) -> TransformResult:
    """Concatenate datasets into ``data.parquet``, transformed if requested. A rerun repeats it."""
    return _transformed(job.transform, job.datasets, run)


@runs(LoadData)
def load_data(job: LoadData, run: Run) -> LoadResult:
    """Load a dataset into a table or file, once per idempotency key, however often the job is delivered."""
    settings, destination = worker_settings(), job.destination
    with run.store.local_copy(job.dataset, run.scratch) as dataset:
        if isinstance(destination, TableDestination):
            loaded = load_table(
                database(connections(), destination.connection),
                destination,
                dataset,
                load_id=run.idempotency_key,
                on_progress=run.progress,
                scratch=run.scratch,
                memory_limit_bytes=settings.memory_limit_bytes,
                threads=settings.threads,
            )
        else:
            store = connections().store(destination.connection)
            loaded = load_file(
                store,
                destination,
                dataset,
                load_id=run.idempotency_key,
                scratch=run.scratch,
                on_progress=run.progress,
            )
    return LoadResult.model_validate(loaded, from_attributes=True)


def _transformed(spec: TransformSpec | None, datasets: Sequence[str], run: Run) -> TransformResult:
    settings, output, rejects = worker_settings(), run.scratch / "output.parquet", run.scratch / "refused.parquet"
    with ExitStack() as stack:
        local = [stack.enter_context(run.store.local_copy(uri, run.scratch)) for uri in datasets]
        inputs = {
            name: stack.enter_context(run.store.local_copy(uri, run.scratch))
            for name, uri in (spec.inputs if spec else {}).items()
        }
        outcome = transform(
            spec,
            local,
            inputs=inputs,
            output=output,
            rejects=rejects,
            memory_limit_bytes=settings.memory_limit_bytes,
            threads=settings.threads,
            scratch=run.scratch,
            on_progress=run.progress,
        )
    dataset = _published(run, output, "dataset", outcome.row_count, outcome.columns, name="data.parquet")
    return TransformResult(
        dataset=dataset, input_row_count=outcome.input_row_count, rejected=_rejected(run, outcome, rejects)
    )


def _bad_rows(run: Run, found: list[BadRow], source: Source) -> BadRowsFound:
    artifact = None
    if not isinstance(source, SqlSource) and source.layout.on_bad_rows == "reject":
        rejects = run.scratch / "bad_rows.parquet"
        pq.write_table(pa.Table.from_pylist([asdict(row) for row in found]), rejects)
        artifact = _published(run, rejects, "rejects", len(found), columns_of(rejects), name="rejects.parquet")
    return BadRowsFound(row_count=len(found), artifact=artifact)


def _rejected(run: Run, outcome: Transformed, rejects: Path) -> Rejected:
    refused = None
    if outcome.rejected_count:
        columns = columns_of(rejects)
        refused = _published(run, rejects, "rejects", outcome.rejected_count, columns, name="rejects.parquet")
    return Rejected(
        row_count=outcome.rejected_count,
        nulled_count=outcome.nulled_count,
        by_reason=outcome.by_reason,
        artifact=refused,
    )


def _published(run: Run, local: Path, role: Role, row_count: int, columns: list[Column], *, name: str) -> Dataset:
    artifact = run.publish(local, name=name, role=role, media_type=_PARQUET)
    return Dataset(**artifact.model_dump(), row_count=row_count, columns=columns)
