"""The model card for people: what the model is for, how well it predicts, what it looks at, its data and its limits.

Its sections follow Mitchell et al., "Model Cards for Model Reporting", FAT* 2019, as far as a program can fill them.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from worker.ml.card.charts import MOST_CLASSES, confusion, figures_of, importance
from worker.ml.card.words import SCORES, about_classes, change, estimator_words, limits, score, setting, written_number
from worker.ml.data.rows import class_name
from worker.pages.content.document import Document, Heading, Part, Section, Table, Text, Tile, Tiles
from worker.pages.content.texts import Paragraph, Span
from worker.pages.content.values import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.ml.model.model_file import ModelAbout
    from worker.ml.training.training import Trained

_MOST_ROWS = 40  # of a table
_TILES = {"classification": ("accuracy", "balanced_accuracy", "roc_auc"), "regression": ("r2", "mae", "rmse")}

_USE = (
    "Use it with ml.predict_batch for rows that come from where those of the training come from, and judge it again "
    "with ml.evaluate_model when they change. It says what usually goes together in the data; it does not say what "
    "causes what, and is not a reason for a decision about a person by itself."
)


def card_document(content: Mapping[str, Any], about: ModelAbout, trained: Trained) -> Document:
    """Return the card whose JSON form is `content`."""
    summary = trained.summary
    names = None if about.labels is None else [printable(class_name(label), 60) for label in about.labels]
    what = estimator_words(about.estimator.kind)
    return Document(
        title=f"Model card: {printable(about.target, 100)}",
        subtitle=f"{what.capitalize()} that {_does(about, names)}",
        sections=[
            Section("", [_tiles(trained)]),
            *([Section("Read this first", [_list([printable(one.message, 500) for one in summary.findings])])]
              if summary.findings else []),
            Section("What it is for", [_purpose(about, names, what)]),
            Section("How well it predicts", _judged(trained, names)),
            *([Section("What it looks at", [importance(summary.importances, classes=names is not None)])]
              if summary.importances else []),
            Section("Data", [_rows_table(content, trained), *_class_table(trained), _column_table(about)]),
            Section("Limits", [_list(limits(trained, names))]),
            Section("How it was made", [_setting_table(about, content), _version_table(content)]),
        ],
        made_at=datetime.fromisoformat(content["trained_at"]),
        facts=[("Model", f"sha256 {content['model']['sha256'][:12]}…"), ("Seed", str(summary.seed))],
    )  # fmt: skip


def _does(about: ModelAbout, names: Sequence[str] | None) -> str:
    target = printable(about.target, 100)
    return f"predicts the number {target}" if names is None else f"predicts {target}, one of {len(names):,} classes"


def _purpose(about: ModelAbout, names: Sequence[str] | None, what: str) -> Text:
    inputs = [printable(column.name, 60) for column in about.inputs]
    shown = ", ".join(inputs[:8]) + (f" and {len(inputs) - 8:,} more" if len(inputs) > 8 else "")  # noqa: PLR2004
    answer = "a number" if names is None else about_classes(names)
    target = printable(about.target, 100)
    return Text(
        [
            _paragraph(f"For a row with the columns {shown}, this {what} answers with {target}: {answer}."),
            _paragraph(_USE),
        ]
    )


def _tiles(trained: Trained) -> Tiles:
    summary, judged = trained.summary, trained.summary.evaluation
    tiles = []
    for name in _TILES[summary.task]:
        value, other = judged.scores.get(name), judged.baseline.get(name)
        said, mood = change(name, value, other)
        tiles.append(
            Tile(SCORES[name].label, score(name, value), change=said, mood=mood, hint=f"baseline {score(name, other)}")
        )
    how = f"out of {len(summary.folds)} folds" if summary.folds else "held out"
    return Tiles(
        [
            *tiles,
            Tile("Rows trained on", f"{summary.train_row_count:,}"),
            Tile("Rows judged on", f"{judged.row_count:,}", hint=how),
            Tile("Features", f"{summary.feature_count:,}"),
        ]
    )


def _judged(trained: Trained, names: list[str] | None) -> list[Part]:
    judged = trained.summary.evaluation
    parts: list[Part] = []
    if judged.confusion is not None and names is not None:
        parts.append(confusion(judged.confusion, names))
    parts += figures_of(trained.truth, trained.predictions, names, printable(trained.summary.target, 60))
    rows = [
        (SCORES[name].label, score(name, value), score(name, judged.baseline.get(name)), SCORES[name].meaning)
        for name, value in judged.scores.items()
    ]
    parts.append(_table("Scores", ["Score", ">Model", ">Baseline", "What it means"], rows))
    if judged.residuals is not None:
        ends = {"0": "Smallest", "1": "Largest", "0.5": "Median"}
        spread = [
            (ends.get(ratio, f"{float(ratio) * 100:g} % are below"), written_number(value))
            for ratio, value in judged.residuals.quantiles.items()
        ]
        parts.append(_table("Errors (true minus predicted)", ["Share of rows", ">Error"], spread))
    return parts


def _rows_table(content: Mapping[str, Any], trained: Trained) -> Table:
    summary = trained.summary
    how = f"each once, out of {len(summary.folds)} folds" if summary.folds else "held out, stored as held_out.parquet"
    rows = [
        ("Dataset", content["dataset"]["uri"]),
        ("Its SHA-256", content["dataset"]["sha256"]),
        ("Rows trained on", f"{summary.train_row_count:,}"),
        ("Rows judged on", f"{summary.evaluation.row_count:,}, {how}"),
        ("Rows left out", f"{summary.dropped_row_count:,}, as they have no {printable(summary.target, 60)}"
         if summary.dropped_row_count else "none"),
    ]  # fmt: skip
    return _table("Rows", ["What", "Value"], rows)


def _class_table(trained: Trained) -> list[Table]:
    counts = trained.summary.class_counts
    if counts is None:
        return []
    total = sum(counts.values()) or 1
    most = sorted(counts.items(), key=lambda item: -item[1])[:MOST_CLASSES]
    rows = [(printable(name, 60), f"{count:,}", f"{count / total * 100:.1f} %") for name, count in most]
    return [_table("Classes", ["Class", ">Rows", ">Share"], rows, count=len(counts))]


def _column_table(about: ModelAbout) -> Table:
    rows = [(printable(column.name, 100), column.feature.kind, column.family) for column in about.inputs]
    return _table("Columns", ["Column", "Read as", "Type"], rows[:_MOST_ROWS], count=len(rows))


def _setting_table(about: ModelAbout, content: Mapping[str, Any]) -> Table:
    estimator = about.estimator
    weights = content["parameters"].get("class_weights")
    rows = [
        (name.replace("_", " "), setting(getattr(estimator, name)), (field.description or "").replace("`", ""))
        for name, field in type(estimator).model_fields.items()
        if name != "kind"
    ]
    if weights is not None:
        rows.append(("class weights", setting(weights), "Weight per class."))
    return _table("Settings", ["Setting", "Value", "What it does"], rows or [("none", "", "")])


def _version_table(content: Mapping[str, Any]) -> Table:
    rows = [*content["libraries"].items(), ("SHA-256 of the model", content["model"]["sha256"])]
    return _table("Versions", ["What", "Version"], rows)


def _table(title: str, labels: Sequence[str], rows: Sequence[tuple[Any, ...]], *, count: int | None = None) -> Table:
    headings = [Heading(label.removeprefix(">"), align_end=label.startswith(">")) for label in labels]
    return Table(title, headings, lambda most: iter(rows[:most]), len(rows) if count is None else count)


def _paragraph(text: str) -> Paragraph:
    return Paragraph(is_list=False, lines=[[Span("plain", text)]])


def _list(lines: Sequence[str]) -> Text:
    return Text([Paragraph(is_list=True, lines=[[Span("plain", line)] for line in lines])])
