"""Model and recipe files: skops files that hold exactly what their own description states.

skops constructs only trusted types, but scikit-learn's own classes can be configured to read files (a vectorizer with
``input="filename"``). So a loaded pipeline is compared, parameter by parameter, with the pipeline built from its
description: a file that was altered or made by other means is refused.
"""

from __future__ import annotations

import math
import zipfile
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import skops.io
from pydantic import Field, ValidationError
from sklearn.compose import ColumnTransformer
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from shared.contract.names import ColumnName
from shared.contract.params import Params
from shared.errors import TaskFailure
from shared.jobs.ml.estimators import Estimator, LearningTask
from shared.jobs.ml.kinds import Seed
from shared.jobs.ml.results import Label
from worker.ml.data.columns import InputColumn
from worker.ml.features.recipe import RecipeAbout, make_recipe
from worker.ml.model.estimators import make_baseline
from worker.ml.model.pipeline import Fitted, unfitted
from worker.ml.model.trusted import TRUSTED_TYPES, links_are_sound, shapes_are_sound

if TYPE_CHECKING:
    from pathlib import Path

MODEL_MEDIA_TYPE = "application/zip"
_MOST_ENTRIES = 200_000
_MOST_DESCRIPTION_BYTES = 4 * 1024**2


class ModelAbout(Params):
    """The description in a model file."""

    format: Literal["celeriac-model-1"] = Field(default="celeriac-model-1", description="File format and version.")
    task: LearningTask = Field(description="Learning task.")
    target: ColumnName = Field(description="Target column.")
    labels: list[Label] | None = Field(description="Classes, in the order of the probabilities.")
    inputs: list[InputColumn] = Field(description="Columns from which features are made.")
    estimator: Estimator = Field(description="Estimator with its hyperparameters.")
    seed: Seed = Field(description="Seed.")
    feature_count: int = Field(ge=0, description="Number of features.")


AboutT = TypeVar("AboutT", ModelAbout, RecipeAbout)


def save_model(path: Path, about: ModelAbout, fitted: Fitted) -> None:
    """Write a model file."""
    _save(path, {"about": about.model_dump_json(), "pipeline": fitted.pipeline, "baseline": fitted.baseline})


def save_recipe(path: Path, about: RecipeAbout, recipe: ColumnTransformer) -> None:
    """Write a recipe file."""
    _save(path, {"about": about.model_dump_json(), "recipe": recipe})


def load_model(path: Path, *, limit_bytes: int) -> tuple[ModelAbout, Fitted]:
    """Return the description in a model file, and its pipeline.

    Raises `TaskFailure`: ``unreadable_model`` for another file, ``untrusted_model`` for one that holds types or
    parameters that are not allowed, ``model_too_large`` beyond `limit_bytes` of memory.
    """
    parts = _load(path, limit_bytes)
    about = _about(ModelAbout, parts)
    pipeline: Any = parts.get("pipeline")
    baseline: Any = parts.get("baseline")
    expected = unfitted(about.inputs, about.estimator, about.task, seed=about.seed)
    if not (same(pipeline, expected) and same(baseline, make_baseline(about.task))):
        raise _altered()
    try:
        sound = _fitted_as_said(pipeline["recipe"]) and _sound(pipeline["estimator"], about.feature_count)
    except (AttributeError, LookupError, TypeError, ValueError):  # a fitted part is missing or has another type
        sound = False
    if not sound:
        raise _altered()
    return about, Fitted(pipeline, baseline, about.feature_count)


def load_recipe(path: Path, *, limit_bytes: int) -> tuple[RecipeAbout, ColumnTransformer]:
    """Return the description in a recipe file, and the fitted transformer. Raises the same as `load_model`."""
    parts = _load(path, limit_bytes)
    about = _about(RecipeAbout, parts)
    recipe = parts.get("recipe")
    if not (same(recipe, make_recipe(about.inputs, seed=about.seed)) and _fitted_as_said(recipe)):
        raise _altered()
    return about, recipe


def same(one: Any, other: Any) -> bool:
    """Return whether two estimators, or two of their parameters, have the same types and equal values throughout."""
    if type(one) is not type(other):
        return False
    if hasattr(one, "get_params"):
        return same(one.get_params(deep=False), other.get_params(deep=False))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)


def _save(path: Path, parts: dict[str, Any]) -> None:
    skops.io.dump(parts, path, compression=zipfile.ZIP_DEFLATED, compresslevel=1)


def _load(path: Path, limit_bytes: int) -> dict[str, Any]:
    _need_bounded(path, limit_bytes)
    try:
        _need_trusted(skops.io.get_untrusted_types(file=path))
        parts = skops.io.load(path, trusted=sorted(TRUSTED_TYPES))
    except (TaskFailure, MemoryError):
        raise
    except Exception as broken:  # the file may hold anything; if skops fails on it, it is not a model
        raise _unreadable(type(broken).__name__) from broken
    if not isinstance(parts, dict):
        raise _unreadable("it has no description")
    return parts


def _need_trusted(found: list[str]) -> None:
    if strange := sorted(set(found) - TRUSTED_TYPES.keys()):
        raise TaskFailure(
            "untrusted_model",
            f"The file holds types that are not on the reviewed list: {', '.join(strange[:20])}.",
            remedy="Use a model that ml.train_model or ml.tune_model made.",
            types=strange[:100],
        )


def _need_bounded(path: Path, limit_bytes: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as broken:
        raise _unreadable(f"it is not a ZIP archive: {broken}") from broken
    needed = sum(entry.file_size for entry in entries)
    if needed > limit_bytes or len(entries) > _MOST_ENTRIES:
        raise TaskFailure(
            "model_too_large",
            f"The file has {len(entries)} parts of {needed} bytes in total; the task may use {limit_bytes} bytes.",
            remedy="Train with fewer or smaller trees, or raise CELERIAC_MEMORY_LIMIT_BYTES on the workers.",
            needed_bytes=needed,
            limit_bytes=limit_bytes,
        )


def _about(model: type[AboutT], parts: dict[str, Any]) -> AboutT:
    text = parts.get("about")
    if not isinstance(text, str) or len(text) > _MOST_DESCRIPTION_BYTES:
        raise _unreadable("it has no description")
    try:
        return model.model_validate_json(text)
    except ValidationError as invalid:
        raise _unreadable(f"its description has {invalid.error_count()} errors") from invalid


def _fitted_as_said(recipe: ColumnTransformer) -> bool:
    """Return whether the fitted parts of a recipe, which are copies, are those of its parameters."""
    fitted = [part for part in getattr(recipe, "transformers_", []) if part[0] != "remainder"]
    return same(fitted, recipe.transformers)


def _sound(estimator: Any, feature_count: int) -> bool:
    trees = getattr(estimator, "estimators_", [])
    return (
        all(isinstance(tree, DecisionTreeClassifier | DecisionTreeRegressor) for tree in trees)
        and getattr(estimator, "n_features_in_", feature_count) == feature_count
        and shapes_are_sound(estimator)
        and links_are_sound(estimator)
    )


def _unreadable(why: str) -> TaskFailure:
    return TaskFailure(
        "unreadable_model",
        f"The file is not a model or recipe of this service: {why[:200]}.",
        remedy="Use the uri of a model of ml.train_model or ml.tune_model, or of a recipe of ml.build_features.",
    )


def _altered() -> TaskFailure:
    return TaskFailure(
        "untrusted_model",
        "The content of the file does not match its own description.",
        remedy="Use an unchanged file of ml.train_model, ml.tune_model or ml.build_features.",
    )
