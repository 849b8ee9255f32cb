"""Predict a dataset batch by batch, into a Parquet file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shared.errors import TaskFailure
from worker.ml.data.columns import need_fit
from worker.ml.data.frames import frame_of
from worker.ml.data.rows import batches, class_name
from worker.ml.training.scoring import predicted
from worker.tables.parquet.columns import need_distinct, unknown_column
from worker.tables.parquet.staging import ParquetSink, schema_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from shared.jobs.ml.kinds import PredictSpec
    from shared.jobs.ml.results import Label
    from worker.ml.model.model_file import ModelAbout
    from worker.ml.model.pipeline import Fitted
    from worker.ml.training.scoring import Predicted

_BATCH_BYTES = 16 * 1024**2  # of features


@dataclass
class PredictionSummary:
    """Counts of the predictions written."""

    row_count: int = 0
    probabilities: dict[str, str] | None = None
    per_class: Counter[str] = field(default_factory=Counter)
    total: float = 0.0
    minimum: float | None = None
    maximum: float | None = None

    @property
    def mean(self) -> float | None:
        """Mean of predicted numbers; None if there are none."""
        return self.total / self.row_count if self.minimum is not None else None

    def add(self, answers: npt.NDArray[Any], labels: list[Label] | None) -> None:
        self.row_count += len(answers)
        if labels is not None:
            counts = np.bincount(answers, minlength=len(labels))
            self.per_class.update({class_name(label): int(count) for label, count in zip(labels, counts, strict=True)})
        elif len(answers):
            self.total += float(answers.sum())
            self.minimum = float(min(answers.min(), np.inf if self.minimum is None else self.minimum))
            self.maximum = float(max(answers.max(), -np.inf if self.maximum is None else self.maximum))


def predict(
    about: ModelAbout,
    fitted: Fitted,
    dataset: Path,
    spec: PredictSpec,
    *,
    output: Path,
    on_progress: Callable[[float, float], None],
) -> PredictionSummary:
    """Write `output`: the kept columns, ``prediction``, and a probability per class where the model has them.

    Only one batch is in memory. `on_progress` takes the rows done and in total. Raises `TaskFailure`:
    ``columns_do_not_fit``, ``unknown_column``, ``duplicate_column``.
    """
    schema = schema_of(dataset)
    need_fit(dataset, about.inputs)
    for name in spec.keep_columns:
        if name not in schema.names:
            raise unknown_column(name, dict.fromkeys(schema.names, ""), "keep_columns")
    chances = spec.probabilities and about.labels is not None and hasattr(fitted.pipeline, "predict_proba")
    target = _output_schema(schema, about, spec.keep_columns, with_chances=chances)
    total, summary = pq.read_metadata(dataset).num_rows, PredictionSummary()
    if chances and about.labels is not None:
        summary.probabilities = dict(zip(map(class_name, about.labels), chance_names(about.labels), strict=True))
    needed = list(dict.fromkeys([*spec.keep_columns, *(column.name for column in about.inputs)]))
    most_rows = max(1, _BATCH_BYTES // (8 * max(1, about.feature_count)))
    with ParquetSink(output, target) as sink:
        for batch in batches(dataset, needed):
            for start in range(0, batch.num_rows, most_rows):
                part = batch.slice(start, most_rows)
                of = predicted(fitted.pipeline, frame_of(part, about.inputs), about.labels)
                sink.write(_written(part, of, about.labels, target, with_chances=chances))
                summary.add(of.answers, about.labels)
                on_progress(summary.row_count, total)
    return summary


def _output_schema(schema: pa.Schema, about: ModelAbout, keep: list[str], *, with_chances: bool) -> pa.Schema:
    labels = about.labels
    answer = pa.float64() if labels is None else pa.array(labels).type
    fields = [schema.field(name) for name in keep]
    fields.append(pa.field("prediction", answer))
    if with_chances:
        fields += [pa.field(name, pa.float64()) for name in chance_names(labels or [])]
    need_distinct([one.name for one in fields], "keep_columns and the predictions")
    return pa.schema(fields)


def chance_names(labels: list[Label]) -> list[str]:
    """Return the columns of the probabilities; with the class's number where names differ only by case."""
    names = [f"probability_{class_name(label)[:200]}" for label in labels]
    counts = Counter(name.casefold() for name in names)
    return [f"{name}#{index}" if counts[name.casefold()] > 1 else name for index, name in enumerate(names)]


def _written(
    part: pa.RecordBatch, of: Predicted, labels: list[Label] | None, schema: pa.Schema, *, with_chances: bool
) -> pa.RecordBatch:
    answers = pa.array(of.answers) if labels is None else pa.array(labels).take(pa.array(of.answers))
    columns = [answers]
    if with_chances and of.probabilities is not None:
        columns += [pa.array(chance) for chance in of.probabilities.T]
    kept = [part.column(name) for name in schema.names[: len(schema) - len(columns)]]
    return pa.RecordBatch.from_arrays([*kept, *columns], schema=schema)


def write_rows(dataset: Path, positions: npt.NDArray[np.int64], output: Path) -> int:
    """Write the rows at `positions` of a Parquet file, unchanged and in its order; return their number."""
    schema, wanted, start = schema_of(dataset), np.sort(positions), 0
    with ParquetSink(output, schema) as sink:
        for batch in batches(dataset, schema.names):
            here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + batch.num_rows)] - start
            sink.write(batch.take(pa.array(here)))
            start += batch.num_rows
        if sink.row_count != len(positions):
            raise TaskFailure("dataset_changed", "The dataset changed while it was read.", remedy="Run the job again.")
        return sink.row_count
