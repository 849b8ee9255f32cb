"""The tasks of a search for hyperparameters. They pass its state on in the search's file."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from shared.contract.artifacts import SearchFile, TrialFile
from shared.errors import TaskFailure
from shared.jobs.ml.kinds import LearningSpec, TrainSpec
from shared.jobs.ml.results import SearchResult, TrialResult, TuneResult
from shared.jobs.ml.search_space import with_settings
from shared.jobs.ml.tuning import HoldSearch, ProposeTrials, RefitBest, RunTrial, SearchSpec, StartSearch
from worker.ml.bounds import bounded_threads, need_memory
from worker.ml.data.rows import Rows, read_rows
from worker.ml.data.splits import held_out, trial_folds
from worker.ml.publishing import JSON_MEDIA_TYPE, published_json, published_model, referred, reporting
from worker.ml.search.search import Search, Trial
from worker.ml.search.trial import run_trial as outcome_of
from worker.ml.training.sources import Source, opened
from worker.ml.training.training import Training
from worker.runtime.task import Run, runs
from worker.settings import worker_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shared.jobs.ml.estimators import AnyEstimator

ModelT = TypeVar("ModelT", Search, Trial)

_MOST_BYTES = 8 * 1024**2  # of a search or trial file


@runs(StartSearch)
def start_search(job: StartSearch, run: Run) -> SearchResult:
    """Read the rows once, so that unusable rows fail here and not in every trial, and store ``search.json``."""
    spec = SearchSpec.model_validate(job.model_dump(exclude={"dataset", "recipe"}))
    search = Search(spec=spec, dataset=job.dataset, recipe=job.recipe).with_proposals()
    with _learning(search, run, spec.estimator) as (_, rows):
        train, _ = held_out(rows, spec.hold_out, seed=spec.seed)
        trial_folds(rows.take(train), spec)
    return _searched(search, _stored(search, run))


@runs(HoldSearch)
def hold_search(job: HoldSearch, run: Run) -> SearchResult:
    """Return the reference of the search again. Nothing is stored."""
    search = _read(run, job.search, Search)
    with run.store.local_copy(job.search, run.scratch) as file:
        return _searched(search, SearchFile(**referred(job.search, file, "search", JSON_MEDIA_TYPE)))


@runs(RunTrial)
def run_trial(job: RunTrial, run: Run) -> TrialResult:
    """Store ``trial.json``. A rerun runs the same trial again. Duration: one fit per fold."""
    started, search = time.perf_counter(), _read(run, job.search, Search)
    trial = search.trial(job.number)
    with _learning(search, run, with_settings(search.spec.estimator, trial.params)) as (source, rows):
        outcome = outcome_of(search, trial, rows, source.inputs, reporting(run))
    if outcome.state == "failed":
        run.log_line("warning", f"the trial failed: {outcome.error}")
    file = published_json(run, outcome.model_dump(mode="json"), "trial.json", "trial")
    return TrialResult(
        trial=TrialFile(**file.model_dump()),
        number=outcome.number,
        state=outcome.state,
        params=outcome.params,
        score=outcome.score,
        fold_scores=outcome.fold_scores,
        error=outcome.error,
        fit_s=time.perf_counter() - started,
    )


@runs(ProposeTrials)
def propose_trials(job: ProposeTrials, run: Run) -> SearchResult:
    """Store ``search.json`` with the outcomes of the round and the next trials. A rerun proposes the same."""
    search = _read(run, job.search, Search).next_round(_outcomes(job.trials, run))
    return _searched(search, _stored(search, run))


@runs(RefitBest)
def refit_best(job: RefitBest, run: Run) -> TuneResult:
    """Store ``model.skops``, its card, ``held_out.parquet`` and ``search.json``. A rerun fits the same model."""
    started, search = time.perf_counter(), _read(run, job.search, Search).learnt(_outcomes(job.trials, run))
    best = search.best()
    if best is None:
        raise _no_trial_succeeded(search)
    spec, estimator = search.spec, with_settings(search.spec.estimator, best.params)
    learning = {name: getattr(spec, name) for name in LearningSpec.model_fields}
    train = TrainSpec.model_validate({**learning, "estimator": estimator, "validation": spec.hold_out})
    with _learning(search, run, estimator) as (source, rows):
        load_s = time.perf_counter() - started
        trained = Training(rows, source.inputs, train, reporting(run), load_s, source.unused).run()
        return TuneResult(
            **published_model(run, trained, source, train),
            metric=spec.searched_metric,
            best=best.summary(),
            trials=[trial.summary() for trial in search.trials],
            search=_stored(search, run),
        )


@contextmanager
def _learning(search: Search, run: Run, estimator: AnyEstimator) -> Iterator[tuple[Source, Rows]]:
    settings, spec = worker_settings(), search.spec
    limit_bytes, dataset, recipe = settings.memory_limit_bytes, search.dataset, search.recipe
    with (
        bounded_threads(settings.threads),
        opened(run.store, run.scratch, spec, dataset=dataset, recipe=recipe, limit_bytes=limit_bytes) as source,
    ):
        target = spec.target if spec.task == "classification" else None
        need_memory(source.path, source.inputs, limit_bytes=limit_bytes, estimator=estimator, target=target)
        yield source, read_rows(source.path, source.inputs, spec.target, spec.task)


def _read(run: Run, uri: str, model: type[ModelT]) -> ModelT:
    """Return the content of a stored JSON file. Raises `TaskFailure` (``unreadable_search``) if it is invalid."""
    with run.store.open(uri) as stream:
        content = stream.read(_MOST_BYTES + 1)
    try:
        return model.model_validate_json(content[:_MOST_BYTES])
    except ValidationError as invalid:
        raise TaskFailure(
            "unreadable_search",
            f"{uri} is not a {model.__name__.lower()} file of this service ({invalid.error_count()} errors).",
            remedy="Submit ml.tune_model, which creates these files and passes them on.",
        ) from None


def _outcomes(trials: Sequence[str], run: Run) -> list[Trial]:
    return [_read(run, uri, Trial) for uri in trials]


def _stored(search: Search, run: Run) -> SearchFile:
    file = published_json(run, search.model_dump(mode="json"), "search.json", "search")
    return SearchFile(**file.model_dump())


def _searched(search: Search, file: SearchFile) -> SearchResult:
    best = search.best()
    return SearchResult(
        search=file,
        round=search.round,
        proposed=[trial.summary() for trial in search.proposed()],
        best_score=None if best is None else best.score,
    )


def _no_trial_succeeded(search: Search) -> TaskFailure:
    errors = [trial.error for trial in search.trials if trial.error is not None]
    return TaskFailure(
        "no_trial_succeeded",
        f"None of the {len(search.trials)} trials was completed. "
        + (f"The first failure: {errors[0]}" if errors else ""),
        remedy="Read the errors of the steps; test the estimator with ml.train_model.",
        states=[trial.state for trial in search.trials],
    )
