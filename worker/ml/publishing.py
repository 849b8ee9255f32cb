"""Store the files of tasks and return the references that results hold."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from shared.contract.artifacts import Artifact, Dataset, ModelFile, ReportFile
from shared.storage import sha256_of
from worker.ml.card.content import card
from worker.ml.card.page import card_document
from worker.ml.model.model_file import MODEL_MEDIA_TYPE, ModelAbout, save_model
from worker.ml.training.prediction import write_rows
from worker.pages.forms.page import write_page
from worker.tables.parquet.staging import columns_of

if TYPE_CHECKING:
    from pathlib import Path

    from shared.contract.artifacts import Role
    from shared.jobs.ml.kinds import LearningSpec
    from worker.ml.training.fitting import Report
    from worker.ml.training.sources import Source
    from worker.ml.training.training import Trained
    from worker.runtime.run import Run

_PARQUET = "application/vnd.apache.parquet"
JSON_MEDIA_TYPE = "application/json"


def reporting(run: Run) -> Report:
    """Return a function that reports progress to `run`."""
    return lambda current, total, unit: run.progress(current, total, unit=unit)


def published_dataset(run: Run, local: Path, name: str) -> Dataset:
    """Store a Parquet file and return its reference."""
    row_count, columns = pq.read_metadata(local).num_rows, columns_of(local)
    artifact = run.publish(local, name=name, role="dataset", media_type=_PARQUET)
    return Dataset(**artifact.model_dump(), row_count=row_count, columns=columns)


def published_json(run: Run, content: Any, name: str, role: Role) -> Artifact:
    """Store JSON values and return the reference."""
    local = run.scratch / f"{name}.out"
    local.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1), encoding="utf-8")
    return run.publish(local, name=name, role=role, media_type=JSON_MEDIA_TYPE)


def referred_dataset(uri: str, local: Path) -> Dataset:
    """Return the reference of a stored dataset."""
    return Dataset(
        **referred(uri, local, "dataset", _PARQUET),
        row_count=pq.read_metadata(local).num_rows,
        columns=columns_of(local),
    )


def referred_model(uri: str, local: Path) -> ModelFile:
    """Return the reference of a stored model."""
    return ModelFile(**referred(uri, local, "model", MODEL_MEDIA_TYPE))


def published_model(run: Run, trained: Trained, source: Source, spec: LearningSpec) -> dict[str, Any]:
    """Store a model, its card, and the held-out rows; return those fields of a `TrainResult`."""
    about = ModelAbout(
        task=spec.task,
        target=spec.target,
        labels=trained.labels,
        inputs=list(source.inputs),
        estimator=spec.estimator,
        seed=spec.seed,
        feature_count=trained.fitted.feature_count,
    )
    local = run.scratch / "model.out"
    save_model(local, about, trained.fitted)
    content = card(
        about,
        trained.summary,
        dataset_uri=source.uri,
        dataset_sha256=sha256_of(source.path),
        model_sha256=sha256_of(local),
        trained_at=datetime.now(UTC),
        parameters=spec.model_dump(mode="json"),
    )
    page = run.scratch / "card.out"
    write_page(card_document(content, about, trained), page)
    held_out = None
    if trained.held_out is not None:
        rows = run.scratch / "held_out.out"
        write_rows(source.path, trained.held_out, rows)
        held_out = published_dataset(run, rows, "held_out.parquet")
    model = run.publish(local, name="model.skops", role="model", media_type=MODEL_MEDIA_TYPE)
    shown = run.publish(page, name="model_card.html", role="report", media_type="text/html; charset=utf-8")
    return {
        "model": ModelFile(**model.model_dump()),
        "card": ReportFile(**shown.model_dump()),
        "card_json": published_json(run, content, "model_card.json", "file"),
        "dataset": held_out,
        "summary": trained.summary,
    }


def referred(uri: str, local: Path, role: Role, media_type: str) -> dict[str, Any]:
    """Return the fields of the reference to a stored file."""
    return {
        "uri": uri,
        "name": uri.rsplit("/", 1)[1],
        "role": role,
        "media_type": media_type,
        "size_bytes": local.stat().st_size,
        "sha256": sha256_of(local),
    }
