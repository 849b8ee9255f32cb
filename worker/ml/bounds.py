"""Memory and threads of one task: estimated before rows are read, and limited while it runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import joblib
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sklearn
from threadpoolctl import threadpool_limits

from shared.errors import TaskFailure
from shared.jobs.ml.estimators import DummyBaseline, HistGradientBoosting, KNeighbors, RandomForest, SupportVectors
from shared.jobs.ml.features import CategoryFeature, DateFeature, NumberFeature, TextFeature
from worker.ml.data.rows import batches, class_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from shared.jobs.ml.estimators import AnyEstimator
    from shared.jobs.ml.features import Feature
    from worker.ml.data.columns import InputColumn

_MIB = 1024**2
_NUMBER_BYTES = 8
_OBJECT_BYTES = 64  # a short Python str with the pointer to it
_TEXT_COPIES = 3  # as read, without the rows that lack a target, and in the frame
_NUMBER_COPIES = 9  # of numbers: as read, in the frame, of training rows, imputed, scaled, joined, and between
_FEATURE_COPIES = 2  # of features that are made of other columns: encoded, and joined
_CLASS_COPIES = 9  # of probabilities: of model and baseline, joined, and what the scores make of them
_SINGLE = 4  # bytes of a number that trees take
_BOOTSTRAPPED = 0.64  # ratio of rows that a bootstrap sample holds: 1 - 1/e
_NODE_BYTES = 72  # of a tree, before its values per class
_WRITTEN = 1.5  # trees in memory, and in the model file while it is made
_GRADIENT_BYTES = 24  # per row and class: gradient, hessian, the sum of the trees so far, and its probabilities
_KERNEL_BYTES = 24  # per feature of a row in libsvm, and in the support vectors
_CACHE_BYTES = 64 * _MIB  # of a kernel, or of distances
_LEAST_BYTES = 32 * _MIB  # shuffled rows for the importances, a batch of rows, the card


@contextmanager
def bounded_threads(threads: int) -> Iterator[None]:
    """Limit BLAS, OpenMP and scikit-learn to `threads` threads; a worker's child cannot start processes."""
    with (
        threadpool_limits(threads),
        joblib.parallel_config(backend="threading", n_jobs=threads),
        sklearn.config_context(working_memory=64),
    ):
        yield


def need_memory(
    path: Path,
    inputs: Sequence[InputColumn],
    *,
    limit_bytes: int,
    estimator: AnyEstimator | None = None,
    target: str | None = None,
) -> None:
    """Raise `TaskFailure` (``dataset_too_large``) if learning from a Parquet file may need more than `limit_bytes`.

    This is an upper bound from the file's metadata, the length of its texts, and the number of values of `target` if
    that has classes.
    """
    metadata = pq.read_metadata(path)
    rows = metadata.num_rows
    classes = 0 if target is None else class_count(path, target)
    needed = _LEAST_BYTES + rows * (_frame_width(path, inputs) + classes * _NUMBER_BYTES * _CLASS_COPIES)
    if estimator is not None:
        needed += _fit_bytes(estimator, rows, feature_bound(inputs), classes)
    if needed > limit_bytes:
        raise TaskFailure(
            "dataset_too_large",
            f"{rows} rows of {len(inputs)} columns may need {needed / _MIB:,.0f} MiB; the task may use "
            f"{limit_bytes / _MIB:,.0f} MiB.",
            remedy="Select rows or columns with etl.transform_data, bound the trees (min_samples_leaf, max_depth, "
            "n_estimators), or raise CELERIAC_MEMORY_LIMIT_BYTES on the workers.",
            needed_bytes=int(needed),
            limit_bytes=limit_bytes,
        )


def feature_bound(inputs: Sequence[InputColumn]) -> int:
    """Return how many features `inputs` can become at most, before anything is read."""
    return sum(_most_features(column.feature) for column in inputs)


def _frame_width(path: Path, inputs: Sequence[InputColumn]) -> float:
    """Return the bytes of one row as read, in the frame, and as features."""
    objects = [column for column in inputs if column.feature.kind in {"category", "ordinal", "text"}]
    texts = [column.name for column in objects if column.family == "string"]
    numbers = feature_bound([column for column in inputs if column not in objects])
    features = feature_bound(objects)
    of_texts = _text_bytes(path, texts) * _TEXT_COPIES / max(pq.read_metadata(path).num_rows, 1)
    copies = numbers * _NUMBER_COPIES + features * _FEATURE_COPIES
    return float(copies * _NUMBER_BYTES + len(objects) * _OBJECT_BYTES + of_texts)


def _text_bytes(path: Path, names: list[str]) -> int:
    """Return the total length of the texts of some columns.

    This reads them: the file stores a repeated text once, but memory holds every repetition.
    """
    found = 0
    for batch in batches(path, names) if names else ():
        found += sum(pc.sum(pc.binary_length(pc.cast(column, pa.string()))).as_py() or 0 for column in batch.columns)
    return found


def _most_features(feature: Feature) -> int:
    if isinstance(feature, CategoryFeature):
        return feature.max_categories
    if isinstance(feature, DateFeature):
        return len(feature.parts)
    if isinstance(feature, TextFeature):
        return feature.components or feature.max_features
    return 1 + (isinstance(feature, NumberFeature) and feature.missing_indicator)


def _fit_bytes(estimator: AnyEstimator, rows: int, features: int, classes: int) -> float:
    """Return what the estimator needs in addition to the features of its rows."""
    if isinstance(estimator, RandomForest):
        return rows * features * _SINGLE + _forest_bytes(estimator, rows, classes)
    if isinstance(estimator, HistGradientBoosting):
        per_iteration = classes if classes > 2 else 1  # noqa: PLR2004 - of two classes, one tree tells the other
        trees = estimator.max_iter * per_iteration * 2 * estimator.max_leaf_nodes * _NODE_BYTES
        return rows * (features + per_iteration * _GRADIENT_BYTES) + trees * _WRITTEN
    if isinstance(estimator, SupportVectors):
        return min(_CACHE_BYTES, rows**2 * _NUMBER_BYTES) + rows * features * _KERNEL_BYTES
    if isinstance(estimator, KNeighbors):
        return min(_CACHE_BYTES, rows**2 * _NUMBER_BYTES) + rows * features * _NUMBER_BYTES
    if isinstance(estimator, DummyBaseline):
        return 0
    return rows * features * _NUMBER_BYTES  # centred, or multiplied


def _forest_bytes(estimator: RandomForest, rows: int, classes: int) -> float:
    distinct = rows * (_BOOTSTRAPPED if estimator.bootstrap else 1)
    leaves = max(1, int(distinct) // estimator.min_samples_leaf)
    if estimator.max_depth is not None and estimator.max_depth < 60:  # noqa: PLR2004 - 2**60 leaves do not bound
        leaves = min(leaves, 2**estimator.max_depth)
    node_bytes = _NODE_BYTES + max(1, classes) * _NUMBER_BYTES
    return estimator.n_estimators * 2 * leaves * node_bytes * _WRITTEN
