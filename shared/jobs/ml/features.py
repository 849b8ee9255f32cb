"""Roles of columns: how each becomes features, with its options."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from shared.contract.names import ColumnName
from shared.contract.params import Component, Params

MAX_FEATURES = 1_000

CategoryText = Annotated[str, StringConstraints(max_length=255)]
DatePart = Literal["year", "quarter", "month", "day", "day_of_year", "weekday", "hour", "minute", "epoch_days"]
Scale = Literal["standard", "min_max", "robust", "none"]


class NumberFeature(Params):
    """A number or a truth value (1 and 0). An infinite value counts as missing."""

    kind: Literal["number"] = Field(description="Discriminator.")
    impute: Literal["median", "mean", "most_frequent", "constant", "none"] = Field(
        default="median",
        description="Replacement of a missing value. `none` leaves it missing, which trees accept.",
    )
    fill_value: float = Field(default=0.0, description="Value that `constant` uses.")
    missing_indicator: bool = Field(
        default=False, description="Whether to add a feature that is 1 where the value was missing, else 0."
    )
    scale: Scale = Field(
        default="standard",
        description="`standard`: mean 0, deviation 1; `min_max`: 0 to 1; `robust`: median 0, quartiles 1 apart.",
    )


class CategoryFeature(Params):
    """One of a few values: one feature each (one-hot). A value that was not seen in training counts as infrequent."""

    kind: Literal["category"] = Field(description="Discriminator.")
    impute: Literal["own", "most_frequent"] = Field(
        default="own", description="Treat missing values as a separate category, or as the most frequent one."
    )
    max_categories: int = Field(
        default=50, ge=2, le=500, description="Maximum number of features; rarer values share the last one."
    )
    min_count: int = Field(default=1, ge=1, le=1_000_000, description="A value in fewer rows than this is infrequent.")


class OrdinalFeature(Params):
    """One of a few values that have an order: one feature, 0 for the first. Missing or unknown: -1."""

    kind: Literal["ordinal"] = Field(description="Discriminator.")
    order: list[CategoryText] = Field(
        default=[], max_length=500, description="The values from first to last; default: sorted as text."
    )
    scale: Scale = Field(default="none", description="Scaling of the position.")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.order)) < len(self.order):
            raise ValueError("'order' has a value twice; remove one")
        return self


class DateFeature(Params):
    """A date or time: one feature per part, in UTC. Missing values become the part's median."""

    kind: Literal["date"] = Field(description="Discriminator.")
    parts: list[DatePart] = Field(
        default=["year", "month", "day", "weekday"],
        min_length=1,
        max_length=9,
        description="Which parts; `weekday` is 0 on Monday, `epoch_days` counts from 1970-01-01 with fractions.",
    )
    scale: Scale = Field(default="standard", description="Scaling of each part.")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.parts)) < len(self.parts):
            raise ValueError("'parts' has a part twice; remove one")
        return self


class TextFeature(Params):
    """Free text as weights of its words. A missing text is an empty one."""

    kind: Literal["text"] = Field(description="Discriminator.")
    method: Literal["tfidf", "hashing"] = Field(
        default="tfidf", description="`tfidf` learns a vocabulary; `hashing` needs none, so its features have no names."
    )
    max_features: int = Field(default=200, ge=2, le=MAX_FEATURES, description="Size of vocabulary, or of hash table.")
    analyzer: Literal["word", "char_wb"] = Field(default="word", description="Words, or letters within words.")
    ngram_max: int = Field(default=1, ge=1, le=4, description="Longest run of words or letters that counts as one.")
    components: int | None = Field(
        default=None,
        ge=1,
        le=300,
        description="Reduce to this number of features (truncated singular value decomposition); default: keep all.",
    )

    @model_validator(mode="after")
    def _reduces(self) -> Self:
        if self.components is not None and self.components >= self.max_features:
            raise ValueError("'components' must be less than 'max_features'; omit it to keep all features")
        return self


Feature = Annotated[
    NumberFeature | CategoryFeature | OrdinalFeature | DateFeature | TextFeature,
    Field(discriminator="kind"),
    Component("Feature"),
]


class FeatureSpec(Params):
    """Which columns become features, and how. By default it follows from a column's type.

    Numbers and truth values: `number`; dates and times: `date`; strings: `category`.
    """

    columns: dict[ColumnName, Feature] = Field(
        default={},
        max_length=MAX_FEATURES,
        description="Role per column.",
        examples=[{"comment": {"kind": "text", "method": "hashing"}}],
    )
    others: Literal["auto", "drop"] = Field(
        default="auto",
        description="Columns not in `columns`: `auto` gives them a role by their type, `drop` excludes them.",
    )
    drop: list[ColumnName] = Field(
        default=[], max_length=MAX_FEATURES, description="Columns to exclude from the features, such as ids."
    )

    @model_validator(mode="after")
    def _one_wish_a_column(self) -> Self:
        if both := sorted(set(self.columns) & set(self.drop)):
            raise ValueError(f"{both[0]!r} is in 'columns' and in 'drop'; remove it from one of them")
        return self
