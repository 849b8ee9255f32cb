"""Training: what it measures is what scikit-learn, called directly on the same split, measures."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import StratifiedKFold, cross_val_predict, train_test_split
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from shared.errors import TaskFailure
from shared.jobs.ml.kinds import TrainModel
from shared.storage import sha256_of
from tests.support.ml_runs import cancer, diabetes, fetched, iris, new_run, stored
from worker.ml import tasks
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    from pathlib import Path

    from shared.jobs.ml.results import TrainResult

IRIS = {"task": "classification", "target": "species", "features": {"drop": ["id"]}}
CANCER = {"task": "classification", "target": "benign"}
DIABETES = {"task": "regression", "target": "target"}


def train(folder: Path, frame: pd.DataFrame, **params: Any) -> TrainResult:
    """Train on a frame."""
    job = TrainModel.model_validate({"dataset": stored(folder, frame), **params})
    return tasks.train_model(job, new_run(folder))


def split(frame: pd.DataFrame, target: str, *, seed: int = 0, stratified: bool = True) -> list[Any]:
    """Return the split that scikit-learn makes: features and target of training and test."""
    stratify = frame[target] if stratified else None
    made: list[Any] = train_test_split(
        frame.drop(columns=target), frame[target], test_size=0.2, random_state=seed, stratify=stratify
    )
    return made


CLASSIFIERS = [
    (
        {"kind": "random_forest", "n_estimators": 9, "max_depth": 4},
        RandomForestClassifier(9, max_depth=4, random_state=0),
    ),
    (
        {"kind": "hist_gradient_boosting", "max_iter": 5, "learning_rate": 0.2},
        HistGradientBoostingClassifier(max_iter=5, learning_rate=0.2, early_stopping=False, random_state=0),
    ),
    ({"kind": "logistic_regression", "c": 0.5}, LogisticRegression(C=0.5, max_iter=1000)),
    ({"kind": "svm", "kernel": "poly", "degree": 2}, SVC(kernel="poly", degree=2)),
    ({"kind": "k_neighbors", "n_neighbors": 3, "weights": "distance"}, KNeighborsClassifier(3, weights="distance")),
    ({"kind": "dummy"}, DummyClassifier(strategy="prior")),
]
REGRESSORS = [
    (
        {"kind": "random_forest", "n_estimators": 9, "max_features": 0.5},
        RandomForestRegressor(9, max_features=0.5, random_state=0),
    ),
    (
        {"kind": "hist_gradient_boosting", "max_iter": 50, "max_leaf_nodes": 4},
        HistGradientBoostingRegressor(max_iter=50, max_leaf_nodes=4, early_stopping=False, random_state=0),
    ),
    ({"kind": "linear_regression"}, LinearRegression()),
    ({"kind": "linear_regression", "alpha": 2.0}, Ridge(alpha=2.0)),
    ({"kind": "linear_regression", "alpha": 0.5, "l1_ratio": 0.7}, ElasticNet(alpha=0.5, l1_ratio=0.7)),
    ({"kind": "svm", "c": 10.0, "epsilon": 1.0}, SVR(C=10.0, epsilon=1.0)),
    ({"kind": "k_neighbors"}, KNeighborsRegressor(5)),
]


@pytest.mark.parametrize(
    ("estimator", "direct"), CLASSIFIERS, ids=lambda one: one.get("kind", "") if isinstance(one, dict) else ""
)
def test_a_classifier_scores_as_scikit_learn_called_directly(
    tmp_path: Path, estimator: dict[str, Any], direct: Any
) -> None:
    """Every score, the confusion and the baseline are those of scikit-learn on the held-out fifth."""
    frame = cancer()
    result = train(tmp_path, frame, **CANCER, estimator=estimator)
    x_train, x_test, y_train, y_test = split(frame, "benign")
    model = make_pipeline(StandardScaler(), direct).fit(x_train, y_train)
    answers = model.predict(x_test)
    evaluation = result.summary.evaluation
    expected = {
        "accuracy": metrics.accuracy_score(y_test, answers),
        "balanced_accuracy": metrics.balanced_accuracy_score(y_test, answers),
        "f1_macro": metrics.f1_score(y_test, answers, average="macro"),
        "precision_macro": metrics.precision_score(y_test, answers, average="macro", zero_division=0),
        "recall_macro": metrics.recall_score(y_test, answers, average="macro"),
        "log_loss": None,
        "roc_auc": None,
    }
    if hasattr(model, "predict_proba"):
        chances = model.predict_proba(x_test)
        expected |= {
            "log_loss": metrics.log_loss(y_test, chances),
            "roc_auc": metrics.roc_auc_score(y_test, chances[:, 1]),
        }
    assert evaluation.scores == pytest.approx(expected)
    assert evaluation.confusion is not None
    assert evaluation.confusion.labels == [False, True]
    assert evaluation.confusion.counts == metrics.confusion_matrix(y_test, answers).tolist()
    most = y_train.mode()[0]
    assert evaluation.baseline["accuracy"] == pytest.approx((y_test == most).mean())
    assert (result.summary.train_row_count, evaluation.row_count) == (len(x_train), len(x_test))
    assert result.summary.class_counts == {"false": 212, "true": 357}


@pytest.mark.parametrize(
    ("estimator", "direct"), REGRESSORS, ids=lambda one: one.get("kind", "") if isinstance(one, dict) else ""
)
def test_a_regressor_scores_as_scikit_learn_called_directly(
    tmp_path: Path, estimator: dict[str, Any], direct: Any
) -> None:
    """Scores and residuals are those of scikit-learn on the held-out fifth."""
    frame = diabetes()
    result = train(tmp_path, frame, **DIABETES, estimator=estimator, seed=0)
    x_train, x_test, y_train, y_test = split(frame, "target", stratified=False)
    answers = make_pipeline(StandardScaler(), direct).fit(x_train, y_train).predict(x_test)
    evaluation = result.summary.evaluation
    assert evaluation.scores == pytest.approx(
        {
            "r2": metrics.r2_score(y_test, answers),
            "mae": metrics.mean_absolute_error(y_test, answers),
            "rmse": metrics.root_mean_squared_error(y_test, answers),
            "median_absolute_error": metrics.median_absolute_error(y_test, answers),
            "max_error": metrics.max_error(y_test, answers),
        }
    )
    assert evaluation.baseline["mae"] == pytest.approx(np.abs(y_test - y_train.mean()).mean())
    residuals = y_test - answers
    assert evaluation.residuals is not None
    assert evaluation.residuals.mean == pytest.approx(residuals.mean())
    assert evaluation.residuals.standard_deviation == pytest.approx(residuals.std())
    assert evaluation.residuals.quantiles["0.95"] == pytest.approx(residuals.quantile(0.95))


def test_the_split_seed_decides(tmp_path: Path) -> None:
    """The same seed gives the same figures, another one others, and each is scikit-learn's of that seed."""
    frame = iris()
    estimator = {"kind": "random_forest", "n_estimators": 5}
    found = [train(tmp_path, frame, **IRIS, estimator=estimator, seed=seed).summary for seed in (3, 3, 4)]
    assert found[0].evaluation == found[1].evaluation
    for summary in found[1:]:
        x_train, x_test, y_train, y_test = split(frame.drop(columns="id"), "species", seed=summary.seed)
        direct = RandomForestClassifier(5, random_state=summary.seed).fit(
            StandardScaler().fit_transform(x_train), y_train
        )
        answers = direct.predict(StandardScaler().fit(x_train).transform(x_test))
        assert summary.evaluation.scores["accuracy"] == pytest.approx(metrics.accuracy_score(y_test, answers))


def test_cross_validation_judges_every_row_out_of_fold(tmp_path: Path) -> None:
    """Folds and totals are those of cross_val_predict with the same folds; the final model has seen all rows."""
    frame = iris()
    validation = {"kind": "cross_validation", "folds": 4}
    estimator = {"kind": "logistic_regression"}
    result = train(tmp_path, frame, **IRIS, estimator=estimator, validation=validation, seed=1)
    x, y = frame.drop(columns=["id", "species"]), frame["species"]
    cut = StratifiedKFold(4, shuffle=True, random_state=1)
    answers = cross_val_predict(make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)), x, y, cv=cut)
    assert result.summary.evaluation.confusion is not None
    assert result.summary.evaluation.confusion.counts == metrics.confusion_matrix(y, answers).tolist()
    per_fold = [metrics.accuracy_score(y.iloc[test], answers[test]) for _, test in cut.split(x, y)]
    assert [fold.scores["accuracy"] for fold in result.summary.folds] == pytest.approx(per_fold)
    assert (result.dataset, result.summary.train_row_count) == (None, 150)


def test_balanced_class_weights_are_those_of_scikit_learn(tmp_path: Path) -> None:
    """`balanced` gives what scikit-learn's own class_weight does; weights by name count like repeated rows."""
    frame = cancer()
    x_train, x_test, y_train, y_test = split(frame, "benign")
    estimator = {"kind": "random_forest", "n_estimators": 7, "max_depth": 3}
    for given, own in (("balanced", "balanced"), ({"true": 5.0}, {False: 1.0, True: 5.0})):
        result = train(tmp_path, frame, **CANCER, estimator=estimator, class_weights=given)
        direct = RandomForestClassifier(7, max_depth=3, random_state=0, class_weight=own)
        answers = make_pipeline(StandardScaler(), direct).fit(x_train, y_train).predict(x_test)
        confusion = result.summary.evaluation.confusion
        assert confusion is not None
        assert confusion.counts == metrics.confusion_matrix(y_test, answers).tolist()


def test_importances_are_what_is_lost_when_a_column_is_shuffled(tmp_path: Path) -> None:
    """Mean and deviation over three shuffles of each column, one after another, on the held-out rows."""
    frame = diabetes()
    result = train(tmp_path, frame, **DIABETES, estimator={"kind": "linear_regression"}, seed=4)
    x_train, x_test, y_train, y_test = split(frame, "target", seed=4, stratified=False)
    direct = make_pipeline(StandardScaler(), LinearRegression()).fit(x_train, y_train)
    random, losses = np.random.default_rng(4), {}
    for name in x_test.columns:
        shuffled = [x_test.assign(**{name: x_test[name].to_numpy()[random.permutation(len(x_test))]}) for _ in range(3)]
        losses[name] = [direct.score(x_test, y_test) - direct.score(one, y_test) for one in shuffled]
    found = result.summary.importances
    assert {one.column: one.importance for one in found} == pytest.approx({n: np.mean(v) for n, v in losses.items()})
    assert {one.column: one.deviation for one in found} == pytest.approx({n: np.std(v) for n, v in losses.items()})
    assert [one.importance for one in found] == sorted((one.importance for one in found), reverse=True)


@pytest.mark.parametrize(
    ("estimator", "validation", "last", "steps"),
    [
        ({"kind": "random_forest", "n_estimators": 40}, {"kind": "hold_out"}, (40, 40, "trees"), 20),
        ({"kind": "hist_gradient_boosting", "max_iter": 60}, {"kind": "hold_out"}, (60, 60, "iterations"), 60),
        ({"kind": "k_neighbors"}, {"kind": "cross_validation", "folds": 3}, (4, 4, "fits"), 4),
    ],
)
def test_progress_counts_trees_iterations_and_folds(
    tmp_path: Path, estimator: dict[str, Any], validation: dict[str, Any], last: tuple[Any, ...], steps: int
) -> None:
    """Each report says how many are done, and the last one says all."""
    params = {**IRIS, "estimator": estimator, "validation": validation, "dataset": stored(tmp_path, iris())}
    run = new_run(tmp_path)
    tasks.train_model(TrainModel.model_validate(params), run)
    assert len(run.told) == steps
    assert [told[0] for told in run.told] == sorted({told[0] for told in run.told})
    assert run.told[-1] == last


def test_what_is_stored(tmp_path: Path) -> None:
    """Model, card and held-out rows are there; the card names data, parameters, versions and scores."""
    frame = iris()
    job = TrainModel.model_validate(
        {"dataset": stored(tmp_path, frame), **IRIS, "estimator": {"kind": "k_neighbors"}, "seed": 2}
    )
    run = new_run(tmp_path)
    result = tasks.train_model(job, run)
    assert result.dataset is not None
    _, x_test, _, _ = split(frame, "species", seed=2)
    pd.testing.assert_frame_equal(
        fetched(tmp_path, result.dataset.uri), frame.loc[sorted(x_test.index)].reset_index(drop=True)
    )
    with run.store.open(result.card_json.uri) as stream:
        card = json.load(stream)
    with run.store.local_copy(job.dataset, tmp_path) as dataset:
        assert card["dataset"] == {"uri": job.dataset, "sha256": sha256_of(dataset)}
    assert card["model"]["sha256"] == result.model.sha256
    assert card["parameters"]["estimator"] == {"kind": "k_neighbors", "n_neighbors": 5, "weights": "uniform", "p": 2}
    assert {"python", "scikit-learn", "skops", "numpy"} <= card["libraries"].keys()
    assert card["summary"]["evaluation"]["scores"] == result.summary.evaluation.scores
    assert {artifact.role for artifact in run.artifacts} == {"model", "report", "file", "dataset"}


def test_a_hostile_name_is_escaped_in_the_card(tmp_path: Path) -> None:
    """A column or class that is markup is shown, not run."""
    evil = "<script>alert(1)</script>"
    frame = iris().rename(columns={"species": evil})
    frame[evil] = frame[evil].replace("setosa", "<img src=x>")
    params = {**IRIS, "target": evil, "estimator": {"kind": "dummy"}}
    run = new_run(tmp_path)
    result = tasks.train_model(TrainModel.model_validate({"dataset": stored(tmp_path, frame), **params}), run)
    with run.store.open(result.card.uri) as stream:
        page = stream.read().decode()
    assert evil not in page
    assert "<img" not in page
    assert "&lt;img src=x&gt;" in page


def test_rows_without_target_are_left_out_and_counted(tmp_path: Path) -> None:
    """They are neither trained on nor judged, and the held-out rows are those of the file."""
    frame = iris()
    frame.loc[::10, "species"] = None
    result = train(tmp_path, frame, **IRIS, estimator={"kind": "dummy"})
    assert result.dataset is not None
    known = frame.dropna(subset=["species"])
    assert (result.summary.dropped_row_count, result.summary.train_row_count) == (15, 108)
    held_out = fetched(tmp_path, result.dataset.uri)
    assert set(held_out["id"]) < set(known["id"])
    assert len(held_out) == 27


def test_a_class_that_is_absent_makes_a_score_null_not_nan(tmp_path: Path) -> None:
    """With a class that no held-out row has, the area under the curve is not defined: null."""
    frame = pd.DataFrame({"x": range(60), "y": ["a", "b"] * 29 + ["a", "rare"]})
    validation = {"kind": "hold_out", "stratified": False, "test_ratio": 0.1}
    params = {"task": "classification", "target": "y", "estimator": {"kind": "k_neighbors"}, "seed": 1}
    scores = train(tmp_path, frame, **params, validation=validation).summary.evaluation.scores
    assert scores["roc_auc"] is None
    assert scores["accuracy"] is not None


def test_what_scikit_learn_warns_of_is_told(tmp_path: Path) -> None:
    """A solver that does not converge is a note in the result and a line in the job's log."""
    params = {**CANCER, "estimator": {"kind": "logistic_regression", "max_iter": 2}}
    notes = train(tmp_path, cancer(), **params).summary.notes
    assert ["ConvergenceWarning" in note for note in notes] == [True]


@pytest.mark.parametrize(
    ("frame", "params", "code", "said"),
    [
        (iris(), {**IRIS, "target": "specie"}, "unknown_column", "'species'"),
        (iris(), {**IRIS, "features": {"drop": ["idd"]}}, "unknown_column", "'id'"),
        (iris(), {**IRIS, "task": "regression"}, "wrong_column_type", "string"),
        (
            diabetes().assign(target=lambda frame: frame["target"] + 0.5),
            {**DIABETES, "task": "classification"},
            "wrong_column_type",
            "not whole",
        ),
        (diabetes().assign(target=pd.Timestamp("2026-01-01")), DIABETES, "wrong_column_type", "numbers and truth"),
        (iris().assign(species=None), IRIS, "no_rows", "species"),
        (iris().head(50), IRIS, "too_few_rows", "All 50 rows have the class 'setosa'"),
        (iris().assign(species=None).astype({"species": "str"}), IRIS, "no_rows", "species"),
        (iris(), {**IRIS, "class_weights": {"rose": 2.0}, "estimator": {"kind": "svm"}}, "unknown_class", "'rose'"),
        (iris().replace("setosa", "s" * 256), IRIS, "wrong_class", "256 characters"),
        (
            pd.DataFrame({"species": [f"{row}" for row in range(101)], "x": 1}),
            {**IRIS, "features": {}},
            "too_many_classes",
            "101",
        ),
        (iris().rename(columns={"id": "i\nd"}), IRIS, "unreadable_dataset", "not printable"),
        (iris()[["species"]], {**IRIS, "features": None}, "no_features", ""),
        (
            diabetes().assign(age=lambda frame: frame["age"].where(frame["age"] > 0)),
            {
                **DIABETES,
                "estimator": {"kind": "svm"},
                "features": {"columns": {"age": {"kind": "number", "impute": "none"}}},
            },
            "fit_failed",
            "NaN",
        ),
        (diabetes().assign(target=lambda frame: frame["target"] * 1e200), DIABETES, "target_too_large", "'target'"),
        (
            diabetes().head(10),
            {**DIABETES, "estimator": {"kind": "k_neighbors", "n_neighbors": 9}},
            "predict_failed",
            "n_neighbors",
        ),
        (
            pd.DataFrame({"species": np.array([2**63, 1] * 10, dtype=np.uint64), "x": range(20)}),
            {**IRIS, "features": {}},
            "wrong_class",
            "9223372036854775808",
        ),
    ],
)
def test_what_cannot_be_learnt_is_refused_with_its_reason(
    tmp_path: Path, frame: pd.DataFrame, params: dict[str, Any], code: str, said: str
) -> None:
    """The failure names what is wrong."""
    with pytest.raises(TaskFailure) as failure:
        train(tmp_path, frame, **{"estimator": {"kind": "dummy"}, **params})
    assert failure.value.code == code
    assert said in failure.value.message + failure.value.remedy


def damaged() -> bytes:
    """Return a Parquet file with a sound footer and broken pages."""
    content = io.BytesIO()
    iris().to_parquet(content, compression=None)
    return content.getvalue()[:4] + b"\xff" * 60 + content.getvalue()[64:]


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"PAR1 and no more", b"", damaged()])
def test_a_file_that_is_not_a_dataset_is_refused(tmp_path: Path, content: bytes) -> None:
    """Any uploaded file may be named as the dataset."""
    local = tmp_path / "file"
    local.write_bytes(content)
    uri = new_run(tmp_path).publish(local, name="a.csv", role="file", media_type="text/csv").uri
    job = TrainModel.model_validate({"dataset": uri, **IRIS, "estimator": {"kind": "dummy"}})
    with pytest.raises(TaskFailure) as failure:
        tasks.train_model(job, new_run(tmp_path))
    assert failure.value.code == "unreadable_dataset"


def test_data_too_large_for_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figure comes from the file's metadata: no row is kept."""
    monkeypatch.setenv("CELERIAC_MEMORY_LIMIT_BYTES", str(32 * 1024**2))
    monkeypatch.setattr(tasks, "worker_settings", WorkerSettings)
    monkeypatch.setattr(tasks, "read_rows", None)
    with pytest.raises(TaskFailure) as failure:
        train(tmp_path, iris(), **IRIS, estimator={"kind": "random_forest", "n_estimators": 2_000, "bootstrap": False})
    assert failure.value.code == "dataset_too_large"
    assert failure.value.details["needed_bytes"] > failure.value.details["limit_bytes"] == 32 * 1024**2
