"""The model card for people says in words and charts what the model is worth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shared.jobs.ml.kinds import TrainModel
from shared.jobs.ml.results import TrainResult
from tests.support.ml_runs import diabetes, iris, new_run, stored
from worker.ml import tasks

FLOWERS = iris().drop(columns="id")
TWO = FLOWERS[FLOWERS["species"] != "setosa"]


def card(folder: Path, frame: pd.DataFrame, **spec: Any) -> tuple[str, TrainResult]:
    run = new_run(folder)
    result = tasks.train_model(TrainModel.model_validate({"dataset": stored(folder, frame), **spec}), run)
    with run.store.open(result.card.uri) as stream:
        return stream.read().decode(), result


def titles(page: str) -> list[str]:
    return re.findall(r'<h[23] id="chart-\d+-title" dir="auto">([^<]+)<', page)


def cells(page: str, first: str) -> list[str]:
    """Return the cells of the table row that begins with `first`."""
    row = re.search(rf"<tr><td[^>]*><bdi>{re.escape(first)}</bdi></td>(.*?)</tr>", page)
    assert row is not None, first
    return [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row[1])]


@pytest.mark.parametrize(
    ("frame", "spec", "charts"),
    [
        (
            diabetes(),
            {"task": "regression", "target": "target", "estimator": {"kind": "random_forest", "n_estimators": 5}},
            ["True against predicted", "Errors", "Loss without each column"],
        ),
        (
            TWO,
            {"task": "classification", "target": "species", "estimator": {"kind": "logistic_regression"}},
            ["Predicted as", "Is a probability true?", "Found first: virginica", "Loss without each column"],
        ),
        (
            FLOWERS,
            {
                "task": "classification",
                "target": "species",
                "estimator": {"kind": "k_neighbors"},
                "validation": {"kind": "cross_validation", "folds": 3},
            },
            ["Predicted as", "Is a probability true?", "Loss without each column"],
        ),
        (
            FLOWERS,
            {"task": "classification", "target": "species", "estimator": {"kind": "svm"}},
            ["Predicted as", "Loss without each column"],
        ),
    ],
    ids=["regression", "binary", "multi-class", "without probabilities"],
)
def test_a_card_has_the_charts_of_its_task(
    tmp_path: Path, frame: pd.DataFrame, spec: dict[str, Any], charts: list[str]
) -> None:
    """It is one of the pages of reports: same style, no script, and figures for those who do not see."""
    page, _ = card(tmp_path, frame, **spec)
    assert titles(page) == charts
    sections = re.findall(r'<h2 dir="auto">([^<]+)</h2>', page)
    assert sections == [
        "What it is for", "How well it predicts", "What it looks at", "Data", "Limits", "How it was made",
    ]  # fmt: skip
    assert "@media screen and (prefers-color-scheme: dark)" in page
    assert "<script" not in page
    assert page.count("<details>") == len(charts)


def test_figures_are_rounded_and_settings_are_words(tmp_path: Path) -> None:
    """No True, None or 0.05, and no score of seventeen digits."""
    spec = {"task": "regression", "target": "target", "estimator": {"kind": "random_forest", "n_estimators": 5}}
    page, result = card(tmp_path, diabetes(), **spec)
    shown = [word.strip() for word in re.sub(r"<[^>]+>", "\n", page.partition("<body>")[2]).splitlines()]
    assert {"True", "False", "None", "null", "nan", "0.05", "0.95"} & set(shown) == set()
    numbers = [word for word in shown if re.fullmatch(r"-?[\d,]+\.\d+", word)]
    assert len(numbers) > 20
    assert [number for number in numbers if len(number.partition(".")[2]) > 4] == []
    assert cells(page, "max depth")[0] == "not set"
    assert cells(page, "bootstrap")[0] == "yes"
    assert cells(page, "5 % are below") != []
    r2 = result.summary.evaluation.scores["r2"]
    assert cells(page, "R²")[0] == f"{r2:.3f}"


def test_the_limits_are_those_of_the_data(tmp_path: Path) -> None:
    """Few rows, rare and unequal classes, a model that is worth nothing: each is said, and only then."""
    frame = pd.concat([FLOWERS[FLOWERS["species"] == "setosa"], FLOWERS[FLOWERS["species"] == "virginica"].head(5)])
    spec: dict[str, Any] = {"task": "classification", "target": "species"}
    page, _ = card(tmp_path, frame, **spec, estimator={"kind": "dummy"})
    for said in (
        "Read this first",
        "rows were judged",
        "not better than the baseline",
        "which it can hardly know: virginica",
        "differ much",
    ):
        assert said in page
    good, _ = card(
        tmp_path,
        FLOWERS,
        **spec,
        estimator={"kind": "k_neighbors"},
        validation={"kind": "cross_validation", "folds": 3},
    )
    for said in ("Read this first", "rows were judged", "not better than the baseline", "hardly know", "differ much"):
        assert said not in good


def test_many_classes_and_columns_make_a_card_of_bounded_size(tmp_path: Path) -> None:
    """Of 90 classes and 120 columns the most frequent and important are shown, and the rest is counted."""
    random = np.random.default_rng(5)
    frame = pd.DataFrame(random.normal(size=(900, 120)), columns=[f"column {'x' * 150} {n}" for n in range(120)])
    frame["label"] = [f"class {'y' * 150} {n % 90}" for n in range(900)]
    spec = {"task": "classification", "target": "label", "estimator": {"kind": "k_neighbors", "n_neighbors": 3}}
    page, result = card(tmp_path, frame, **spec)
    assert "20 of 90 classes: those with most rows." in page
    assert "40 of 120 rows." in page
    assert result.card.size_bytes < 600_000


@pytest.mark.parametrize("values", [[1e140, -1e140, 0.0], [1e16, 1e16 + 2, 1e16 + 4], [3.0, 3.0, 3.0]])
def test_a_card_of_strange_numbers_can_be_drawn(tmp_path: Path, values: list[float]) -> None:
    """The largest numbers, equal ones, and those that differ by a float's last digit."""
    frame = pd.DataFrame({"x": [float(n) for n in range(30)], "y": values * 10})
    page, _ = card(tmp_path, frame, task="regression", target="y", estimator={"kind": "dummy"})
    assert "Errors" in titles(page)
