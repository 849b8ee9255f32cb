"""The tasks of the ML family. They call pure modules."""

from __future__ import annotations

import shutil
import time

from shared.contract.artifacts import RecipeFile
from shared.jobs.ml.kinds import BuildFeatures, EvaluateModel, PredictBatch, TrainModel
from shared.jobs.ml.results import EvaluationResult, FeatureResult, PredictionResult, TrainResult
from worker.ml.bounds import bounded_threads, need_memory
from worker.ml.data.datasets import dataset_copy
from worker.ml.data.rows import class_name, read_rows
from worker.ml.features.building import Recipe, learn_recipe, write_features
from worker.ml.features.recipe import RECIPE_VERSION
from worker.ml.model.model_file import MODEL_MEDIA_TYPE, load_model, load_recipe, save_recipe
from worker.ml.publishing import published_dataset, published_model, referred_dataset, referred_model, reporting
from worker.ml.training.prediction import predict
from worker.ml.training.scoring import evaluation, predicted
from worker.ml.training.sources import opened
from worker.ml.training.training import Training
from worker.ml.tuning_tasks import hold_search, propose_trials, refit_best, run_trial, start_search
from worker.runtime.task import Run, runs
from worker.settings import worker_settings
from worker.tables.parquet.staging import schema_of

__all__ = [
    "build_features",
    "evaluate_model",
    "hold_search",
    "predict_batch",
    "propose_trials",
    "refit_best",
    "run_trial",
    "start_search",
    "train_model",
]


@runs(BuildFeatures)
def build_features(job: BuildFeatures, run: Run) -> FeatureResult:
    """Fit a recipe or use a given one; store ``features.parquet`` and ``recipe.skops``. A rerun repeats it."""
    settings, output, file = worker_settings(), run.scratch / "features.out", run.scratch / "recipe.out"
    limit_bytes = settings.memory_limit_bytes
    with bounded_threads(settings.threads), dataset_copy(run.store, job.dataset, run.scratch) as dataset:
        if job.recipe is None:
            recipe = learn_recipe(dataset, job.features, job.target, limit_bytes=limit_bytes)
            save_recipe(file, recipe.about, recipe.transformer)
        else:
            with run.store.local_copy(job.recipe, run.scratch) as given:
                recipe = Recipe(*load_recipe(given, limit_bytes=limit_bytes))
                shutil.copyfile(given, file)
        feature_count = write_features(dataset, recipe, source=job.dataset, output=output, on_progress=run.progress)
        names = schema_of(dataset).names
    roles = {column.name: column.feature.kind for column in recipe.about.inputs}
    stored = run.publish(file, name="recipe.skops", role="recipe", media_type=MODEL_MEDIA_TYPE)
    return FeatureResult(
        dataset=published_dataset(run, output, "features.parquet"),
        recipe=RecipeFile(**stored.model_dump()),
        recipe_version=RECIPE_VERSION,
        feature_count=feature_count,
        roles=roles,
        dropped=[name for name in names if name not in roles and name != recipe.about.target],
    )


@runs(TrainModel)
def train_model(job: TrainModel, run: Run) -> TrainResult:
    """Store ``model.skops``, its card, and ``held_out.parquet``. A rerun trains the same model again, by its seed."""
    settings, started = worker_settings(), time.perf_counter()
    limit_bytes = settings.memory_limit_bytes
    with (
        bounded_threads(settings.threads),
        opened(run.store, run.scratch, job, dataset=job.dataset, recipe=job.recipe, limit_bytes=limit_bytes) as source,
    ):
        target = job.target if job.task == "classification" else None
        need_memory(source.path, source.inputs, limit_bytes=limit_bytes, estimator=job.estimator, target=target)
        rows = read_rows(source.path, source.inputs, job.target, job.task)
        load_s = time.perf_counter() - started
        trained = Training(rows, source.inputs, job, reporting(run), load_s, source.unused).run()
        for note in (*(finding.message for finding in trained.summary.findings), *trained.summary.notes):
            run.log_line("warning", note)
        return TrainResult(**published_model(run, trained, source, job))


@runs(EvaluateModel)
def evaluate_model(job: EvaluateModel, run: Run) -> EvaluationResult:
    """Predict a dataset that has its true target, and compare. Nothing is stored."""
    settings, store = worker_settings(), run.store
    with (
        bounded_threads(settings.threads),
        store.local_copy(job.model, run.scratch) as file,
        dataset_copy(store, job.dataset, run.scratch) as dataset,
    ):
        about, fitted = load_model(file, limit_bytes=settings.memory_limit_bytes)
        target = about.target if about.task == "classification" else None
        need_memory(dataset, about.inputs, limit_bytes=settings.memory_limit_bytes, target=target)
        rows = read_rows(dataset, about.inputs, about.target, about.task, labels=about.labels)
        model, baseline = (predicted(one, rows.frame, rows.labels) for one in (fitted.pipeline, fitted.baseline))
        return EvaluationResult(
            model=referred_model(job.model, file),
            dataset=referred_dataset(job.dataset, dataset),
            evaluation=evaluation(rows.target, model, baseline, rows.labels),
            dropped_row_count=rows.dropped_count,
        )


@runs(PredictBatch)
def predict_batch(job: PredictBatch, run: Run) -> PredictionResult:
    """Store ``predictions.parquet``, written batch by batch. A rerun repeats it."""
    settings, store, started = worker_settings(), run.store, time.perf_counter()
    output = run.scratch / "predictions.out"
    with (
        bounded_threads(settings.threads),
        store.local_copy(job.model, run.scratch) as file,
        dataset_copy(store, job.dataset, run.scratch) as dataset,
    ):
        about, fitted = load_model(file, limit_bytes=settings.memory_limit_bytes)
        found = predict(about, fitted, dataset, job, output=output, on_progress=run.progress)
    return PredictionResult(
        dataset=published_dataset(run, output, "predictions.parquet"),
        class_counts=None
        if about.labels is None
        else {name: found.per_class[name] for name in map(class_name, about.labels)},
        probabilities=found.probabilities,
        mean=found.mean,
        minimum=found.minimum,
        maximum=found.maximum,
        rows_per_s=found.row_count / (time.perf_counter() - started),
    )
