"""A search: its trials are real, its best is the best, and what is lost on the way does not end it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shared.contract.catalogue import catalogue
from shared.errors import TaskFailure
from shared.jobs.ml.results import SearchResult, TrialResult, TuneResult
from shared.jobs.ml.tuning import RunTrial, TuneModel
from shared.ledger.ids import uuid7
from shared.workflows.feeding import feed
from shared.workflows.nodes import lay_out
from tests.support.ml_runs import diabetes, iris, new_run, stored
from worker.ml import tasks as family
from worker.ml import tuning_tasks as tasks
from worker.ml.search.search import Search, Trial
from worker.runtime.task import definitions

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from pydantic import BaseModel

RIDGE: dict[str, Any] = {
    "task": "regression",
    "target": "target",
    "estimator": {"kind": "linear_regression"},
    "space": {"alpha": {"kind": "float", "low": 0.01, "high": 1000.0, "log": True}},
}
NEIGHBORS: dict[str, Any] = {
    "task": "classification",
    "target": "species",
    "features": {"drop": ["id"]},
    "estimator": {"kind": "k_neighbors"},
    "space": {
        "n_neighbors": {"kind": "int", "low": 1, "high": 9, "step": 4},
        "p": {"kind": "categorical", "choices": [1, 2]},
    },
}


def searched(folder: Path, job: dict[str, Any], *, lost: Collection[str] = ()) -> dict[str, BaseModel]:
    """Run the steps of a search as the canvas does, except for those that are `lost`; return results by step."""
    planned = lay_out(TuneModel.model_validate(job).plan(), uuid7)
    results: dict[str, BaseModel] = {}
    names = {one.id: one.plan.name for one in planned}
    for one in planned:
        if one.plan.name in lost:
            continue
        upstream = [results.get(names[before]) for before in one.after]
        documents = [None if result is None else result.model_dump(mode="json") for result in upstream]
        contract = one.plan.contract
        params = contract.model_validate(feed(contract, one.plan.params, documents))
        results[one.plan.name] = definitions()[contract.spec.kind].body(params, new_run(folder))
    return results


def test_every_kind_has_a_task() -> None:
    """The tasks of the family are those of its contracts that are not workflows."""
    kinds = {kind for kind in catalogue().families(["ml"]) if kind not in {"ml.tune_model", "ml.run_pipeline"}}
    assert set(family.__all__) == {definitions()[kind].body.__name__ for kind in kinds}
    assert kinds == {kind for kind in definitions() if kind.startswith("ml.")}


def test_a_grid_is_what_scikit_learn_finds(tmp_path: Path) -> None:
    """Every combination, each with the score of cross_val_score on the training rows; the best is refitted."""
    frame = iris()
    results = searched(tmp_path, {"dataset": stored(tmp_path, frame), **NEIGHBORS, "method": {"kind": "grid"}})
    x_train, x_test, y_train, y_test = train_test_split(
        frame.drop(columns=["id", "species"]),
        frame["species"],
        test_size=0.2,
        random_state=0,
        stratify=frame["species"],
    )
    cut = StratifiedKFold(3, shuffle=True, random_state=0)
    expected = {
        (count, p): cross_val_score(
            make_pipeline(StandardScaler(), KNeighborsClassifier(count, p=p)), x_train, y_train, cv=cut
        )
        for count, p in itertools.product([1, 5, 9], [1, 2])
    }
    found = [result for name, result in results.items() if name.startswith("trial_")]
    for trial, (point, scores) in zip(found, expected.items(), strict=True):
        assert isinstance(trial, TrialResult)
        assert (trial.state, trial.params) == ("completed", dict(zip(("n_neighbors", "p"), point, strict=True)))
        assert trial.fold_scores == pytest.approx(list(scores))
        assert trial.score == pytest.approx(scores.mean())
    best = max(expected, key=lambda point: expected[point].mean())
    tuned = results["refit"]
    assert isinstance(tuned, TuneResult)
    assert tuned.best.params == {"n_neighbors": best[0], "p": best[1]}
    direct = make_pipeline(StandardScaler(), KNeighborsClassifier(best[0], p=best[1])).fit(x_train, y_train)
    assert tuned.summary.evaluation.scores["accuracy"] == pytest.approx(direct.score(x_test, y_test))
    assert tuned.summary.train_row_count == len(x_train)
    assert len(tuned.trials) == 6


def test_the_best_of_all_rounds_is_refitted_and_a_loss_is_minimised(tmp_path: Path) -> None:
    """Each score is that of cross_val_score on the training rows, in later rounds as in the first."""
    method = {"kind": "tpe", "rounds": 2, "trials_per_round": 2}
    job = {"dataset": stored(tmp_path, diabetes()), **RIDGE, "method": method, "metric": "mae"}
    tuned = searched(tmp_path, job)["refit"]
    assert isinstance(tuned, TuneResult)
    train, _ = train_test_split(diabetes(), test_size=0.2, random_state=0)
    cut = KFold(3, shuffle=True, random_state=0)
    for trial in tuned.trials:
        direct = make_pipeline(StandardScaler(), Ridge(alpha=float(trial.params["alpha"] or 0)))
        losses = cross_val_score(
            direct, train.drop(columns="target"), train["target"], scoring="neg_mean_absolute_error", cv=cut
        )
        assert trial.score == pytest.approx(-losses.mean())
    assert len({trial.params["alpha"] for trial in tuned.trials}) == 4
    assert tuned.best.score == min(trial.score for trial in tuned.trials if trial.score is not None)
    assert tuned.metric == "mae"


def test_lost_and_failed_trials_do_not_end_a_search(tmp_path: Path) -> None:
    """A whole round is lost, some trials want more neighbours than there are rows: the others decide."""
    space = {"n_neighbors": {"kind": "categorical", "choices": [1, 500, 7, 600]}}
    method = {"kind": "random", "rounds": 2, "trials_per_round": 4}
    job = {"dataset": stored(tmp_path, iris()), **NEIGHBORS, "space": space, "method": method}
    tuned = searched(tmp_path, job, lost={f"trial_{number}" for number in range(4, 8)})["refit"]
    assert isinstance(tuned, TuneResult)
    states = [trial.state for trial in tuned.trials]
    assert states[4:] == ["lost"] * 4
    assert [state == "failed" for state in states[:4]] == [
        trial.params["n_neighbors"] in {500, 600} for trial in tuned.trials[:4]
    ]
    assert set(states[:4]) == {"failed", "completed"}
    completed_scores = [trial.score for trial in tuned.trials if trial.state == "completed"]
    assert tuned.best.score == max(score for score in completed_scores if score is not None)


def test_a_search_without_a_completed_trial_fails_with_the_first_reason(tmp_path: Path) -> None:
    """More neighbours than rows: every trial fails, and so does the search, saying why."""
    space = {"n_neighbors": {"kind": "int", "low": 500, "high": 501}}
    job = {"dataset": stored(tmp_path, iris()), **NEIGHBORS, "space": space, "method": {"kind": "grid"}}
    with pytest.raises(TaskFailure, match="n_neighbors") as failure:
        searched(tmp_path, job)
    assert (failure.value.code, failure.value.details["states"]) == ("no_trial_succeeded", ["failed", "failed"])


def test_a_search_over_what_cannot_be_learnt_fails_at_its_start(tmp_path: Path) -> None:
    """No trial is run for a target that is not there, or for too few rows of a class."""
    for frame, code in ((diabetes().drop(columns="target"), "unknown_column"), (diabetes().head(3), "too_few_rows")):
        with pytest.raises(TaskFailure) as failure:
            searched(tmp_path, {"dataset": stored(tmp_path, frame), **RIDGE})
        assert failure.value.code == code


def search(**changes: Any) -> Search:
    spec = TuneModel.model_validate({"dataset": f"artifact://{uuid7()}/1/data.parquet", **RIDGE, **changes})
    fields = spec.model_dump(exclude={"dataset", "recipe"})
    return Search.model_validate({"spec": fields, "dataset": spec.dataset, "recipe": None})


def completed(number: int, *fold_scores: float, **params: Any) -> Trial:
    mean = sum(fold_scores) / len(fold_scores)
    settings = params or {"alpha": 1.0}
    return Trial(number=number, params=settings, state="completed", score=mean, fold_scores=list(fold_scores))


@pytest.mark.parametrize(
    ("metric", "so_far", "verdict"),
    [
        ("r2", [0.125], "hopeless"),
        ("r2", [0.25], "fair"),
        ("r2", [0.5, 0.125], "hopeless"),
        ("r2", [0.375, 0.375], "fair"),
        ("r2", [0.0, 0.0, 0.0], "fair"),
        ("mae", [0.125], "fair"),
        ("mae", [0.375], "hopeless"),
    ],
)
def test_a_trial_is_hopeless_when_its_mean_so_far_is_worse_than_the_median(
    metric: str, so_far: list[float], verdict: str
) -> None:
    """Medians of the first fold: 0.25, of the first two: 0.375; after the last fold nothing is stopped."""
    trials = [completed(0, 0.125, 0.375, 0.9), completed(1, 0.25, 0.5, 0.9), completed(2, 0.375, 0.625, 0.9)]
    known = search(metric=metric).model_copy(update={"trials": trials})
    assert known.is_hopeless(so_far) is (verdict == "hopeless")
    assert not search(metric=metric, prune=False).model_copy(update={"trials": trials}).is_hopeless(so_far)
    assert not known.model_copy(update={"trials": trials[:2]}).is_hopeless(so_far)


def test_a_hopeless_trial_stops_after_the_fold(tmp_path: Path) -> None:
    """It is pruned with the folds that it was judged on, and the next round learns from that."""
    dataset = stored(tmp_path, diabetes())
    method = {"kind": "random", "rounds": 2, "trials_per_round": 3}
    results = searched(tmp_path, {"dataset": dataset, **RIDGE, "method": method})
    started = results["start"]
    assert isinstance(started, SearchResult)
    run = new_run(tmp_path)
    with run.store.open(started.search.uri) as stream:
        known = Search.model_validate_json(stream.read())
    good = [completed(number, 0.99, 0.99, 0.99) for number in range(3)]
    known = known.model_copy(update={"trials": [*good, Trial(number=3, params={"alpha": 900.0})], "round": 1})
    uri = tasks._stored(known, run).uri
    result = tasks.run_trial(RunTrial(search=uri, number=3), new_run(tmp_path))
    assert (result.state, len(result.fold_scores)) == ("pruned", 1)
    assert result.score == result.fold_scores[0]
    with pytest.raises(TaskFailure, match="no trial 4"):
        tasks.run_trial(RunTrial(search=uri, number=4), new_run(tmp_path))
    with pytest.raises(TaskFailure) as failure:
        tasks.run_trial(RunTrial(search=dataset, number=0), new_run(tmp_path))
    assert failure.value.code == "unreadable_search"


def test_choices_keep_their_types() -> None:
    """1, 1.0 and true are three choices, in what is proposed and in what is learnt from."""
    forest = {"kind": "random_forest"}
    space = {
        "max_features": {"kind": "categorical", "choices": ["sqrt", 1.0, None]},
        "bootstrap": {"kind": "categorical", "choices": [True, False]},
        "n_estimators": {"kind": "int", "low": 1, "high": 2_000, "log": True},
    }
    method = {"kind": "tpe", "rounds": 3, "trials_per_round": 8}
    known = search(estimator=forest, space=space, method=method).with_proposals()
    for _ in range(2):
        known = known.next_round([completed(trial.number, 0.5, **trial.params) for trial in known.proposed()])
    kinds = {name: {type(trial.params[name]) for trial in known.trials} for name in space}
    assert kinds == {"max_features": {str, float, type(None)}, "bootstrap": {bool}, "n_estimators": {int}}
    assert [trial.number for trial in known.trials] == list(range(24))


def test_tpe_draws_where_trials_were_good() -> None:
    """After outcomes that favour small values, the next round's median lies well below that of random draws."""
    method = {"kind": "tpe", "rounds": 2, "trials_per_round": 20}
    known = search(method=method, space={"alpha": {"kind": "float", "low": 0.0, "high": 100.0}}).with_proposals()
    outcomes = [completed(one.number, -float(one.params["alpha"] or 0.0), **one.params) for one in known.proposed()]
    assert known.next_round(outcomes) == known.next_round(outcomes)
    later = sorted(float(one.params["alpha"] or 0.0) for one in known.next_round(outcomes).proposed())
    earlier = sorted(float(one.params["alpha"] or 0.0) for one in outcomes)
    assert later[10] < earlier[10] / 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"round": 5}, "no round 5"),
        ({"trials": [{"number": 3, "params": {"alpha": 1.0}}]}, "not numbered"),
        ({"trials": [{"number": 0, "params": {"evil": 1}}]}, "evil"),
        ({"trials": [{"number": 0, "params": {}, "state": "completed"}]}, "needs a score"),
    ],
)
def test_a_search_file_that_contradicts_itself_is_none(change: dict[str, Any], said: str) -> None:
    """Rounds, numbers, settings and scores of an uploaded file are those that a search could have."""
    assert Search.model_validate(search().model_dump()).round == 0
    with pytest.raises(ValidationError, match=said):
        Search.model_validate({**search().model_dump(), **change})


def test_an_outcome_for_other_settings_than_were_proposed_is_lost() -> None:
    """Whoever uploads a trial's file cannot make its settings win."""
    known = search(method={"kind": "random", "rounds": 1, "trials_per_round": 2}).with_proposals()
    first, second = known.trials
    fair = first.model_copy(update={"state": "completed", "score": 0.5, "fold_scores": [0.5]})
    forged = second.model_copy(update={"params": {"alpha": 1e7}, "state": "completed", "score": 1.0})
    learnt = known.learnt([fair, forged])
    assert [(trial.state, trial.params) for trial in learnt.trials] == [
        ("completed", first.params),
        ("lost", second.params),
    ]
    assert learnt.best() == fair
    with pytest.raises(TaskFailure) as failure:
        known.next_round([fair])
    assert failure.value.code == "search_ended"
