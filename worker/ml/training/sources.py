"""Find the training rows, and the columns from which features are made."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import TaskFailure
from shared.jobs.ml.features import FeatureSpec
from worker.ml.data.columns import InputColumn, input_columns
from worker.ml.data.datasets import dataset_copy
from worker.ml.features.building import source_of
from worker.ml.model.model_file import load_recipe
from worker.tables.parquet.staging import schema_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from shared.jobs.ml.kinds import LearningSpec
    from shared.storage import ArtifactStore


@dataclass(frozen=True)
class Source:
    """Training rows: the local file, the uri it came from, and the columns from which features are made."""

    path: Path
    uri: str
    inputs: Sequence[InputColumn]


@contextmanager
def opened(
    store: ArtifactStore, scratch: Path, spec: LearningSpec, *, dataset: str, recipe: str | None, limit_bytes: int
) -> Iterator[Source]:
    """Yield the training rows.

    With a recipe, its columns are used, and a table of features is traced back to the rows that it was made from:
    their features are fitted again on training rows only, so that the held-out rows do not leak.
    Raises `TaskFailure` if a file does not exist, is not a recipe, or lacks columns.
    """
    if recipe is None:
        with dataset_copy(store, dataset, scratch) as path:
            yield Source(path, dataset, input_columns(schema_of(path), spec.features or FeatureSpec(), spec.target))
        return
    with store.local_copy(recipe, scratch) as file:
        inputs = load_recipe(file, limit_bytes=limit_bytes)[0].inputs
    if spec.target in {column.name for column in inputs}:
        raise TaskFailure(
            "target_is_feature",
            f"The recipe makes features of the target {spec.target!r}.",
            remedy="Build the recipe again with this column as 'target' in ml.build_features.",
            column=spec.target,
        )
    with dataset_copy(store, dataset, scratch) as path:
        uri = source_of(path) or dataset
    with dataset_copy(store, uri, scratch) as path:
        yield Source(path, uri, inputs)
