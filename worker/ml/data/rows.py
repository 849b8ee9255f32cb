"""The training rows: features as a frame, the target as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.errors import TaskFailure
from worker.ml.data.columns import family_of, need_fit
from worker.ml.data.frames import floats_of, frame_of, plain_values, whole_numbers
from worker.tables.parquet.columns import unknown_column
from worker.tables.parquet.staging import batches_of, empty_columns, schema_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import pandas as pd

    from shared.jobs.ml.estimators import LearningTask
    from shared.jobs.ml.results import Label
    from worker.ml.data.columns import InputColumn

MAX_CLASSES = 100
LARGEST_NUMBER = 1e140  # of a target or prediction: the sum of squares over billions of rows is still a finite float
_LONGEST_LABEL = 255
_LARGEST_LABEL = 2**63 - 1
_LABEL_FAMILIES = frozenset({"string", "integer", "boolean", "float"})
_NUMBER_FAMILIES = frozenset({"integer", "float", "boolean"})
_TAKEN = {
    "classification": "strings, whole numbers and truth values",
    "regression": "numbers and truth values",
}


@dataclass(frozen=True)
class Rows:
    """Rows that have a target.

    `frame` is ``(n_rows, n_prepared)``. `target` is ``(n_rows,)``: float64 numbers, or int64 positions in `labels`.
    `positions` are the rows' numbers in their file, int64. `dropped_count` rows had no target.
    """

    frame: pd.DataFrame
    target: npt.NDArray[Any]
    labels: list[Label] | None
    positions: npt.NDArray[np.int64]
    dropped_count: int

    def take(self, indices: npt.NDArray[np.int64]) -> Rows:
        """Return the rows at `positions`."""
        return Rows(
            frame=self.frame.iloc[indices],
            target=self.target[indices],
            labels=self.labels,
            positions=self.positions[indices],
            dropped_count=self.dropped_count,
        )

    def class_counts(self) -> dict[str, int] | None:
        """Return the number of rows per class; None for numbers."""
        if self.labels is None:
            return None
        counts = np.bincount(self.target, minlength=len(self.labels))
        return {class_name(label): int(count) for label, count in zip(self.labels, counts, strict=True)}


def read_rows(
    path: Path,
    inputs: Sequence[InputColumn],
    target: str,
    task: LearningTask,
    *,
    labels: list[Label] | None = None,
) -> Rows:
    """Return the rows of a Parquet file with their target; `labels` are the classes if already known.

    Raises `TaskFailure` if columns do not fit, if the target has the wrong type, or if there are too few rows.
    """
    schema = schema_of(path)
    if target not in schema.names:
        raise unknown_column(target, dict.fromkeys(schema.names, ""), "target")
    need_fit(path, inputs)
    if target not in empty_columns(path):
        _need_target(schema.field(target), task)
    table = read_table(path, [*(column.name for column in inputs), target])
    truth = table.column(target)
    if task == "classification":
        truth = _classes(truth, target)
    there = _there(truth, task)
    dropped_count = int(pc.sum(pc.invert(there)).as_py() or 0)
    known = table.filter(there) if dropped_count else table
    del table  # only one copy of the rows is held while the frame is made of them
    if known.num_rows == 0:
        raise TaskFailure(
            "no_rows",
            f"target: no row has a value in {target!r}.",
            remedy="Name another target, or fill the column with etl.transform_data.",
        )
    values: npt.NDArray[Any]
    if task == "classification":
        labels, values = _encoded(truth.filter(there), labels)
    else:
        values = floats_of(known.column(target))
        if (largest := float(np.abs(values).max())) > LARGEST_NUMBER:
            raise TaskFailure(
                "target_too_large",
                f"target: {target!r} has a value of {largest:g}; the largest supported number is {LARGEST_NUMBER:g}.",
                remedy="Scale the column or drop such rows with etl.transform_data.",
                column=target,
            )
    frame = frame_of(known, inputs)
    del known, truth
    pa.default_memory_pool().release_unused()
    return Rows(
        frame=frame,
        target=values,
        labels=labels,
        positions=np.flatnonzero(np.asarray(there.to_numpy(zero_copy_only=False), dtype=bool)),
        dropped_count=dropped_count,
    )


def class_count(path: Path, target: str) -> int:
    """Return how many values a target has, at most one more than a model may have classes; 0 if it has no classes."""
    schema, found = schema_of(path), set[Any]()
    if target not in schema.names or family_of(schema.field(target).type) not in _LABEL_FAMILIES:
        return 0
    for batch in batches(path, [target]):
        found.update(pc.unique(batch.column(0)).to_pylist())
        if len(found) > MAX_CLASSES:
            break
    return len(found)


def read_table(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read `columns` of a Parquet file."""
    return pa.Table.from_batches(list(batches(path, columns)), pa.schema([schema_of(path).field(n) for n in columns]))


def batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield `columns` of a Parquet file in batches of a few MB."""
    dotted = any("." in name for name in schema_of(path).names)  # Arrow takes `a.b` for a part of `a`
    for batch in batches_of(path, None if dotted else list(columns)):
        yield batch.select(list(columns))


def _need_target(field: pa.Field, task: LearningTask) -> None:
    families = _LABEL_FAMILIES if task == "classification" else _NUMBER_FAMILIES
    if family_of(field.type) not in families:
        raise TaskFailure(
            "wrong_column_type",
            f"target: {field.name!r} is {field.type}; {task} takes {_TAKEN[task]}.",
            remedy="Set the other 'task', or cast the column with etl.transform_data.",
            column=field.name,
        )


def class_name(label: Label) -> str:
    """Return a class as it is named in results, columns and weights: a truth value as in JSON and CSV."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def _classes(truth: pa.ChunkedArray, target: str) -> pa.ChunkedArray:
    """Return the target of a classification; floats as the whole numbers that they are."""
    if family_of(truth.type) != "float":
        return truth
    whole = whole_numbers(plain_values(truth))
    if whole is None:
        raise TaskFailure(
            "wrong_column_type",
            f"target: {target!r} has numbers that are not whole ({truth.type}), which cannot be classes.",
            remedy="Set the task 'regression', or make classes with etl.transform_data.",
            column=target,
        )
    return whole


def _there(truth: pa.ChunkedArray, task: LearningTask) -> pa.ChunkedArray:
    if task == "regression":
        return pa.chunked_array([pa.array(np.isfinite(floats_of(truth)))])
    return pc.is_valid(truth)


def _encoded(truth: pa.ChunkedArray, labels: list[Label] | None) -> tuple[list[Label], npt.NDArray[np.int64]]:
    values = truth.to_pylist()
    if labels is not None and all(isinstance(label, str) for label in labels):  # digits only, in these rows
        values = [class_name(value) for value in values]
    found = sorted(set(values))
    if long := [label for label in found if isinstance(label, str) and len(label) > _LONGEST_LABEL]:
        raise TaskFailure(
            "wrong_class",
            f"The target has a class of {len(long[0])} characters; the maximum is {_LONGEST_LABEL}.",
            remedy="Choose another target, or shorten its values.",
        )
    if too_large := [label for label in found if not isinstance(label, str) and label > _LARGEST_LABEL]:
        raise TaskFailure(
            "wrong_class",
            f"The target has the class {too_large[0]}; the largest supported integer is {_LARGEST_LABEL}.",
            remedy="Cast it to a string with etl.transform_data.",
        )
    if len(found) > MAX_CLASSES:
        raise TaskFailure(
            "too_many_classes",
            f"The target has {len(found)} classes; the maximum is {MAX_CLASSES}.",
            remedy="Group rare ones with etl.transform_data, or use the task 'regression' for a number.",
            class_count=len(found),
        )
    known = labels if labels is not None else found
    number = {label: index for index, label in enumerate(known)}
    if strange := [label for label in found if label not in number]:
        raise TaskFailure(
            "unknown_class",
            f"The target has classes that the model does not know: {', '.join(map(repr, strange[:10]))}.",
            remedy="Train again on data that contains them, or drop these rows.",
        )
    return known, np.array([number[value] for value in values], dtype=np.int64)
