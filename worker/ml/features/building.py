"""Make a table of features: fit a recipe or use a given one, then apply it batch by batch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from shared.contract.artifacts import ARTIFACT_URI_PATTERN
from worker.ml.bounds import need_memory
from worker.ml.data.columns import input_columns, need_fit
from worker.ml.data.frames import frame_of
from worker.ml.data.rows import batches, read_table
from worker.ml.features.recipe import RecipeAbout, feature_names, fit_recipe, make_recipe, transformed
from worker.tables.parquet.staging import ParquetSink, schema_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sklearn.compose import ColumnTransformer

    from shared.jobs.ml.features import FeatureSpec

_SOURCE = b"celeriac.source"
_BATCH_BYTES = 16 * 1024**2


@dataclass(frozen=True)
class Recipe:
    """A fitted recipe with the description in its file."""

    about: RecipeAbout
    transformer: ColumnTransformer


def learn_recipe(dataset: Path, features: FeatureSpec, target: str | None, *, limit_bytes: int) -> Recipe:
    """Return the recipe of `features`, fitted on all rows of a Parquet file.

    Raises `TaskFailure`: ``dataset_too_large``, ``too_many_features``, ``fit_failed``, and those of `input_columns`.
    """
    inputs = input_columns(dataset, features, target)
    need_memory(dataset, inputs, limit_bytes=limit_bytes)
    about = RecipeAbout(inputs=inputs, target=target)
    transformer = make_recipe(inputs, seed=about.seed)
    fit_recipe(transformer, frame_of(read_table(dataset, [column.name for column in inputs]), inputs))
    return Recipe(about, transformer)


def write_features(
    dataset: Path,
    recipe: Recipe,
    *,
    source: str,
    output: Path,
    on_progress: Callable[[float, float], None],
) -> int:
    """Write the features of every row, and the target if present, to `output`; return the number of features.

    `source`, the dataset's uri, is stored in the file. Raises `TaskFailure` (``columns_do_not_fit``).
    """
    about, schema = recipe.about, schema_of(dataset)
    need_fit(dataset, about.inputs)
    targets = [about.target] if about.target is not None and about.target in schema.names else []
    names = feature_names(recipe.transformer, taken=targets)
    fields = [*(pa.field(name, pa.float64()) for name in names), *(schema.field(name) for name in targets)]
    made = pa.schema(fields, metadata={_SOURCE: source.encode()})
    needed = [*(column.name for column in about.inputs), *targets]
    total, most_rows = pq.read_metadata(dataset).num_rows, max(1, _BATCH_BYTES // (8 * len(names)))
    with ParquetSink(output, made) as sink:
        for batch in batches(dataset, needed):
            for start in range(0, batch.num_rows, most_rows):
                part = batch.slice(start, most_rows)
                sink.write(_features(part, recipe, targets, made))
                on_progress(sink.row_count, total)
    return len(names)


def source_of(dataset: Path) -> str | None:
    """Return the uri of the dataset from which a table of features was made; None for another table."""
    noted = (pq.read_schema(dataset).metadata or {}).get(_SOURCE, b"").decode("ascii", errors="replace")
    return noted if re.fullmatch(ARTIFACT_URI_PATTERN, noted) else None


def _features(part: pa.RecordBatch, recipe: Recipe, targets: Sequence[str], schema: pa.Schema) -> pa.RecordBatch:
    found: Any = transformed(recipe.transformer, frame_of(part, recipe.about.inputs))
    columns = [pa.array(column) for column in found.T]
    return pa.RecordBatch.from_arrays([*columns, *(part.column(name) for name in targets)], schema=schema)
