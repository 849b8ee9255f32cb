"""Give columns of text the types that all of their values have.

Files without types are staged as text first. A column then becomes a number, a date or a boolean only if every
one of its values in the whole file is one *and nothing is lost*: ``007`` stays text because 7 is not the same, and
a column with one ``abc`` stays text as a whole, so that the value survives to a transformation, whose `cast`
decides by its `bad_rows` what becomes of it. The first rows only rule types out; they never settle one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.compute as pc

from worker.tables.parquet.staging import ParquetSink, batches_of, empty_columns, schema_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

#: What a column of text may become: anything, a number (exact for `decimal`), a boolean, a time, or only text.
Candidate = Literal["any", "number", "decimal", "boolean", "temporal", "text"]

_EXACT_DIGITS = 15  # a decimal with this number of digits is unchanged after a conversion to float64 and back
_WIDTHS = (18, 38)  # digits that a 64 and a 128 bit decimal hold in DuckDB


class Check:
    """Whether a type fits the values of a column, shown to it piece by piece, without missing ones."""

    pattern = r"(?i)\A(true|false)\z"

    def __init__(self) -> None:
        self.seen = False

    @property
    def type(self) -> pa.DataType:
        """The type to convert to."""
        return pa.bool_()

    def accepts(self, values: pa.Array) -> bool:
        """Return whether no value speaks against the type."""
        self.seen = True
        return bool(pc.all(pc.match_substring_regex(values, self.pattern)).as_py()) and self.converts(values)

    def converts(self, values: pa.Array) -> bool:
        """Return whether values of the right form can be converted, too."""
        try:
            pc.cast(values, self.type)
        except pa.ArrowInvalid:
            return False
        return True

    def holds(self) -> bool:
        """Return the verdict after the last value: a column without any stays text."""
        return self.seen


class _Integer(Check):
    pattern = r"\A(0|-?[1-9][0-9]{0,18})\z"

    @property
    def type(self) -> pa.DataType:
        return pa.int64()


class _Day(Check):
    pattern = r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}\z"

    @property
    def type(self) -> pa.DataType:
        return pa.date32()


class _Moment(Check):
    pattern = r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?)?\z"

    @property
    def type(self) -> pa.DataType:
        return pa.timestamp("us")


class _Instant(Check):
    pattern = r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|\+00:?00)\z"

    @property
    def type(self) -> pa.DataType:
        return pa.timestamp("us", "UTC")


class _Scaled(Check):
    """Keeps account of the digits on both sides of the point."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = 1
        self.scales: set[int] = set()

    def count(self, values: pa.Array) -> None:
        """Note how many digits the values have before and after the point."""
        point = pc.find_substring(values, ".")
        without_sign = pc.utf8_ltrim(values, "-")
        whole = pc.utf8_length(pc.replace_substring_regex(without_sign, r"\..*\z", ""))
        self.whole = max(self.whole, pc.max(whole).as_py())
        scales = pc.subtract(pc.subtract(pc.utf8_length(values), point), 1).filter(pc.greater_equal(point, 0))
        self.scales |= set(pc.unique(scales).to_pylist())


class _Decimal(_Scaled):
    """Plain decimals of a system that knows them as such: exact."""

    pattern = r"\A-?[0-9]+(\.[0-9]+)?\z"

    @property
    def type(self) -> pa.DataType:
        scale = max(self.scales, default=0)
        width = next((width for width in _WIDTHS if self.whole + scale <= width), _WIDTHS[-1])
        return pa.decimal128(width, scale)

    def converts(self, values: pa.Array) -> bool:
        self.count(values)
        return self.whole + max(self.scales, default=0) <= _WIDTHS[-1]


class _Float(_Scaled):
    """Numbers that a float64 holds without loss. 1.1 beside 1.10 is a version or a label; 1.10 beside 2.50 is not."""

    pattern = r"\A-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?\z"

    def __init__(self) -> None:
        super().__init__()
        self.padded = False

    @property
    def type(self) -> pa.DataType:
        return pa.float64()

    def converts(self, values: pa.Array) -> bool:
        if not self.padded:
            self.padded = bool(pc.any(pc.match_substring_regex(values, r"\.[0-9]+0\z")).as_py())
        self.count(values)
        floats = pc.cast(values, pa.float64())
        mantissa = pc.replace_substring_regex(values, "[eE].*", "")
        long = pc.greater(pc.utf8_length(pc.replace_substring_regex(mantissa, "[^0-9]", "")), _EXACT_DIGITS)
        shortest = pc.cast(floats.filter(long), pa.string())
        same = pc.equal(shortest, pc.replace_substring(values.filter(long), "E", "e"))
        return bool(pc.all(pc.is_finite(floats)).as_py()) and bool(pc.all(same, min_count=0).as_py())

    def holds(self) -> bool:
        return self.seen and not (self.padded and len(self.scales) > 1)


_CHECKS: Mapping[Candidate, tuple[type[Check], ...]] = {
    "any": (Check, _Integer, _Float, _Day, _Moment),
    "number": (_Integer, _Float),
    "decimal": (_Decimal, _Float),
    "boolean": (Check,),
    "temporal": (_Day, _Moment, _Instant),
    "text": (),
}


def settle(
    staged: Path,
    output: Path,
    candidates: Mapping[str, Candidate],
    on_rows: Callable[[int], None],
    *,
    when_empty: Mapping[str, pa.DataType] | None = None,
) -> int:
    """Write the Parquet file `staged` to `output` with settled types; return its row count.

    Columns that `candidates` does not name stay as they are; `when_empty` gives types for those without any
    value. Each piece of the file is looked at for itself, so memory does not grow with it. `on_rows` gets the rows
    written.
    """
    types = _settled(staged, {name: _CHECKS[candidate] for name, candidate in candidates.items()}, on_rows)
    if when_empty:
        without_values = empty_columns(staged)
        types |= {name: kind for name, kind in when_empty.items() if name in without_values and name in candidates}
    schema = pa.schema([(field.name, types.get(field.name, field.type)) for field in schema_of(staged)])
    with ParquetSink(output, schema) as sink:
        for batch in batches_of(staged):
            columns = [pc.cast(column, field.type) for column, field in zip(batch.columns, schema, strict=True)]
            sink.write(pa.RecordBatch.from_arrays(columns, schema=schema))
            on_rows(sink.row_count)
    return sink.row_count


def _settled(
    staged: Path, open_checks: Mapping[str, tuple[type[Check], ...]], on_rows: Callable[[int], None]
) -> dict[str, pa.DataType]:
    """Return the first type of each column that fits; a pass tries one type a column, the next if it has to."""
    first = next(batches_of(staged), None)
    if first is None:
        return {}
    open_checks = {name: _possible(first.column(name), kinds) for name, kinds in open_checks.items()}
    types: dict[str, pa.DataType] = {}
    while open_checks := {name: kinds for name, kinds in open_checks.items() if kinds}:
        types |= _pass(staged, {name: kinds[0]() for name, kinds in open_checks.items()}, on_rows)
        open_checks = {name: kinds[1:] for name, kinds in open_checks.items() if name not in types}
    return types


def _possible(column: pa.Array, kinds: tuple[type[Check], ...]) -> tuple[type[Check], ...]:
    values = column.drop_null()
    return tuple(kind for kind in kinds if not len(values) or kind().accepts(values))


def _pass(staged: Path, checks: dict[str, Check], on_rows: Callable[[int], None]) -> dict[str, pa.DataType]:
    for batch in batches_of(staged, list(checks)):
        for name in list(checks):
            values = batch.column(name).drop_null()
            if len(values) and not checks[name].accepts(values):
                del checks[name]
        on_rows(0)
        if not checks:
            break
    return {name: check.type for name, check in checks.items() if check.holds()}
