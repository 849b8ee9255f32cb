"""Model files: nothing is constructed, read or run that a file smuggles in."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skops.io
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.kernel_approximation import Nystroem
from sklearn.preprocessing import FunctionTransformer

from shared.errors import TaskFailure
from shared.jobs.ml.features import FeatureSpec
from shared.jobs.ml.kinds import TrainModel
from tests.support.ml_runs import iris, new_run, stored
from worker.ml import tasks
from worker.ml.data.columns import input_columns
from worker.ml.data.rows import read_rows
from worker.ml.model.model_file import ModelAbout, load_model, save_model
from worker.ml.model.trusted import TRUSTED_TYPES, links_are_sound
from worker.ml.training.fitting import Meter, Notes, fit

if TYPE_CHECKING:
    from pathlib import Path

    from shared.jobs.ml.estimators import LearningTask

LIMIT = 64 * 1024**2
NOWHERE = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/data.parquet"
OF_EVERY_ROLE: dict[str, Any] = {
    "note": ["a fine day", "no day", None] * 50,
    "remark": ["red words", None, "blue"] * 50,
    "grade": ["low", "high", None] * 50,
    "colour": ["red", None, "blue"] * 50,
    "seen": pd.date_range("2026-01-01", periods=150, freq="D"),
}
EVERY_ROLE: dict[str, Any] = {
    "columns": {
        "note": {"kind": "text", "components": 2},
        "remark": {"kind": "text", "method": "hashing", "max_features": 8},
        "grade": {"kind": "ordinal", "order": ["low", "high"], "scale": "min_max"},
        "colour": {"kind": "category", "max_categories": 2, "impute": "most_frequent"},
        "petal length (cm)": {"kind": "number", "impute": "constant", "missing_indicator": True, "scale": "robust"},
        "sepal length (cm)": {"kind": "number", "scale": "none"},
    }
}


class Calling:
    """Something that calls when it is unpickled."""

    def __reduce__(self) -> Any:
        return (print, ("called",))


def trained(folder: Path, **estimator: Any) -> Path:
    """Train and return the model's file."""
    frame = iris().assign(note=["a word", "no word"] * 75)
    features = {"columns": {"note": {"kind": "text"}}}
    job = {"dataset": stored(folder, frame), "task": "classification", "target": "species", "features": features}
    run = new_run(folder)
    model = tasks.train_model(TrainModel.model_validate({**job, "estimator": estimator}), run).model
    with run.store.local_copy(model.uri, run.scratch) as path:
        return path


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("forest"), kind="random_forest", n_estimators=3)


@pytest.fixture(scope="module")
def boosted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("boosted"), kind="hist_gradient_boosting", max_iter=2)


def code_of(path: Path, *, limit_bytes: int = LIMIT) -> str:
    with pytest.raises(TaskFailure) as failure:
        load_model(path, limit_bytes=limit_bytes)
    return failure.value.code


def rewritten(path: Path, into: Path, **parts: Any) -> Path:
    """Write the parts of a model file, some of them changed, to `into`."""
    held = skops.io.load(path, trusted=sorted(TRUSTED_TYPES))
    skops.io.dump({**held, **parts}, into)
    return into


def held_pipeline(path: Path) -> Any:
    return skops.io.load(path, trusted=sorted(TRUSTED_TYPES))["pipeline"]


def test_what_was_stored_predicts_as_it_did(forest: Path, boosted: Path) -> None:
    """A file that nobody altered loads, and so do the trees of both families."""
    for path, kind in ((forest, "random_forest"), (boosted, "hist_gradient_boosting")):
        about, fitted = load_model(path, limit_bytes=LIMIT)
        assert about.estimator.kind == kind
        assert fitted.pipeline["estimator"].n_features_in_ == about.feature_count == 7


@pytest.mark.parametrize(
    ("task", "target", "estimator"),
    [
        ("classification", "species", {"kind": "logistic_regression", "l1_ratio": 0.5, "max_iter": 20}),
        ("classification", "species", {"kind": "svm"}),
        ("classification", "species", {"kind": "k_neighbors", "p": 1}),
        ("classification", "species", {"kind": "dummy"}),
        ("regression", "petal width (cm)", {"kind": "random_forest", "n_estimators": 2}),
        ("regression", "petal width (cm)", {"kind": "hist_gradient_boosting", "max_iter": 2}),
        ("regression", "petal width (cm)", {"kind": "linear_regression"}),
        ("regression", "petal width (cm)", {"kind": "linear_regression", "alpha": 0.1}),
        ("regression", "petal width (cm)", {"kind": "linear_regression", "alpha": 0.1, "l1_ratio": 0.5}),
        ("regression", "petal width (cm)", {"kind": "svm", "gamma": 0.1}),
        ("regression", "petal width (cm)", {"kind": "k_neighbors"}),
        ("regression", "petal width (cm)", {"kind": "dummy"}),
    ],
)
def test_every_estimator_and_role_survives_its_file(
    tmp_path: Path, task: LearningTask, target: str, estimator: dict[str, Any]
) -> None:
    """Whatever can be trained is stored in types that may be loaded, and predicts the same afterwards."""
    table = pa.Table.from_pandas(iris().assign(**OF_EVERY_ROLE))
    job = {"task": task, "target": target, "estimator": estimator, "features": EVERY_ROLE, "dataset": NOWHERE}
    spec = TrainModel.model_validate(job)
    pq.write_table(table, tmp_path / "table")
    inputs = input_columns(tmp_path / "table", spec.features or FeatureSpec(), target)
    rows = read_rows(tmp_path / "table", inputs, target, task)
    with Notes().taken():  # twenty iterations are too few to converge
        fitted = fit(inputs, spec, rows, np.arange(0, 150, 2), Meter(spec.estimator, 1, lambda *_: None))
    about = ModelAbout(
        task=task,
        target=target,
        labels=rows.labels,
        inputs=inputs,
        estimator=spec.estimator,
        seed=0,
        feature_count=fitted.feature_count,
    )
    save_model(tmp_path / "model", about, fitted)
    again, loaded = load_model(tmp_path / "model", limit_bytes=LIMIT)
    assert again == about
    for one, other in ((fitted.pipeline, loaded.pipeline), (fitted.baseline, loaded.baseline)):
        np.testing.assert_array_equal(one.predict(rows.frame), other.predict(rows.frame))


def test_the_reviewed_list_is_no_longer_than_needed(forest: Path, boosted: Path) -> None:
    """Every type on it occurs in a file, and files have no others that skops does not trust itself."""
    found = {name for path in (forest, boosted) for name in skops.io.get_untrusted_types(file=path)}
    assert found == set(TRUSTED_TYPES)


def test_a_type_that_is_not_on_the_list_is_named(forest: Path, tmp_path: Path) -> None:
    """A function in the file is refused by name before anything is constructed."""
    call = FunctionTransformer(func=zipfile.main)  # type: ignore[attr-defined]  # any function will do
    path = rewritten(forest, tmp_path / "f", extra=call)
    with pytest.raises(TaskFailure) as failure:
        load_model(path, limit_bytes=LIMIT)
    assert failure.value.code == "untrusted_model"
    assert failure.value.details["types"] == ["zipfile.main"]


def test_what_is_not_a_model_is_refused(forest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pickle, a text, half a file, a zip of something else, and a description of something else."""
    whole = forest.read_bytes()
    contents: dict[str, bytes] = {
        "pickle": pickle.dumps(Calling()), "text": b"PK not really", "empty": b"", "half": whole[: len(whole) // 2],
    }  # fmt: skip
    for schema in (b"{}", b"[", json.dumps({"__class__": "dict"}).encode(), b"[" * 100_000):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("schema.json", schema)
        contents[f"schema {schema[:20]!r}"] = buffer.getvalue()
    codes = {}
    for name, content in contents.items():
        path = tmp_path / "file"
        path.write_bytes(content)
        codes[name] = code_of(path)
    assert codes == dict.fromkeys(contents, "unreadable_model")
    assert code_of(rewritten(forest, tmp_path / "g", about="{}")) == "unreadable_model"
    assert "called" not in capsys.readouterr().out


def test_a_bomb_is_refused_by_its_size(forest: Path, tmp_path: Path) -> None:
    """A part of 10 MB in a file of 100 kB is not unpacked."""
    path = tmp_path / "bomb"
    path.write_bytes(forest.read_bytes())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("padding", b"\0" * 10 * 1024**2)
    assert path.stat().st_size < 1024**2
    assert code_of(path, limit_bytes=8 * 1024**2) == "model_too_large"


def test_trusted_classes_with_other_parameters_are_refused(forest: Path, tmp_path: Path) -> None:
    """A vectorizer told to read files, in the parameters or in the fitted copy; another step; other columns."""

    def reads_files(vectorizer: Any) -> None:
        vectorizer.set_params(input="filename")

    in_fitted, in_params, other = held_pipeline(forest), held_pipeline(forest), held_pipeline(forest)
    fitted = next(part[1] for part in in_fitted["recipe"].transformers_ if part[0].startswith("text"))
    asked = next(part[1] for part in in_params["recipe"].transformers if part[0].startswith("text"))
    for pipeline in (fitted, asked):
        assert isinstance(pipeline["weigh"], TfidfVectorizer)
        reads_files(pipeline["weigh"])
    other.steps.insert(1, ("more", Nystroem()))
    for changed in (in_fitted, in_params, other, None, Nystroem()):
        assert code_of(rewritten(forest, tmp_path / "f", pipeline=changed)) == "untrusted_model"
    assert code_of(rewritten(forest, tmp_path / "f", baseline=Nystroem())) == "untrusted_model"


def test_trees_that_lead_nowhere_are_refused(forest: Path, boosted: Path) -> None:
    """Links out of the arrays, round in a circle, or to features that are not there."""
    estimator = held_pipeline(forest)["estimator"]
    assert links_are_sound(estimator)
    tree = estimator.estimators_[0].tree_
    state = tree.__getstate__()
    for name, value in (("left_child", 10_000), ("left_child", 0), ("feature", 99), ("right_child", -7)):
        nodes = state["nodes"].copy()
        nodes[name][0] = value
        tree.__setstate__({**state, "nodes": nodes})
        assert not links_are_sound(estimator), name
    tree.__setstate__({**state, "node_count": 10**8})
    assert not links_are_sound(estimator)
    grown = held_pipeline(boosted)["estimator"]
    assert links_are_sound(grown)
    original = grown._predictors[0][0].nodes.copy()
    for name, value in (("left", 5_000), ("right", 0), ("feature_idx", 99)):
        grown._predictors[0][0].nodes = original.copy()
        grown._predictors[0][0].nodes[name][0] = value
        assert not links_are_sound(grown), name


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (
            "svm",
            {
                "support_vectors_": lambda of: of.support_vectors_[:, :1].copy(),
                "_n_support": lambda of: np.array([2**20, len(of.support_) - 2**20, 0][: len(of._n_support)], np.int32),
                "_dual_coef_": lambda of: of._dual_coef_[:, :1].copy(),
                "_intercept_": lambda _: np.zeros(0),
                "_sparse": lambda _: True,
            },
        ),
        (
            "k_neighbors",
            {
                "_fit_X": lambda of: of._fit_X[:, :1].copy(),
                "_y": lambda of: of._y[:1].copy(),
                "n_samples_fit_": lambda _: 10**6,
            },
        ),
    ],
)
def test_arrays_that_compiled_code_would_read_beyond_are_refused(
    tmp_path: Path, task: str, kind: str, changes: dict[str, Any]
) -> None:
    """One array is shorter than another says, or gone: libsvm would read, or crash, beyond it."""
    target = "species" if task == "classification" else "petal width (cm)"
    run = new_run(tmp_path)
    job = {"dataset": stored(tmp_path, iris()), "task": task, "target": target, "estimator": {"kind": kind}}
    model = tasks.train_model(TrainModel.model_validate(job), run).model
    with run.store.local_copy(model.uri, run.scratch) as path:
        load_model(path, limit_bytes=LIMIT)
        for name, changed in changes.items():
            pipeline = held_pipeline(path)
            setattr(pipeline["estimator"], name, changed(pipeline["estimator"]))
            assert code_of(rewritten(path, tmp_path / "f", pipeline=pipeline)) == "untrusted_model", name
            delattr(pipeline["estimator"], name)
            assert code_of(rewritten(path, tmp_path / "f", pipeline=pipeline)) == "untrusted_model", name


def test_features_of_the_model_are_counted(forest: Path, tmp_path: Path) -> None:
    """An estimator for other features than the description says is refused."""
    changed = held_pipeline(forest)
    changed["estimator"].n_features_in_ = 3
    assert code_of(rewritten(forest, tmp_path / "f", pipeline=changed)) == "untrusted_model"
