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
from worker.tables.parquet.staging import empty_columns, schema_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from shared.jobs.ml.features import DatePart

Family = Literal["integer", "float", "boolean", "string", "temporal", "time", "duration", "other"]

_FAMILIES: tuple[tuple[Family, Callable[[pa.DataType], bool]], ...] = (
    ("integer", pt.is_integer),
    ("float", pt.is_floating),
    ("float", pt.is_decimal),
    ("boolean", pt.is_boolean),
    ("string", pt.is_string),
    ("string", pt.is_large_string),
    ("temporal", pt.is_date),
    ("temporal", pt.is_timestamp),
    ("time", pt.is_time),
    ("duration", pt.is_duration),
)
_NUMERIC: frozenset[Family] = frozenset({"integer", "float", "boolean"})
_TAKEN_BY: dict[str, frozenset[Family]] = {
    "number": _NUMERIC | {"duration"},
    "category": frozenset({"string", "integer", "boolean"}),
    "ordinal": frozenset({"string", "integer", "boolean"}),
    "date": frozenset({"temporal", "time"}),
    "text": frozenset({"string"}),
}
_TYPELESS: dict[str, Family] = {
    "number": "float", "category": "string", "ordinal": "string", "date": "temporal", "text": "string",
}  # fmt: skip
"""The family of a column without any value, which fits every role."""
_ALSO_TAKEN: dict[Family, frozenset[Family]] = {
    "integer": frozenset({"string", "float"}),  # codes with one letter, or whole numbers where some are missing
    "string": frozenset({"integer"}),  # codes that happen to be all digits
}
"""What a column of codes may be in other rows: the file's reader chose the type by the values of those rows."""
_TIME_PARTS: frozenset[DatePart] = frozenset({"hour", "minute"})
_AUTOMATIC: dict[Family, Feature] = {
    "integer": NumberFeature(kind="number"),
    "float": NumberFeature(kind="number"),
    "boolean": NumberFeature(kind="number"),
    "string": CategoryFeature(kind="category"),
    "temporal": DateFeature(kind="date"),
    "time": DateFeature(kind="date", parts=["hour", "minute"]),
    "duration": NumberFeature(kind="number"),
}
_OF_TIMESTAMPS = DateFeature(kind="date", parts=["year", "month", "day", "weekday", "hour"])


class InputColumn(Params):
    """A column from which features are made."""

    name: ColumnName = Field(description="Its name.")
    family: Family = Field(description="Type family of its values in training.")
    feature: Feature = Field(description="Its role.")

    def takes(self, family: Family) -> bool:
        """Return whether a column of `family` can be used for this one."""
        if self.feature.kind == "number":
            return family == self.family or {family, self.family} <= _NUMERIC
        return family == self.family or family in _ALSO_TAKEN.get(self.family, ())


def family_of(data_type: pa.DataType) -> Family:
    """Return the type family of an Arrow type."""
    if pt.is_dictionary(data_type):
        return family_of(data_type.value_type)
    return next((family for family, fits in _FAMILIES if fits(data_type)), "other")


def input_columns(path: Path, spec: FeatureSpec, target: str | None) -> list[InputColumn]:
    """Return the columns of a Parquet file from which `spec` makes features, in order, each with its role.

    A column without any value has no role by itself, and takes every one that `spec` gives it.
    Raises `TaskFailure`: ``unknown_column`` for one that does not exist, ``wrong_column_type`` for one whose role does
    not take its type, ``no_features`` if none is left.
    """
    schema, empty = schema_of(path), empty_columns(path)
    names = list(schema.names)
    for name in (*spec.columns, *spec.drop, *([target] if target is not None else [])):
        if name not in names:
            raise unknown_column(name, dict.fromkeys(names, ""), "features" if name != target else "target")
    chosen = [
        _typeless(field.name, spec) if field.name in empty else _input(field, spec)
        for field in schema
        if field.name != target and field.name not in spec.drop
    ]
    columns = [column for column in chosen if column is not None]
    if not columns:
        raise TaskFailure(
            "no_features", "No column is left to learn from.", remedy="Name columns in 'features.columns'."
        )
    return columns


def unused_columns(path: Path, spec: FeatureSpec, inputs: Sequence[InputColumn], target: str) -> dict[str, str]:
    """Return the columns that have no role though `spec` drops none of them, with their types; ``null`` if empty."""
    if spec.others == "drop":
        return {}
    known, empty = {*(column.name for column in inputs), *spec.drop, target}, empty_columns(path)
    return {
        field.name: "null" if field.name in empty else str(field.type)
        for field in schema_of(path)
        if field.name not in known
    }


def _typeless(name: str, spec: FeatureSpec) -> InputColumn | None:
    wanted = spec.columns.get(name)
    return None if wanted is None else InputColumn(name=name, family=_TYPELESS[wanted.kind], feature=wanted)


def _input(field: pa.Field, spec: FeatureSpec) -> InputColumn | None:
    family, wanted = family_of(field.type), spec.columns.get(field.name)
    if wanted is None:
        automatic = _OF_TIMESTAMPS if pt.is_timestamp(field.type) else _AUTOMATIC.get(family)
        if automatic is None or spec.others != "auto":
            return None
        return InputColumn(name=field.name, family=family, feature=automatic)
    if family == "time" and isinstance(wanted, DateFeature):
        wanted = _of_time(field.name, wanted)
    if family not in _TAKEN_BY[wanted.kind]:
        raise TaskFailure(
            "wrong_column_type",
            f"features.columns: {field.name!r} is {field.type}; the role {wanted.kind!r} does not take that type.",
            remedy=f"It takes {' and '.join(sorted(_TAKEN_BY[wanted.kind]))}; cast it with etl.transform_data first.",
            column=field.name,
        )
    return InputColumn(name=field.name, family=family, feature=wanted)


def _of_time(name: str, wanted: DateFeature) -> DateFeature:
    """Return the role with the parts that a time of day has, which are the default."""
    if "parts" not in wanted.model_fields_set:
        return wanted.model_copy(update={"parts": ["hour", "minute"]})
    if strange := sorted(set(wanted.parts) - _TIME_PARTS):
        raise TaskFailure(
            "wrong_column_type",
            f"features.columns: {name!r} is a time of day, which has no {strange[0]}.",
            remedy="Set 'parts' to 'hour' and 'minute'.",
            column=name,
        )
    return wanted


def need_fit(path: Path, inputs: Sequence[InputColumn]) -> None:
    """Raise `TaskFailure` (``columns_do_not_fit``) naming the missing and the wrongly typed columns, if any.

    A column of the Parquet file without any value has no type, and fits.
    """
    there, empty = {field.name: field.type for field in schema_of(path)}, empty_columns(path)
    missing = [column.name for column in inputs if column.name not in there]
    wrong = [
        f"{column.name!r} is {there[column.name]}, but was {column.family} in training"
        for column in inputs
        if column.name in there and column.name not in empty and not column.takes(family_of(there[column.name]))
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
