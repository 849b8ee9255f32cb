"""What makes the scores of a training deceptive is named, and nothing else is."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from shared.errors import TaskFailure
from shared.jobs.ml.kinds import BuildFeatures, TrainModel
from tests.support.ml_runs import cancer, diabetes, iris, new_run, stored
from worker.ml import tasks

if TYPE_CHECKING:
    from pathlib import Path

    from shared.jobs.ml.results import Finding

FLOWERS: dict[str, Any] = {"task": "classification", "target": "species", "estimator": {"kind": "k_neighbors"}}
PATIENTS: dict[str, Any] = {"task": "regression", "target": "target", "estimator": {"kind": "linear_regression"}}
SAMPLES: dict[str, Any] = {"task": "classification", "target": "benign", "estimator": {"kind": "logistic_regression"}}
CROSSED: dict[str, Any] = {"validation": {"kind": "cross_validation", "folds": 3}}


def findings(folder: Path, table: pd.DataFrame | pa.Table, spec: dict[str, Any]) -> list[Finding]:
    job = TrainModel.model_validate({"dataset": stored(folder, table), **spec})
    return tasks.train_model(job, new_run(folder)).summary.findings


def named(found: list[Finding]) -> list[tuple[str, str | None]]:
    return [(one.code, one.column) for one in found]


def flowers(**columns: Any) -> pd.DataFrame:
    return iris().drop(columns="id").assign(**columns)


@pytest.mark.parametrize(
    ("frame", "spec"),
    [(flowers(), FLOWERS), (flowers(), {**FLOWERS, **CROSSED}), (diabetes(), PATIENTS), (cancer(), SAMPLES)],
    ids=["iris", "iris in folds", "diabetes", "cancer"],
)
def test_sound_data_has_no_findings(tmp_path: Path, frame: pd.DataFrame, spec: dict[str, Any]) -> None:
    """Columns that predict well and numbers that are measured are not mistaken for copies and ids."""
    assert findings(tmp_path, frame, spec) == []


def rare(rows: int) -> pd.DataFrame:
    """Return rows of which four in a hundred are of another class, and a column that says which."""
    random = np.random.default_rng(0)
    fraud = random.random(rows) < 0.04
    return pd.DataFrame(
        {"amount": random.normal(size=rows), "blocked": fraud.astype(int), "fraud": np.where(fraud, "yes", "no")}
    )


@pytest.mark.parametrize(
    ("frame", "spec", "columns"),
    [
        (flowers(code=lambda frame: frame["species"].factorize()[0]), FLOWERS, ["code"]),
        (flowers(name=lambda frame: frame["species"].str.upper()), FLOWERS, ["name"]),
        (
            flowers(name=lambda frame: frame["species"].where(frame.index % 3 > 0, "B" + frame["species"])),
            FLOWERS,
            ["name"],
        ),
        (diabetes().assign(pounds=lambda frame: frame["target"] * 2.2046), PATIENTS, ["pounds"]),
        (diabetes().assign(log=lambda frame: -np.log(frame["target"])), PATIENTS, ["log"]),
        (diabetes().assign(gap=lambda frame: frame["target"].where(frame.index % 4 > 0)), PATIENTS, ["gap"]),
        (cancer().assign(score=lambda frame: frame["benign"] + frame["mean area"] / 1e5), SAMPLES, ["score"]),
        (rare(500), {**SAMPLES, "target": "fraud"}, ["blocked"]),
    ],
    ids=["code", "other case", "finer", "other unit", "other scale", "gaps", "score", "rare class"],
)
def test_copies_of_the_target_are_named(
    tmp_path: Path, frame: pd.DataFrame, spec: dict[str, Any], columns: list[str]
) -> None:
    """Under another name, code, unit or scale, and where it is missing in some rows."""
    found = [one for one in findings(tmp_path, frame, spec) if one.code == "target_copy"]
    assert [one.column for one in found] == columns
    assert "features.drop" in found[0].message


def test_ids_and_columns_that_say_nothing_are_named(tmp_path: Path) -> None:
    """The gravest first; a column left out on purpose is not named, one without a role or a value is."""
    frame = pa.Table.from_pandas(iris(), preserve_index=False)
    count = frame.num_rows
    more: dict[str, Any] = {
        "key": [f"K{row * 7919 % 1000:04d}" for row in range(count)],
        "made": [3 + row * row for row in range(count)],
        "same": ["x"] * count,
        "empty": pa.nulls(count),
        "typed": pa.nulls(count, pa.float64()),
        "tags": [["a"]] * count,
        "day": [dt.date(2026, 1, 1) + dt.timedelta(days=row) for row in range(count)],
    }
    for name, values in more.items():
        frame = frame.append_column(name, pa.array(values))
    found = findings(tmp_path, frame, {**FLOWERS, "features": {"drop": ["sepal width (cm)"]}})
    assert named(found) == [
        ("id_column", "id"), ("id_column", "key"), ("id_column", "made"), ("constant_column", "same"),
        ("unused_column", "empty"), ("unused_column", "typed"), ("unused_column", "tags"),
    ]  # fmt: skip
    assert [one.message for one in found[-2:]] == [
        "'typed' has no values: it was left out.",
        "'tags' has the type list<element: string>, of which no feature is made: it was left out.",
    ]


@pytest.mark.parametrize("validation", [{"kind": "hold_out"}, CROSSED["validation"]])
def test_rows_that_are_judged_and_trained_on_are_named(tmp_path: Path, validation: dict[str, Any]) -> None:
    """A file whose rows are there twice gives scores that no other rows have."""
    twice = pd.concat([diabetes()] * 2)
    found = findings(tmp_path, twice, {**PATIENTS, "estimator": {"kind": "dummy"}, "validation": validation})
    assert [code for code, _ in named(found)] == ["no_better_than_baseline", "duplicate_rows"]


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("seed", range(3))
def test_a_model_of_noise_is_not_better_than_the_baseline(tmp_path: Path, task: str, seed: int) -> None:
    """By chance a score may be a little higher than the baseline's; that is not better."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(300, 4)), columns=list("abcd"))
    frame["y"] = random.integers(0, 2, 300) if task == "classification" else random.normal(size=300)
    kind = "logistic_regression" if task == "classification" else "linear_regression"
    found = findings(tmp_path, frame, {"task": task, "target": "y", "estimator": {"kind": kind}, "seed": seed})
    assert named(found) == [("no_better_than_baseline", None)]


def test_features_without_their_recipe_are_refused(tmp_path: Path) -> None:
    """Their words and means are those of held-out rows, too; the failure says what to train on instead."""
    dataset = stored(tmp_path, iris())
    built = tasks.build_features(BuildFeatures(dataset=dataset, target="species"), new_run(tmp_path))
    job: dict[str, Any] = {**FLOWERS, "dataset": built.dataset.uri}
    with pytest.raises(TaskFailure) as failure:
        tasks.train_model(TrainModel.model_validate(job), new_run(tmp_path))
    assert failure.value.code == "recipe_needed"
    assert dataset in failure.value.remedy
    given = TrainModel.model_validate({**job, "recipe": built.recipe.uri})
    direct = TrainModel.model_validate({**FLOWERS, "dataset": dataset})
    scores = [tasks.train_model(one, new_run(tmp_path)).summary.evaluation.scores for one in (given, direct)]
    assert scores[0] == scores[1]
