"""The model card for programs: what a model is, its training data and its scores.

Its sections follow Mitchell et al., "Model Cards for Model Reporting", FAT* 2019, as far as a program can fill them.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from shared.jobs.ml.results import TrainingSummary
    from worker.ml.model.model_file import ModelAbout

_LIBRARIES = ("scikit-learn", "skops", "numpy", "scipy", "pandas", "pyarrow")


def card(
    about: ModelAbout,
    summary: TrainingSummary,
    *,
    dataset_uri: str,
    dataset_sha256: str,
    model_sha256: str,
    trained_at: datetime,
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the card as JSON values."""
    return {
        "format": "celeriac-model-card-1",
        "trained_at": trained_at.isoformat(timespec="seconds"),
        "model": {"sha256": model_sha256, "estimator": about.estimator.model_dump(mode="json")},
        "dataset": {"uri": dataset_uri, "sha256": dataset_sha256},
        "parameters": dict(parameters),
        "columns": {column.name: column.feature.kind for column in about.inputs},
        "classes": about.labels,
        "libraries": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        "summary": summary.model_dump(mode="json"),
    }
