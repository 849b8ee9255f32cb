"""The model card: what a model is, its training data and its scores; for programs and for people.

Its sections follow Mitchell et al., "Model Cards for Model Reporting", FAT* 2019, as far as a program can fill them.
"""

from __future__ import annotations

import platform
from html import escape
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from shared.jobs.ml.results import ConfusionMatrix, TrainingSummary
    from worker.ml.model.model_file import ModelAbout

_LIBRARIES = ("scikit-learn", "skops", "numpy", "scipy", "pandas", "pyarrow")
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0 1.5rem }
caption { text-align: left; font-weight: 600; padding: .3rem 0 }
th, td { border-bottom: 1px solid #8886; padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top;
  overflow-wrap: anywhere }
td.number { text-align: right; font-variant-numeric: tabular-nums }
tbody th { font-weight: 400 }
div { overflow-x: auto }
"""


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


def card_html(content: Mapping[str, Any], summary: TrainingSummary) -> str:
    """Return the card as one self-contained HTML file. Every value is escaped."""
    title = f"Model card: {summary.estimator} that learns {summary.target}"
    estimator = content["model"]["estimator"]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>Trained {escape(content['trained_at'])} on {summary.train_row_count} rows, {_judged(summary)}.</p>",
        _scores(summary),
        _confusion(summary.evaluation.confusion) if summary.evaluation.confusion else _residuals(summary),
        _table(
            "Importance: loss of accuracy or R² when the column is shuffled",
            ("column", "loss", "deviation"),
            [(one.column, one.importance, one.deviation) for one in summary.importances],
        ),
        _pairs("Hyperparameters", estimator),
        _pairs("Data", {**content["dataset"], "rows without target": summary.dropped_row_count}),
        _pairs("Columns", content["columns"]),
        _pairs("Versions", {**content["libraries"], "model sha256": content["model"]["sha256"]}),
        *(
            [f"<h2>Notes</h2><ul>{''.join(f'<li>{escape(n)}</li>' for n in summary.notes)}</ul>"]
            if summary.notes
            else []
        ),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _judged(summary: TrainingSummary) -> str:
    count = summary.evaluation.row_count
    return f"evaluated on {count} rows " + (
        f"out of {len(summary.folds)} folds" if summary.folds else "that were held out"
    )


def _scores(summary: TrainingSummary) -> str:
    judged = summary.evaluation
    rows = [(name, score, judged.baseline.get(name)) for name, score in judged.scores.items()]
    return _table("Scores compared with the dummy baseline", ("score", "model", "baseline"), rows)


def _confusion(matrix: ConfusionMatrix) -> str:
    rows = [(str(label), *counts) for label, counts in zip(matrix.labels, matrix.counts, strict=True)]
    return _table("Rows of a class (down) predicted as a class (across)", ("class", *map(str, matrix.labels)), rows)


def _residuals(summary: TrainingSummary) -> str:
    residuals = summary.evaluation.residuals
    if residuals is None:
        return ""
    shown = {"mean": residuals.mean, "standard deviation": residuals.standard_deviation}
    return _pairs("Residuals (true minus predicted)", {**shown, **residuals.quantiles})


def _pairs(caption: str, pairs: Mapping[str, Any]) -> str:
    shown = {name: "none" if value is None else value for name, value in pairs.items()}
    return _table(caption, ("name", "value"), shown.items())


def _table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(str(first))}</th>{"".join(map(_cell, others))}</tr>' for first, *others in rows
    )
    return (
        f"<div><table><caption>{escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"<td>{escape('not defined' if value is None else str(value))}</td>"
    return f'<td class="number">{value if isinstance(value, int) else format(value, ".6g")}</td>'
