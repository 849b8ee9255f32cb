"""The recipe: a transformer of prepared columns, made only of scikit-learn's own classes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, RobustScaler, StandardScaler

from shared.contract.names import ColumnName
from shared.contract.params import Params
from shared.errors import TaskFailure
from shared.jobs.ml.features import (
    MAX_FEATURES,
    CategoryFeature,
    DateFeature,
    Feature,
    OrdinalFeature,
    Scale,
    TextFeature,
)
from shared.jobs.ml.kinds import Seed
from worker.ml.data.columns import InputColumn
from worker.ml.data.frames import prepared_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import pandas as pd

RECIPE_VERSION = 1
_LONGEST_NAME = 90

_SCALERS = {"standard": StandardScaler, "min_max": MinMaxScaler, "robust": RobustScaler}


class RecipeAbout(Params):
    """The description in a recipe file."""

    format: Literal["celeriac-recipe-1"] = Field(default="celeriac-recipe-1", description="Format and its version.")
    inputs: list[InputColumn] = Field(description="Columns that become features.")
    target: ColumnName | None = Field(description="Column that never becomes a feature.")
    seed: Seed = Field(default=0, description="Seed.")


def make_recipe(inputs: Sequence[InputColumn], *, seed: int) -> ColumnTransformer:
    """Return the unfitted transformer of `inputs`: prepared frame to dense float64 ``(n_rows, n_features)``.

    Columns with the same options share one transformer, which makes a thousand columns fast. Each text column has a
    separate one. `seed` is the seed of the decomposition of texts.
    """
    groups: list[tuple[Feature, list[str]]] = []
    for column in inputs:
        alike = [names for feature, names in groups if feature == column.feature and feature.kind != "text"]
        if alike:
            alike[0].extend(prepared_names(column))
        else:
            groups.append((column.feature, prepared_names(column)))
    parts = [
        (f"{feature.kind}_{index}", _steps(feature, len(names), seed), names[0] if feature.kind == "text" else names)
        for index, (feature, names) in enumerate(groups)
    ]
    return ColumnTransformer(parts, sparse_threshold=0.0)


def fit_recipe(recipe: ColumnTransformer, frame: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Fit `recipe` on `frame` and return its features. Raises `TaskFailure`: ``too_many_features``, ``fit_failed``."""
    try:
        recipe.fit(frame)
    except ValueError as refused:
        raise fit_failed(refused) from refused
    _need_few_features(max(where.stop for where in recipe.output_indices_.values()))
    return transformed(recipe, frame)


def fit_failed(refused: ValueError) -> TaskFailure:
    """Return the failure (``fit_failed``) for rows that scikit-learn refuses to learn from."""
    return TaskFailure(
        "fit_failed",
        f"scikit-learn refused the training rows: {str(refused).partition(chr(10))[0][:500]}",
        remedy="Set 'impute' if numbers are missing; check that texts have words and that each class has rows.",
    )


def feature_names(recipe: ColumnTransformer, *, taken: Sequence[str] = ()) -> list[str]:
    """Return the names of a fitted recipe's features, at most about 100 characters each.

    They differ by more than case from each other and from the names in `taken`, as SQL requires.
    """
    names: list[str] = []
    for part, steps, columns in recipe.transformers_:
        where = recipe.output_indices_[part]
        raw = (
            [f"{columns}: {name}" for name in _text_names(steps, where.stop - where.start)]
            if isinstance(columns, str)
            else [str(name) for name in steps.get_feature_names_out(columns)]
        )
        names.extend(name[:_LONGEST_NAME] for name in raw)
    counts = Counter(name.casefold() for name in (*names, *taken))
    return [f"{name}#{index}" if counts[name.casefold()] > 1 else name for index, name in enumerate(names)]


def _text_names(steps: Pipeline, count: int) -> list[str]:
    if len(steps) == 1 and isinstance(steps[0], TfidfVectorizer):
        return [str(term) for term in steps[0].get_feature_names_out()]
    return [f"{'hash' if len(steps) == 1 else 'component'} {index}" for index in range(count)]


def transformed(recipe: ColumnTransformer, frame: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the features of `frame`, dense float64 ``(n_rows, n_features)``."""
    return np.ascontiguousarray(recipe.transform(frame), dtype=np.float64)


def _need_few_features(count: int) -> None:
    """Raise `TaskFailure` (``too_many_features``) beyond 1,000 features."""
    if count > MAX_FEATURES:
        raise TaskFailure(
            "too_many_features",
            f"The columns give {count} features; the maximum is {MAX_FEATURES}.",
            remedy="Drop columns, or lower 'max_categories', 'max_features' or 'components'.",
            feature_count=count,
        )


def _steps(feature: Feature, column_count: int, seed: int) -> Pipeline:
    if isinstance(feature, TextFeature):
        return Pipeline(_text(feature, seed))
    if isinstance(feature, CategoryFeature):
        return Pipeline(_category(feature))
    if isinstance(feature, OrdinalFeature):
        return Pipeline([("encode", _ordinal(feature, column_count)), *_scaler(feature.scale)])
    if isinstance(feature, DateFeature):
        return Pipeline([("impute", _imputer("median")), *_scaler(feature.scale)])
    if feature.impute == "none":
        return Pipeline(_scaler(feature.scale) or [("keep", "passthrough")])
    fill = {"fill_value": feature.fill_value} if feature.impute == "constant" else {}
    imputer = _imputer(feature.impute, add_indicator=feature.missing_indicator, **fill)
    return Pipeline([("impute", imputer), *_scaler(feature.scale)])


def _imputer(strategy: str, **options: Any) -> SimpleImputer:
    return SimpleImputer(strategy=strategy, keep_empty_features=True, **options)


def _scaler(scale: Scale) -> list[tuple[str, Any]]:
    return [] if scale == "none" else [("scale", _SCALERS[scale]())]


def _category(feature: CategoryFeature) -> list[tuple[str, Any]]:
    filled = {"strategy": "most_frequent"} if feature.impute == "most_frequent" else {"strategy": "constant"}
    fill = {"fill_value": "(missing)"} if feature.impute == "own" else {}
    encoder = OneHotEncoder(
        max_categories=feature.max_categories,
        min_frequency=feature.min_count,
        handle_unknown="infrequent_if_exist",
        sparse_output=False,
    )
    imputer = SimpleImputer(missing_values=None, keep_empty_features=True, **filled, **fill)
    return [("impute", imputer), ("encode", encoder)]


def _ordinal(feature: OrdinalFeature, column_count: int) -> OrdinalEncoder:
    return OrdinalEncoder(
        categories=[list(feature.order)] * column_count if feature.order else "auto",
        handle_unknown="use_encoded_value",
        unknown_value=-1,
        encoded_missing_value=-1,
    )


def _text(feature: TextFeature, seed: int) -> list[tuple[str, Any]]:
    options = {"analyzer": feature.analyzer, "ngram_range": (1, feature.ngram_max)}
    vectorizer = (
        TfidfVectorizer(max_features=feature.max_features, **options)
        if feature.method == "tfidf"
        else HashingVectorizer(n_features=feature.max_features, **options)
    )
    reduced = [("reduce", TruncatedSVD(feature.components, random_state=seed))] if feature.components else []
    return [("weigh", vectorizer), *reduced]
