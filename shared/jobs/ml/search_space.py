"""The search space of hyperparameters: typed ranges, checked against the estimator when the job is submitted."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from shared.contract.params import Component, Params
from shared.jobs.ml.estimators import AnyEstimator
from shared.jobs.ml.results import Setting

MAX_TRIALS = 200
_MOST_CHOICES = 50


class IntRange(Params):
    """A range of integers."""

    kind: Literal["int"] = Field(description="Discriminator.")
    low: int = Field(ge=-(2**53), le=2**53, description="Least value.")
    high: int = Field(ge=-(2**53), le=2**53, description="Greatest value.")
    log: bool = Field(default=False, description="Whether to draw evenly by magnitude.")
    step: int = Field(default=1, ge=1, le=2**53, description="Distance between values, counted from `low`.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _need_range(self.low, self.high, log=self.log)
        if self.log and self.step != 1:
            raise ValueError("'step' has no meaning with 'log'; omit one of them")
        return self

    def values(self) -> range:
        return range(self.low, self.high + 1, self.step)


class FloatRange(Params):
    """A range of numbers."""

    kind: Literal["float"] = Field(description="Discriminator.")
    low: float = Field(description="Least value.")
    high: float = Field(description="Greatest value.")
    log: bool = Field(default=False, description="Whether to draw evenly by magnitude.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _need_range(self.low, self.high, log=self.log)
        return self


class Choices(Params):
    """A list of values."""

    kind: Literal["categorical"] = Field(description="Discriminator.")
    choices: list[Setting] = Field(min_length=1, max_length=_MOST_CHOICES, description="The values.")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len({(type(value), value) for value in self.choices}) < len(self.choices):
            raise ValueError("'choices' has a value twice; remove one")
        return self


Dimension = Annotated[IntRange | FloatRange | Choices, Field(discriminator="kind"), Component("Dimension")]
Space = Annotated[
    dict[str, Dimension],
    Field(
        min_length=1,
        max_length=20,
        examples=[
            {
                "max_depth": {"kind": "int", "low": 2, "high": 12},
                "max_features": {"kind": "categorical", "choices": ["sqrt", 0.5, 1.0]},
            }
        ],
    ),
]


def with_settings(estimator: AnyEstimator, settings: dict[str, Setting]) -> AnyEstimator:
    """Return `estimator` with other hyperparameters. Raises pydantic's `ValidationError` if it does not take one."""
    return type(estimator).model_validate({**estimator.model_dump(), **settings})


def need_space_fits(space: dict[str, IntRange | FloatRange | Choices], estimator: AnyEstimator) -> None:
    """Raise `ValueError` naming the first hyperparameter that `estimator` does not have, or value it does not take."""
    known = sorted(set(type(estimator).model_fields) - {"kind"})
    for name, dimension in space.items():
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none to search"
            raise ValueError(f"space: {estimator.kind!r} has no hyperparameter {name!r}; {has}")
        for value in dimension.choices if isinstance(dimension, Choices) else (dimension.low, dimension.high):
            try:
                with_settings(estimator, {name: value})
            except ValidationError as invalid:
                told = invalid.errors(include_url=False, include_input=False)[0]["msg"]
                raise ValueError(f"space.{name}: {estimator.kind!r} does not take {value!r}: {told}") from None


def grid_size(space: dict[str, IntRange | FloatRange | Choices]) -> int:
    """Return the number of points of a grid over `space`. Raises `ValueError` if it is infinite."""
    sizes = []
    for name, dimension in space.items():
        if dimension.kind == "float":
            raise ValueError(f"space.{name}: a grid needs 'categorical' or 'int', not a range of numbers")
        sizes.append(len(dimension.choices) if isinstance(dimension, Choices) else len(dimension.values()))
    return math.prod(sizes)


def _need_range(low: float, high: float, *, log: bool) -> None:
    if low > high:
        raise ValueError(f"'low' ({low}) is above 'high' ({high})")
    if log and low <= 0:
        raise ValueError("'log' needs a 'low' above 0")
