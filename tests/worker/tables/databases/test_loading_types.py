"""Every Arrow type is stored exactly by each engine, or refused."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import TaskFailure
from tests.support.engines import ENGINES, Engine, make_engine
from worker.tables.databases.types import Shape, holds, plain, shape_of, signed_micros

if TYPE_CHECKING:
    from pathlib import Path

MOMENT = dt.datetime(1969, 12, 31, 23, 59, 59, 123_456)  # noqa: DTZ001 - a moment without a zone is the point
ZONED = dt.datetime(2026, 1, 1, 12, 30, 0, 1, tzinfo=dt.timezone(dt.timedelta(hours=2)))
UTC_TEXT = "2026-01-01 10:30:00.000001Z"
BIG = Decimal("123456789012345678901234567.12345678901")

#: name: (Arrow type, values, what an engine without types of its own stores, or None where it is the values)
EXACT: dict[str, tuple[pa.DataType, list[Any], list[Any] | None]] = {
    "bool": (pa.bool_(), [True, False], [1, 0]),
    "int8": (pa.int8(), [-128, 127], None),
    "int16": (pa.int16(), [-(2**15), 2**15 - 1], None),
    "int32": (pa.int32(), [-(2**31), 2**31 - 1], None),
    "int64": (pa.int64(), [-(2**63), 2**63 - 1], None),
    "uint8": (pa.uint8(), [0, 255], None),
    "uint16": (pa.uint16(), [0, 2**16 - 1], None),
    "uint32": (pa.uint32(), [0, 2**32 - 1], None),
    "uint64": (pa.uint64(), [0, 2**64 - 1], ["0", "18446744073709551615"]),
    "float32": (pa.float32(), [0.5, -math.inf], None),
    "float64": (pa.float64(), [0.1, math.inf], None),
    "decimal": (pa.decimal128(38, 11), [BIG, Decimal("-0.00000000001")], [str(BIG), "-0.00000000001"]),
    "string": (pa.string(), ["", "ünï 漢字 🎉\n'\""], None),
    "large": (pa.large_string(), ["007", "1e5"], None),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), ["x", "y"], None),
    "binary": (pa.binary(), [b"", b"\x00\xff"], None),
    "date": (pa.date32(), [dt.date(1, 1, 1), dt.date(9999, 12, 31)], ["0001-01-01", "9999-12-31"]),
    "timestamp_s": (
        pa.timestamp("s"),
        [MOMENT.replace(microsecond=0), None],
        ["1969-12-31 23:59:59.000000", None],
    ),
    "timestamp_us": (pa.timestamp("us"), [MOMENT, None], ["1969-12-31 23:59:59.123456", None]),
    "zoned": (pa.timestamp("us", "Europe/Berlin"), [ZONED, None], [UTC_TEXT, None]),
    "time": (pa.time64("us"), [dt.time(1, 2, 3, 4), None], ["01:02:03.000004", None]),
    "nulls": (pa.null(), [None, None], None),
}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return make_engine(request.param, tmp_path, request)


def refusal(engine: Engine, table: pa.Table, **options: Any) -> TaskFailure | None:
    """Return the final failure with which the engine refuses `table`, or nothing if it has loaded it."""
    try:
        engine.load(table, **options)
    except TaskFailure as failure:
        return failure
    return None


def is_kept(engine: Engine, table: pa.Table, code: str, **options: Any) -> bool:
    """Return whether the engine has loaded `table`; if not, it has refused it with `code` and the column's name."""
    refused = refusal(engine, table, **options)
    if refused is None:
        return True
    assert (refused.code, refused.retryable, bool(refused.remedy)) == (code, False, True)
    assert code == "type_not_loadable" or "'x'" in refused.message
    return False


def test_values_come_back_exactly(engine: Engine) -> None:
    """What was loaded is what the engine's own client reads, at the edges of every type."""
    table = pa.table({name: pa.array(values, kind) for name, (kind, values, _) in EXACT.items()})
    engine.load(table)
    engine.load(table, mode="append", load_id="second")  # into a table that is there
    names = list(EXACT)
    for name in names:  # one by one: a failure names the column
        read = [row[0] for row in engine.run(f'SELECT "{name}" FROM sales')]  # noqa: S608 - a name of ours
        _, values, untyped = EXACT[name]
        expected = values if engine.typed or untyped is None else untyped
        assert sorted(map(repr, [*expected, *expected])) == sorted(repr(_like(expected, value)) for value in read), name


def _like(expected: list[Any], value: Any) -> Any:
    """Return a zoned moment in the zone of the expected one, and a whole number as an int."""
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value.astimezone(expected[0].tzinfo)
    if isinstance(value, Decimal) and isinstance(expected[0], int):
        return int(value)
    return value


def test_staged_rows_are_as_exact_as_copied_ones(engine: Engine) -> None:
    """An upsert, which takes another way into the table, stores the same."""
    columns = {name: pa.array(values, kind) for name, (kind, values, _) in EXACT.items()}
    engine.load(pa.table(columns), into="copied")
    engine.load(pa.table(columns), into="staged", mode="upsert", key=["int64"], load_id="second")
    order = "SELECT * FROM {} ORDER BY int64"
    assert engine.run(order.format("copied")) == engine.run(order.format("staged"))


def test_nan_is_kept_or_refused(engine: Engine) -> None:
    """An engine without NaN, which would store a missing value, refuses it."""
    if is_kept(engine, pa.table({"x": [1.0, math.nan]}), "value_not_storable"):
        assert engine.run("SELECT count(*) FROM sales WHERE x = CAST('NaN' AS DOUBLE PRECISION)") == [(1,)]


def test_nul_in_a_text_is_kept_or_refused(engine: Engine) -> None:
    """An engine whose texts end at NUL refuses it."""
    if is_kept(engine, pa.table({"x": ["a\0b"]}), "value_not_storable"):
        assert engine.run("SELECT x FROM sales") == [("a\0b",)]


def test_nanoseconds_are_exact_or_refused(engine: Engine) -> None:
    """A nanosecond that the engine's times cannot hold fails the job; whole microseconds pass."""
    whole = pa.table({"x": pa.array([1_000], pa.timestamp("ns"))})
    finer = pa.table({"x": pa.array([1_001], pa.timestamp("ns"))})
    engine.load(whole)
    if is_kept(engine, finer, "value_not_exact", load_id="second"):
        assert sorted(engine.read()["x"].cast(pa.int64()).to_pylist()) == [1_000, 1_001]


@pytest.mark.parametrize("kind", [pa.list_(pa.int32()), pa.struct([("a", pa.int32())])])
def test_nested_columns_are_kept_or_refused(engine: Engine, kind: pa.DataType) -> None:
    """Lists and structs come back as they were, where an engine has them."""
    value: Any = [1, 2] if pa.types.is_list(kind) else {"a": 1}
    table = pa.table({"x": pa.array([value], kind)})
    if is_kept(engine, table, "type_not_loadable"):
        engine.load(table, load_id="second")
        assert engine.run("SELECT x FROM sales") == [(value,), (value,)]


@pytest.mark.parametrize("kind", [pa.duration("us"), pa.decimal256(50, 2)])
def test_types_without_an_exact_place_are_refused(engine: Engine, kind: pa.DataType) -> None:
    """No engine has durations; a decimal of 50 digits is kept as one or refused, never made a float."""
    digits = Decimal("1" * 48 + ".25")
    value = dt.timedelta(1) if pa.types.is_duration(kind) else digits
    if is_kept(engine, pa.table({"x": pa.array([value], kind)}), "type_not_loadable"):
        assert [Decimal(stored) for (stored,) in engine.run("SELECT x FROM sales")] == [digits]


@pytest.mark.parametrize(
    ("declared", "kind", "value"),
    [
        ("INTEGER", pa.int64(), 5),
        ("DOUBLE PRECISION", pa.int32(), 5),
        ("DOUBLE PRECISION", pa.float32(), 0.5),
        ("VARCHAR(9)", pa.string(), "text"),
        ("TIMESTAMP", pa.timestamp("ms"), dt.datetime(2026, 1, 1)),  # noqa: DTZ001 - no zone is the point
    ],
)
def test_a_wider_column_takes_the_values(engine: Engine, declared: str, kind: pa.DataType, value: object) -> None:
    """A table that others made may have other types, where these hold the values exactly."""
    engine.run(f"CREATE TABLE sales (x {declared})")
    engine.load(pa.table({"x": pa.array([value], kind)}))
    assert engine.run("SELECT count(*) FROM sales WHERE x IS NOT NULL") == [(1,)]


@pytest.mark.parametrize(
    ("declared", "kind", "value"),
    [
        ("DOUBLE PRECISION", pa.int64(), 2**53 + 1),
        ("INTEGER", pa.string(), "007"),
        ("NUMERIC(10,2)", pa.string(), "1.005"),
        ("TEXT", pa.int64(), 5),
    ],
)
def test_a_column_that_would_change_values_is_refused(
    engine: Engine, declared: str, kind: pa.DataType, value: object
) -> None:
    """Nothing is rounded, cut or spelled differently on the way: not by type, and not by value."""
    engine.run(f"CREATE TABLE sales (x {declared})")
    with pytest.raises(TaskFailure) as caught:
        engine.load(pa.table({"x": pa.array([value], kind)}))
    assert caught.value.code in {"columns_do_not_fit", "value_not_exact"}
    assert engine.run("SELECT count(*) FROM sales") == [(0,)]


@pytest.mark.parametrize(
    ("declared", "arrow", "value"),
    [("INTEGER", pa.int64(), 2**40), ("UUID", pa.string(), "no uuid"), ("NUMERIC(3,1)", pa.int32(), 1_000)],
)
def test_a_value_out_of_range_is_refused_by_the_database(
    engine: Engine, declared: str, arrow: pa.DataType, value: object
) -> None:
    """The column fits in principle, this value does not: the job fails and nothing is loaded.

    Where columns hold any value, the column does not fit, or the value is kept whole.
    """
    engine.run(f"CREATE TABLE sales (x {declared})")
    refused = refusal(engine, pa.table({"x": pa.array([value], arrow)}))
    stored = engine.run("SELECT x FROM sales")
    if refused is None:
        assert not engine.typed
        assert stored == [(value,)]
    else:
        assert refused.code == ("value_refused" if engine.typed else "columns_do_not_fit")
        assert (refused.retryable, stored) == (False, [])


@given(bits=st.sampled_from([16, 32, 64]), float_bits=st.sampled_from([32, 64]))
def test_an_integer_goes_into_a_float_that_is_exact_for_it(bits: int, float_bits: int) -> None:
    """A float of 24 or 53 bits of mantissa holds all integers of fewer bits."""
    mantissa = {32: 24, 64: 53}[float_bits]
    assert holds(Shape("float", float_bits), Shape("int", bits)) == (bits <= mantissa)


def test_encodings_disappear() -> None:
    """Dictionaries, views and large offsets are ways to store, not types."""
    nested = pa.dictionary(pa.int8(), pa.large_string())
    assert plain(nested) == pa.string()
    assert plain(pa.binary(4)) == pa.binary()
    assert signed_micros(pa.timestamp("ns", "Asia/Tokyo")) == pa.timestamp("us", "UTC")
    assert shape_of(pa.decimal128(10, 2)) == Shape("decimal", 2)
