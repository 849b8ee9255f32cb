"""Every type of PostgreSQL keeps its value on the way out and in, or is refused by name."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from shared.errors import TaskFailure
from tests.support.engines import Engine, duckdb_at, make_engine, sqlite_at
from worker.tables.parquet.calendar import within_calendar

if TYPE_CHECKING:
    from pathlib import Path

ORDERS = (
    "CREATE TABLE {} (order_id uuid PRIMARY KEY, total money, client inet, opens timetz, price numeric, tags int[], "
    "made timestamp(3), code char(5), doc jsonb, kept interval)"
)
ORDER_ROWS = (
    "INSERT INTO orders VALUES ('6f9619ff-8b86-d011-b42d-00cf4fc964ff', '$1,234.50', '10.0.0.1', '10:00+02', 1.50, "
    "'{1,2}', '2026-01-01 10:00:00.123', 'ab', '{\"a\": 1}', '1 day 02:00'), "
    "('00000000-0000-0000-0000-000000000001', '$5.25', '192.168.1.7', '08:30-05', 'NaN', '{}', null, 'xyz', null, null)"
)
SUBSCRIPTIONS = (
    "CREATE TABLE subscriptions (id int PRIMARY KEY, plan text, valid_to timestamp, until date, renewed timestamptz)",
    (
        "INSERT INTO subscriptions VALUES (1, 'pro', 'infinity', 'infinity', '-infinity'), "
        "(2, 'free', '2024-12-31', '2024-12-31', '2024-12-31T12:00:00Z')"
    ),
)


@pytest.fixture
def postgresql(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return make_engine("postgresql", tmp_path, request)


def rows_of(engine: Engine, table: str) -> list[tuple[Any, ...]]:
    """Return the rows of a table as PostgreSQL writes them, sorted."""
    return engine.run(f"SELECT t::text FROM {table} AS t ORDER BY 1")  # noqa: S608 - names of the tests


def quoted(value: str) -> str:
    """Return a text as SQL."""
    return "'" + value.replace("'", "''") + "'"


def test_the_columns_of_an_order_keep_their_values(postgresql: Engine) -> None:
    """Money is a decimal; identifiers, addresses, times with a zone and intervals are what PostgreSQL writes."""
    postgresql.run(ORDERS.format("orders"), ORDER_ROWS)
    table = postgresql.read("orders")
    first = table.slice(0, 1).to_pylist()[0]
    assert first == {
        "order_id": "6f9619ff-8b86-d011-b42d-00cf4fc964ff",
        "total": Decimal("1234.50"),
        "client": "10.0.0.1",
        "opens": "10:00:00+02",
        "price": first["price"],
        "tags": [1, 2],
        "made": datetime(2026, 1, 1, 10, 0, 0, 123_000),  # noqa: DTZ001 - a time without a zone is the point
        "code": "ab   ",
        "doc": '{"a": 1}',
        "kept": "1 day 02:00:00",
    }
    assert Decimal(str(table["price"].to_pylist()[0])) == Decimal("1.50")
    assert str(table["price"].to_pylist()[1]).lower() == "nan"


@pytest.mark.parametrize(("mode", "key"), [("append", []), ("upsert", ["order_id"])])
def test_an_order_goes_from_table_to_table(postgresql: Engine, mode: str, key: list[str]) -> None:
    """What was read fits a table of the same types, which is equal then."""
    postgresql.run(ORDERS.format("orders"), ORDER_ROWS, ORDERS.format("copies"))
    postgresql.load(postgresql.read("orders"), into="copies", mode=mode, key=key)
    assert rows_of(postgresql, "copies") == rows_of(postgresql, "orders") != []


@pytest.mark.parametrize("column", ["valid_to", "until", "renewed"])
def test_infinity_is_refused_by_name(postgresql: Engine, column: str) -> None:
    """No engine but PostgreSQL has it: it becomes nothing else."""
    postgresql.run(*SUBSCRIPTIONS)
    with pytest.raises(TaskFailure) as raised:
        postgresql.stage(query=f"SELECT {column} FROM subscriptions")  # noqa: S608 - a name of the test
    assert (raised.value.code, raised.value.details["column"]) == ("date_out_of_range", column)


def test_infinity_becomes_missing_where_the_job_asks_for_it(postgresql: Engine) -> None:
    """The other rows and columns stay."""
    postgresql.run(*SUBSCRIPTIONS)
    rows, _ = postgresql.stage(table="subscriptions", dates_out_of_range="null")
    assert rows[0] == {"id": 1, "plan": "pro", "valid_to": None, "until": None, "renewed": None}
    assert (rows[1]["until"], rows[1]["valid_to"]) == (date(2024, 12, 31), datetime(2024, 12, 31))  # noqa: DTZ001 - as it is


@pytest.mark.parametrize(
    "value",
    ["'infinity'::date", "'10000-01-01'::date", "'0001-12-31 BC'::date", "'294276-12-31'::timestamp", "'24:00'::time",
     "'4713-01-01 BC'::timestamptz"],
)  # fmt: skip
def test_what_no_calendar_has_is_refused(postgresql: Engine, value: str) -> None:
    """The years are 1 to 9999, and a day ends before 24:00."""
    with pytest.raises(TaskFailure) as raised:
        postgresql.stage(query=f"SELECT {value} AS x")
    assert (raised.value.code, raised.value.retryable) == ("date_out_of_range", False)


#: A type of PostgreSQL, values of it, and what is staged of the first; a missing value is always among them.
TYPES: list[tuple[str, list[str], Any]] = [
    ("money", ["-1234.56", "0.01"], "-1234.56"),
    ("uuid", ["6f9619ff-8b86-d011-b42d-00cf4fc964ff"], "6f9619ff-8b86-d011-b42d-00cf4fc964ff"),
    ("inet", ["10.0.0.1", "10.1.2.3/8", "::1"], "10.0.0.1"),
    ("cidr", ["10.0.0.0/8"], "10.0.0.0/8"),
    ("macaddr", ["08:00:2b:01:02:03"], "08:00:2b:01:02:03"),
    ("macaddr8", ["08:00:2b:01:02:03:04:05"], "08:00:2b:01:02:03:04:05"),
    ("timetz", ["10:00+02", "24:00:00-12:30"], "10:00:00+02"),
    ("timetz(2)", ["10:00:00.25+02"], "10:00:00.25+02"),
    ("bit(3)", ["101"], "101"),
    ("varbit", ["1010101", ""], "1010101"),
    ("xml", ["<a>1</a>"], "<a>1</a>"),
    ("point", ["(1.1,2)"], "(1.1,2)"),
    ("box", ["(3,4),(1,2)"], "(3,4),(1,2)"),
    ("polygon", ["((0,0),(0,1),(1,1))"], "((0,0),(0,1),(1,1))"),
    ("circle", ["<(0.1,0),5>"], "<(0.1,0),5>"),
    ("int4range", ["[1,5)", "empty"], "[1,5)"),
    ("numrange", ["(1.10,)"], "(1.10,)"),
    ("daterange", ["[2026-02-01,infinity)"], "[2026-02-01,infinity)"),
    ("tstzrange", ["[2026-01-01 00:00:00+02,)"], None),
    ("nummultirange", ["{[1,2),[3,4)}"], "{[1,2),[3,4)}"),
    ("tsvector", ["'a':1 'b':2"], "'a':1 'b':2"),
    ("tsquery", ["'a' & 'b'"], "'a' & 'b'"),
    ("jsonb", ['{"a": [1, 2.50]}'], '{"a": [1, 2.50]}'),
    ("json", ['{"b":1,  "a":1}'], '{"b":1,  "a":1}'),
    ("interval", ["1 mon -3 days 04:05:06.789", "-00:00:01"], "1 mon -3 days +04:05:06.789"),
    ("interval(0)", ["3 days"], "3 days"),
    ("oid", ["4000000000"], 4_000_000_000),
    ("pg_lsn", ["16/B374D848"], "16/B374D848"),
    ("numeric(40,2)", ["12345678901234567890123456789012345678.25"], "12345678901234567890123456789012345678.25"),
    ("numeric", ["1.5", "-0.1"], "1.5"),
    ("real", ["0.1", "NaN", "-Infinity"], pytest.approx(0.1)),
    ("double precision", ["0.1", "NaN", "5e-324"], 0.1),
    ("timestamp(0)", ["2026-01-01 10:00:01"], datetime(2026, 1, 1, 10, 0, 1)),  # noqa: DTZ001 - no zone is the point
    ("timestamp(3)", ["0001-01-01", "9999-12-31 23:59:59.999"], datetime(1, 1, 1)),  # noqa: DTZ001 - no zone is the point
    ("timestamptz(3)", ["2026-01-01 10:00:00.123+02"], None),
    ("time(3)", ["10:00:00.123"], None),
    ("char(5)", ["ab", ""], "ab   "),
    ("varchar(5)", ["ab  "], "ab  "),
    ("bytea", ["\\x00ff"], b"\x00\xff"),
    ("mood", ["ok"], "ok"),
    ("short", ["abc"], "abc"),
    ("whole", ["5"], 5),
    ("priced", ["1.25"], "1.25"),
    ("pair", ['(1,"a b")', "(,)"], '(1,"a b")'),
    ("int[]", ["{1,NULL,3}", "{}"], [1, None, 3]),
    ("text[]", ['{a,"b c",NULL,"NULL"}'], ["a", "b c", None, "NULL"]),
    ("uuid[]", ["{6f9619ff-8b86-d011-b42d-00cf4fc964ff}"], ["6f9619ff-8b86-d011-b42d-00cf4fc964ff"]),
    ("numeric(10,2)[]", ["{1.50,NaN}"], ["1.50", "NaN"]),
    ("money[]", ["{1.50}"], ["1.50"]),
    ("timestamp[]", ["{infinity,2026-01-01}"], ["infinity", "2026-01-01 00:00:00"]),
    ("double precision[]", ["{0.1,NaN}"], None),
    ("mood[]", ["{ok}"], ["ok"]),
]  # fmt: skip
OWN = (
    "CREATE TYPE mood AS ENUM ('ok')",
    "CREATE DOMAIN short AS varchar(3) CHECK (value <> 'no')",
    "CREATE DOMAIN whole AS int",
    "CREATE DOMAIN priced AS numeric(10, 2)",
    "CREATE TYPE pair AS (a int, b text)",
)


@pytest.mark.parametrize(("mode", "style"), [("append", "ISO, MDY"), ("upsert", "German")])
def test_every_type_goes_from_table_to_table(postgresql: Engine, mode: str, style: str) -> None:
    """What is staged is what PostgreSQL itself takes for the same value, whatever style of dates it is set to."""
    database = postgresql.run("SELECT current_database()")[0][0]
    columns = ", ".join(["id int PRIMARY KEY", *(f"x{at} {kind}" for at, (kind, _, _) in enumerate(TYPES))])
    postgresql.run(
        *OWN, f"ALTER DATABASE {database} SET DateStyle = '{style}'", f"CREATE TABLE source ({columns})",
        f"CREATE TABLE target ({columns})",
    )  # fmt: skip
    for row in range(1 + max(len(values) for _, values, _ in TYPES)):  # the last has no value
        listed = [quoted(values[row]) if row < len(values) else "NULL" for _, values, _ in TYPES]
        postgresql.run("SET DateStyle = 'ISO'", f"INSERT INTO source VALUES ({row}, {', '.join(listed)})")  # noqa: S608 - the test's own values
    first = postgresql.stage(table="source")[0][0]
    for at, (kind, _, staged) in enumerate(TYPES):
        assert staged is None or first[f"x{at}"] == staged, kind
    postgresql.load(postgresql.read("source"), into="target", mode=mode, key=["id"] if mode == "upsert" else [])
    for at, (kind, _, _) in enumerate(TYPES):
        look = f"SELECT id, x{at}::text FROM {{}} ORDER BY id"  # noqa: S608 - names of the test
        assert postgresql.run(look.format("target")) == postgresql.run(look.format("source")), kind


#: A column, a value that it would change, and one that it takes.
ROUNDED: list[tuple[str, pa.DataType, Any, Any]] = [
    ("timestamp(0)", pa.timestamp("us"), datetime(2026, 1, 1, 0, 0, 0, 1), datetime(2026, 1, 1)),  # noqa: DTZ001 - no zone is the point
    (
        "timestamptz(3)",
        pa.timestamp("us", "UTC"),
        datetime(2026, 1, 1, 0, 0, 0, 1, UTC),
        datetime(2026, 1, 1, tzinfo=UTC),
    ),
    ("time(3)", pa.time64("us"), time(1, 1, 1, 1), time(1, 1, 1, 1000)),
    ("numeric(10,2)", pa.float64(), 1.005, 1.25),
    ("numeric(10,2)", pa.float32(), 0.125, 0.1),
    ("numeric(10,2)", pa.decimal128(12, 3), Decimal("1.005"), Decimal("1.500")),
    ("numeric(10,2)", pa.string(), "1.005", "1.50"),
    ("numeric", pa.string(), "007", "NaN"),
    ("numeric(10,2)[]", pa.list_(pa.float64()), [1.005], [1.25, 0.1]),
    ("money", pa.float64(), 1.005, 1.25),
    ("money", pa.string(), "1e2", "100.00"),
    ("interval(0)", pa.string(), "1.5 s", "00:00:01"),
    ("timetz(0)", pa.string(), "10:00:00.5+02", "10:00:00+02"),
    ("priced", pa.float64(), 1.005, 1.25),
]


def test_what_a_column_would_round_is_refused(postgresql: Engine) -> None:
    """By name, with the value; what it holds exactly is loaded, with all digits of a float."""
    postgresql.run("CREATE DOMAIN priced AS numeric(10, 2)")
    for at, (declared, kind, changed, kept) in enumerate(ROUNDED):
        table = f"sales_{at}"
        postgresql.run(f"CREATE TABLE {table} (x {declared})")
        with pytest.raises(TaskFailure) as raised:
            postgresql.load(pa.table({"x": pa.array([kept, changed], kind)}), into=table, load_id=f"{at} changed")
        assert (raised.value.code, raised.value.details["column"]) == ("value_not_exact", "x"), declared
        postgresql.load(pa.table({"x": pa.array([kept, None], kind)}), into=table, load_id=f"{at} kept")
        assert postgresql.run(f"SELECT count(*), count(x) FROM {table}") == [(2, 1)], declared  # noqa: S608 - a name of ours
    postgresql.run("CREATE TABLE digits (x numeric)")
    postgresql.load(pa.table({"x": [0.1, 0.30000000000000004]}), into="digits", load_id="digits")
    assert postgresql.run("SELECT x::text FROM digits ORDER BY 1") == [("0.1",), ("0.30000000000000004",)]


@pytest.mark.parametrize(
    ("declared", "values"),
    [
        ("short", ["abcd"]), ("short", ["no"]), ("char(2)", ["abc"]), ("bit(2)", ["1"]), ("uuid", ["x"]),
        ("int[]", ["{a}"]), ("mood", ["bad"]), ("numeric(3,1)", [1e9]), ("timestamp", []),
    ],
)  # fmt: skip
def test_what_a_type_refuses_is_final(postgresql: Engine, declared: str, values: list[Any]) -> None:
    """An error of the data is not tried again, and nothing is cut to fit."""
    postgresql.run(*OWN, f"CREATE TABLE sales (x {declared})")
    kind = pa.timestamp("s") if declared == "timestamp" else None
    table = pa.table({"x": pa.array([253_402_300_800], kind) if kind else pa.array(values)})
    with pytest.raises(TaskFailure) as raised:
        postgresql.load(table)
    assert raised.value.code in {"value_refused", "value_not_exact", "constraint_violated", "date_out_of_range"}
    assert (raised.value.retryable, postgresql.run("SELECT count(*) FROM sales")) == (False, [(0,)])


def test_an_array_of_several_dimensions_is_refused_by_name(postgresql: Engine) -> None:
    """Several dimensions would become one, and another first index would become 1."""
    for array in ("{{1,2},{3,4}}", "[0:1]={1,2}"):
        with pytest.raises(TaskFailure) as raised:
            postgresql.stage(query=f"SELECT 1 AS a, '{array}'::int[] AS x")
        assert (raised.value.code, raised.value.details["column"]) == ("unsupported_type", "x")
    assert postgresql.stage(query="SELECT '{{1,2},{3,4}}'::int[]::text AS x")[0] == [{"x": "{{1,2},{3,4}}"}]


def test_numbers_and_sequences_of_the_database_are_left_to_it(postgresql: Engine) -> None:
    """An identity takes the values that are there; a generated column is computed, not loaded."""
    create = (
        "CREATE TABLE {} (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, price numeric(10, 2), "
        "twice numeric GENERATED ALWAYS AS (price * 2) STORED)"
    )
    postgresql.run(create.format("source"), create.format("target"), "INSERT INTO source (price) VALUES (1.5), (2)")
    rows = postgresql.read("source")
    postgresql.load(rows, into="target")
    postgresql.load(rows, into="target", mode="upsert", key=["id"], load_id="again")
    assert rows_of(postgresql, "target") == rows_of(postgresql, "source")


@pytest.mark.parametrize("make", [duckdb_at, sqlite_at])
def test_the_other_engines_take_no_value_beyond_the_calendar(make: Any, tmp_path: Path) -> None:
    """A dataset with such a value is refused before it is written: SQLite would keep a text about it."""
    engine = make(tmp_path / "other.db")
    with pytest.raises(TaskFailure) as raised:
        engine.load(pa.table({"x": pa.array([2**62], pa.timestamp("us"))}))
    assert raised.value.code == "date_out_of_range"


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [
        (pa.date32(), -719_162, 2_932_896),
        (pa.timestamp("s"), -62_135_596_800, 253_402_300_799),
        (pa.timestamp("us", "UTC"), -62_135_596_800_000_000, 253_402_300_799_999_999),
        (pa.time64("us"), 0, 86_399_999_999),
    ],
)
def test_the_calendar_has_its_first_and_last_moment(kind: pa.DataType, first: int, last: int) -> None:
    """Its bounds are in every unit those of the years 1 and 9999, and of a day."""

    def batch(*numbers: int | None) -> pa.RecordBatch:
        return pa.record_batch({"x": pa.array(numbers, pa.int32() if kind == pa.date32() else pa.int64()).view(kind)})

    assert within_calendar(batch(first, None, last)) == batch(first, None, last)
    assert within_calendar(batch(first - 1, last, last + 1), "null") == batch(None, last, None)
