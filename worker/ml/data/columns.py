"""The columns that a recipe takes: the role of each, and whether a dataset fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.types as pt
from pydantic import Field

from shared.contract.names import ColumnName
from shared.contract.params import Params
from shared.errors import TaskFailure
from shared.jobs.ml.features import CategoryFeature, DateFeature, Feature, FeatureSpec, NumberFeature
from worker.tables.parquet.columns import unknown_column

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Family = Literal["integer", "float", "boolean", "string", "temporal", "other"]

_FAMILIES: tuple[tuple[Family, Callable[[pa.DataType], bool]], ...] = (
    ("integer", pt.is_integer),
    ("float", pt.is_floating),
    ("float", pt.is_decimal),
    ("boolean", pt.is_boolean),
    ("string", pt.is_string),
    ("string", pt.is_large_string),
    ("temporal", pt.is_date),
    ("temporal", pt.is_timestamp),
)
_NUMERIC: frozenset[Family] = frozenset({"integer", "float", "boolean"})
_TAKEN_BY: dict[str, frozenset[Family]] = {
    "number": _NUMERIC,
    "category": frozenset({"string", "integer", "boolean"}),
    "ordinal": frozenset({"string", "integer", "boolean"}),
    "date": frozenset({"temporal"}),
    "text": frozenset({"string"}),
}
_AUTOMATIC: dict[Family, Feature] = {
    "integer": NumberFeature(kind="number"),
    "float": NumberFeature(kind="number"),
    "boolean": NumberFeature(kind="number"),
    "string": CategoryFeature(kind="category"),
    "temporal": DateFeature(kind="date"),
}


class InputColumn(Params):
    """A column from which features are made."""

    name: ColumnName = Field(description="Its name.")
    family: Family = Field(description="Type family of its values in training.")
    feature: Feature = Field(description="Its role.")

    def takes(self, family: Family) -> bool:
        """Return whether a column of `family` can be used for this one."""
        return family in _NUMERIC if self.feature.kind == "number" else family == self.family


def family_of(data_type: pa.DataType) -> Family:
    """Return the type family of an Arrow type."""
    if pt.is_dictionary(data_type):
        return family_of(data_type.value_type)
    return next((family for family, fits in _FAMILIES if fits(data_type)), "other")


def input_columns(schema: pa.Schema, spec: FeatureSpec, target: str | None) -> list[InputColumn]:
    """Return the columns of `schema` from which `spec` makes features, in order, each with its role.

    Raises `TaskFailure`: ``unknown_column`` for one that does not exist, ``wrong_column_type`` for one whose role does
    not take its type, ``no_features`` if none is left.
    """
    names = list(schema.names)
    for name in (*spec.columns, *spec.drop, *([target] if target is not None else [])):
        if name not in names:
            raise unknown_column(name, dict.fromkeys(names, ""), "features" if name != target else "target")
    chosen = [_input(field, spec) for field in schema if field.name != target and field.name not in spec.drop]
    columns = [column for column in chosen if column is not None]
    if not columns:
        raise TaskFailure(
            "no_features", "No column is left to learn from.", remedy="Name columns in 'features.columns'."
        )
    return columns


def _input(field: pa.Field, spec: FeatureSpec) -> InputColumn | None:
    family, wanted = family_of(field.type), spec.columns.get(field.name)
    if wanted is None:
        automatic = _AUTOMATIC.get(family) if spec.others == "auto" else None
        return InputColumn(name=field.name, family=family, feature=automatic) if automatic is not None else None
    if family not in _TAKEN_BY[wanted.kind]:
        raise TaskFailure(
            "wrong_column_type",
            f"features.columns: {field.name!r} is {field.type}; the role {wanted.kind!r} does not take that type.",
            remedy=f"It takes {' and '.join(sorted(_TAKEN_BY[wanted.kind]))}; cast it with etl.transform_data first.",
            column=field.name,
        )
    return InputColumn(name=field.name, family=family, feature=wanted)


def need_fit(schema: pa.Schema, inputs: Sequence[InputColumn]) -> None:
    """Raise `TaskFailure` (``columns_do_not_fit``) naming the missing and the wrongly typed columns, if any."""
    there = {field.name: field.type for field in schema}
    missing = [column.name for column in inputs if column.name not in there]
    wrong = [
        f"{column.name!r} is {there[column.name]}, but was {column.family} in training"
        for column in inputs
        if column.name in there and not column.takes(family_of(there[column.name]))
    ]
    if missing or wrong:
        said = [f"missing: {', '.join(map(repr, missing[:20]))}"] if missing else []
        said += [f"wrongly typed: {'; '.join(wrong[:20])}"] if wrong else []
        raise TaskFailure(
            "columns_do_not_fit",
            f"The columns of the dataset do not fit those of the training; {'; '.join(said)}.",
            remedy="Rename or cast them with etl.transform_data.",
            missing=missing[:100],
            wrong=wrong[:100],
        )
