"""Find the training rows, and the columns from which features are made."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared.errors import TaskFailure
from shared.jobs.ml.features import FeatureSpec
from worker.ml.data.columns import InputColumn, input_columns, unused_columns
from worker.ml.data.datasets import dataset_copy
from worker.ml.features.building import source_of
from worker.ml.model.model_file import load_recipe

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
    unused: dict[str, str] = field(default_factory=dict)
    """Columns that were left out though nobody asked for it, with their types."""


@contextmanager
def opened(
    store: ArtifactStore, scratch: Path, spec: LearningSpec, *, dataset: str, recipe: str | None, limit_bytes: int
) -> Iterator[Source]:
    """Yield the training rows.

    With a recipe, its columns are used, and a table of features is traced back to the rows that it was made from:
    their features are fitted again on training rows only, so that the held-out rows do not leak.
    Raises `TaskFailure` if a file does not exist, is not a recipe, or lacks columns, and for a table of features
    without its recipe (``recipe_needed``): those features know the held-out rows.
    """
    if recipe is None:
        with dataset_copy(store, dataset, scratch) as path:
            _need_recipe(path)
            features = spec.features or FeatureSpec()
            inputs = input_columns(path, features, spec.target)
            yield Source(path, dataset, inputs, unused_columns(path, features, inputs, spec.target))
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


def _need_recipe(path: Path) -> None:
    uri = source_of(path)
    if uri is not None:
        raise TaskFailure(
            "recipe_needed",
            "The dataset is a table of features, whose recipe was fitted on all of its rows: scores on held-out rows "
            "would be too good.",
            remedy=f"Give the recipe of that job as 'recipe', too, or train on {uri} with 'features': both fit the "
            "features on training rows only.",
            source=uri,
        )
