"""Parquet files of every type, with random and extreme values, keep them on every way, or a column is refused by name.

`CELERIAC_PARQUET_EXAMPLES=200` tries more tables.
"""

from __future__ import annotations

import itertools
import os
import secrets
import tempfile
from datetime import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from shared.errors import TaskFailure
from shared.jobs.data.places import FileDestination, FileLayout
from shared.jobs.etl import TransformSpec
from tests.support.engines import ENGINES, ignore_progress, make_engine
from worker.etl.reading.readers import ReadLimits, SourceFile, read_file
from worker.etl.transform import transform
from worker.etl.writing.load_file import load_file
from worker.reach.connections import StoreConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.engines import Engine

KEY = "k"
FEW = 2
EXAMPLES = int(os.environ.get("CELERIAC_PARQUET_EXAMPLES", FEW))
MIB = 1024**2
_NANOS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY_S = 86_400
property_test = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= FEW,
    phases=[Phase.generate],  # a failure names the column; finding a smaller table takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)


def integers(bits: int, *, signed: bool = True) -> st.SearchStrategy[int]:
    """All integers of a size, its bounds and the bounds of exact floats more often."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    special = [one for one in (low, low + 1, 0, 2**24 + 1, 2**53 + 1, high - 1, high) if low <= one <= high]
    return st.sampled_from(special) | st.integers(low, high)


def decimals(kind: pa.DataType) -> st.SearchStrategy[Decimal]:
    """All decimals of a type."""
    most = 10**kind.precision - 1
    numbers = st.sampled_from([-most, 0, 1, most]) | st.integers(-most, most)
    return numbers.map(lambda number: Decimal((number < 0, tuple(map(int, str(abs(number)))), -kind.scale)))


def counted(kind: pa.DataType) -> st.SearchStrategy[int]:
    """All numbers that stand for a date, time or duration of a type."""
    if pa.types.is_time(kind):
        return st.integers(0, _DAY_S * 10**9 // _NANOS[kind.unit] - 1)
    if pa.types.is_date64(kind):
        return st.integers(-(2**31), 2**31 - 1).map(lambda days: days * _DAY_S * 1_000)
    if pa.types.is_timestamp(kind) and kind.unit in {"s", "ms"}:  # that is what microseconds hold
        most = 2**63 * _NANOS["us"] // _NANOS[kind.unit] - 1
        return st.sampled_from([-most, 0, most]) | st.integers(-most, most)
    calendar = st.integers(0, 4 * 10**9).map(
        lambda seconds: seconds * 10**9 // _NANOS.get(getattr(kind, "unit", ""), 10**9)
    )
    return integers(kind.bit_width) | (st.integers(-719_162, 2_932_896) if pa.types.is_date32(kind) else calendar)


SIMPLE: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.bool_(): st.booleans(),
    **{getattr(pa, f"int{bits}")(): integers(bits) for bits in (8, 16, 32, 64)},
    **{getattr(pa, f"uint{bits}")(): integers(bits, signed=False) for bits in (8, 16, 32, 64)},
    pa.float16(): st.floats(width=16),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    **{
        kind: decimals(kind)
        for kind in (
            pa.decimal32(9, 2), pa.decimal64(18, 18), pa.decimal128(38, 0), pa.decimal128(38, 38),
            pa.decimal128(5, 2), pa.decimal256(20, 3), pa.decimal256(76, 38),
        )
    },
    **dict.fromkeys((pa.string(), pa.large_string(), pa.string_view()), st.text(max_size=6)),
    **dict.fromkeys((pa.binary(), pa.large_binary(), pa.binary_view()), st.binary(max_size=6)),
    pa.binary(3): st.binary(min_size=3, max_size=3),
    **{
        kind: counted(kind)
        for kind in (
            pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"),
            *map(pa.timestamp, ["s", "ms", "us", "ns"]),
            *(pa.timestamp("us", zone) for zone in ("UTC", "Europe/Berlin", "+05:30")), pa.timestamp("ns", "UTC"),
            *map(pa.duration, ["s", "ms", "us", "ns"]),
        )
    },
    pa.null(): st.none(),
}  # fmt: skip


def column(kind: pa.DataType, rows: int) -> st.SearchStrategy[pa.Array]:
    """Return a column of a simple type, with missing values."""
    values = st.lists(st.none() | SIMPLE[kind], min_size=rows, max_size=rows)
    if pa.types.is_temporal(kind):
        number = pa.int32() if kind.bit_width == 32 else pa.int64()
        return values.map(lambda found: pa.array(found, number).view(kind))
    return values.map(lambda found: pa.array(found, kind))


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Draw a table with a key and a column of every type, simple, encoded and nested."""
    rows = draw(st.integers(0, 5))
    columns: dict[str, pa.Array] = {KEY: pa.array(range(rows), pa.int64())}
    for number, kind in enumerate(SIMPLE):
        found = draw(column(kind, rows))
        columns[f"c{number} {kind}"] = found
        if pa.types.is_null(kind):
            continue
        wraps = {
            "list": pa.ListArray.from_arrays(pa.array(range(rows + 1), pa.int32()), found),
            "struct": pa.StructArray.from_arrays([found, found], ["a", "b c"]),
            "map": pa.MapArray.from_arrays(
                pa.array(range(rows + 1), pa.int32()), pa.array([str(at) for at in range(rows)], pa.string()), found
            ),
        }
        name = draw(st.sampled_from(sorted(wraps)))
        columns[f"n{number} {name} of {kind}"] = wraps[name]
    columns["dictionary"] = draw(column(pa.string(), rows)).dictionary_encode()
    columns["large list"] = pa.LargeListArray.from_arrays(
        pa.array(range(rows + 1), pa.int64()), draw(column(pa.int8(), rows))
    )
    columns["pairs"] = pa.FixedSizeListArray.from_arrays(draw(column(pa.int8(), 2 * rows)), 2)
    return pa.table(columns)


def value(one: pa.Scalar) -> Any:
    """Return a value in a form that is equal exactly if the values are, whatever their types are called."""
    match one:
        case _ if not one.is_valid:
            found: Any = None
        case pa.DictionaryScalar() | pa.ExtensionScalar():
            found = value(one.value)
        case pa.FloatScalar() | pa.DoubleScalar() | pa.HalfFloatScalar():
            found = float(one.as_py() + 0.0).hex()  # an engine may have one zero
        case pa.StructScalar():
            found = {name: value(inner) for name, inner in one.items()}
        case pa.ListScalar() | pa.LargeListScalar() | pa.FixedSizeListScalar() | pa.MapScalar():
            found = [value(inner) for inner in one.values]
        case _ if pa.types.is_temporal(one.type):
            found = moment(one)
        case _:
            found = one.as_py()
    return found


def moment(one: pa.Scalar) -> tuple[str, bool, int]:
    """Return what a date, time or duration is, whether it is an instant, and its nanoseconds."""
    kind = one.type
    if pa.types.is_date(kind):
        return "date", False, one.value * (_DAY_S * 10**9 if pa.types.is_date32(kind) else 10**6)
    family = next(name for name in ("timestamp", "time", "duration") if str(kind).startswith(name))
    return family, getattr(kind, "tz", None) is not None, one.value * _NANOS[kind.unit]


def read(path: Path) -> dict[str, list[Any]]:
    """Return the values of a Parquet file, by column and in the order of the key."""
    table = pq.read_table(path)
    order = table.column(KEY).to_pylist()
    return {
        name: [
            one for _, one in sorted(zip(order, map(value, table.column(name)), strict=True), key=lambda pair: pair[0])
        ]
        for name in table.column_names
    }


def same(expected: Any, got: Any) -> bool:
    """Return whether two values are equal; an engine without a type for a number or a time has its text."""
    if not isinstance(got, str) or isinstance(expected, str):
        return bool(expected == got)
    if not isinstance(expected, tuple):
        return str(expected) == got or (isinstance(expected, int | Decimal) and Decimal(got) == expected)
    family, is_instant, _ = expected
    if family == "time":
        return moment(pa.scalar(time.fromisoformat(got), pa.time64("us"))) == expected
    kind = pa.date32() if family == "date" else pa.timestamp("us", "UTC" if is_instant else None)
    return moment(pa.scalar(got).cast(kind)) == expected


def kept(source: pa.Table, folder: Path, move: Callable[[Path, Path], None], refusing: set[pa.DataType]) -> None:
    """Move a table, without the columns that are refused by name, and compare what comes out.

    Types that were refused are added to `refusing`, and left out at once.
    """
    left_out = [field.name for field in source.schema if field.type in refusing]
    for number in itertools.count():
        moved = source.drop_columns(left_out)
        before, after = (folder / f"{number}-{name}.parquet" for name in ("before", "after"))
        pq.write_table(moved, before)
        try:
            move(before, after)
        except TaskFailure as failure:
            named = {name for name in moved.column_names if f"{name!r}" in failure.message} - {KEY}
            if not named:
                pytest.fail(f"{failure.code}: {failure.message}")
            left_out += named
            if failure.code in {"type_not_exact", "type_not_loadable"}:
                refusing |= {source.schema.field(name).type for name in named}
        else:
            expected, got = read(before), read(after)
            changed = [
                f"{name}: {a} {b}"
                for name in expected
                for a, b in zip(expected[name], got[name], strict=True)
                if not same(a, b)
            ]
            assert changed == []
            return


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[], Path]:
    """Return new folders, one for each table."""
    return lambda: Path(tempfile.mkdtemp(dir=tmp_path))


def extract(source: Path, target: Path) -> None:
    limits = ReadLimits(memory_limit_bytes=256 * MIB, plain_max_bytes=256 * MIB)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        read_file(
            SourceFile(source, source.name),
            FileLayout(),
            output=target,
            scratch=Path(scratch),
            limits=limits,
            on_progress=lambda *_: None,
        )


def transformed(params: dict[str, Any] | None) -> Callable[[Path, Path], None]:
    def move(source: Path, target: Path) -> None:
        spec = None if params is None else TransformSpec.model_validate(params)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            transform(
                spec,
                [source],
                inputs={"other": source} if spec and spec.steps else {},
                output=target,
                rejects=target.with_suffix(".rejects"),
                memory_limit_bytes=256 * MIB,
                threads=1,
                scratch=Path(scratch),
                on_progress=lambda *_: None,
            )

    return move


def loaded_file(source: Path, target: Path) -> None:
    store = StoreConnection("lake", fsspec.filesystem("file"), str(target.parent))
    destination = FileDestination.model_validate({"kind": "file", "connection": "lake", "path": target.name})
    load_file(store, destination, source, load_id="1", scratch=target.parent, on_progress=ignore_progress)


def _column(name: str) -> dict[str, Any]:
    return {"op": "column", "name": name}


STEPS: list[dict[str, Any]] = [
    {"op": "filter", "where": {"op": "ge", "left": _column(KEY), "right": {"op": "literal", "value": 0}}},
    {"op": "rename", "columns": {KEY: "key"}},
    {"op": "derive", "columns": {"double": {"op": "add", "left": _column("key"), "right": _column("key")}}},
    {"op": "fill_missing", "columns": {"double": 0}},
    {"op": "drop_missing", "columns": ["double"]},
    {"op": "deduplicate", "columns": ["key"]},
    {"op": "cast", "columns": {"double": "string"}},
    {"op": "cast", "columns": {"double": "integer"}},
    {"op": "window", "columns": {"place": {"function": "row_number"}}, "order_by": [{"column": "key"}]},
    {"op": "join", "input": "other", "on": {"key": KEY}, "how": "semi"},
    {"op": "join", "input": "other", "on": {"key": KEY}, "how": "left"},
    {"op": "sort", "by": [{"column": "key", "order": "desc"}]},
    {"op": "limit", "count": 100},
    {"op": "rename", "columns": {"key": KEY}},
]
INPUTS = {"other": "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/data.parquet"}


@given(source=tables())
@property_test
def test_a_parquet_file_is_read_and_written_as_it_is(source: pa.Table, folder: Callable[[], Path]) -> None:
    """Nothing changes, and nothing is refused."""
    for move in (extract, loaded_file):
        refusing = set[pa.DataType]()
        kept(source, folder(), move, refusing)
        assert refusing == set()


@pytest.mark.parametrize("params", [None, {"sql": "SELECT * FROM input"}, {"steps": STEPS, "inputs": INPUTS}])
def test_a_transformation_keeps_the_columns_that_it_does_not_touch(
    params: dict[str, Any] | None, folder: Callable[[], Path]
) -> None:
    """Of the values, not of the names of types; what DuckDB cannot hold is refused."""
    refusing = set[pa.DataType]()

    @given(source=tables())
    @property_test
    def transform_all(source: pa.Table) -> None:
        kept(source, folder(), transformed(params), refusing)

    transform_all()
    assert {kind for kind in refusing if not kind.num_fields} == {pa.decimal256(76, 38)}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return make_engine(request.param, tmp_path, request)


def test_a_table_keeps_what_it_is_given(engine: Engine, folder: Callable[[], Path]) -> None:
    """Of each engine; other types are refused."""
    refusing = set[pa.DataType]()

    def move(path: Path, target: Path) -> None:
        name = f"t_{secrets.token_hex(4)}"
        engine.load(path, into=name, load_id=name)
        pq.write_table(engine.read(name), target)

    @given(source=tables())
    @property_test
    def load_all(source: pa.Table) -> None:
        kept(source, folder(), move, refusing)

    load_all()
    assert not refusing & {pa.bool_(), pa.int64(), pa.float64(), pa.decimal128(5, 2), pa.string(), pa.timestamp("us")}
