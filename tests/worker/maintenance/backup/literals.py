"""Random values of every type of each engine, as literals of its SQL: extremes, and what looks like another type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

Literals = st.SearchStrategy[str]
_TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "ab  ",
            "NULL",
            "null",
            "NaN",
            "007",
            "1e3",
            "2026-01-01",
            "2026-01-01T10:00",
            "true",
            "x'00'",
            '{"a": 1}',
            "\t",
            "a\nb\r\n",
            "it's; --",
            '"',
            "\\",
            "\U0001f600",
            "\u00e9",
            "e\u0301",
            "\ufeff",
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
)
_INT64 = st.one_of(st.sampled_from([-(2**63), 2**63 - 1, 2**53 + 1, 0, 1, -1]), st.integers(-(2**63), 2**63 - 1))


def quoted(text: str) -> str:
    """Return a text as a literal."""
    return "'" + text.replace("'", "''") + "'"


def among(*texts: str) -> Literals:
    """Return literals of these texts."""
    return st.sampled_from([quoted(text) for text in texts])


def integers(bits: int, *, signed: bool = True) -> Literals:
    """Return literals of integers of `bits` bits."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.one_of(st.sampled_from([low, high, 0]), st.integers(low, high)).map(lambda number: quoted(str(number)))


def floats(width: int) -> Literals:
    """Return literals of floats of `width` bits."""
    extremes = ["NaN", "Infinity", "-Infinity", "-0", "0.1", "5e-324" if width == 64 else "1e-45"]
    finite = st.floats(allow_nan=False, allow_infinity=False, width=width)  # type: ignore[arg-type]
    return st.one_of(st.sampled_from(extremes), finite.map(repr)).map(quoted)


def decimals(whole: int, scale: int) -> Literals:
    """Return literals of decimals with `whole` digits before the point and `scale` behind it."""
    number = st.integers(-(10 ** (whole + scale)) + 1, 10 ** (whole + scale) - 1)
    return number.map(lambda n: quoted(f"{'-' if n < 0 else ''}{abs(n) // 10**scale}.{abs(n) % 10**scale:0{scale}}"))


def bytes_as(spell: Callable[[bytes], str]) -> Literals:
    return st.binary(max_size=6).map(spell)


def moments(fraction: int, suffix: str = "", years: tuple[int, int] = (1, 9999)) -> Literals:
    """Return literals of dates with times, with `fraction` digits behind the second."""

    def spell(year: int, day: int, micros: int) -> str:
        second = micros // 10**6 % 86_400
        text = (
            f"{year:04}-{1 + day % 12:02}-{1 + day % 28:02} {second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
        )
        return quoted(f"{text}.{micros % 10**6:06}"[: len(text) + 1 + fraction].rstrip(".") + suffix)

    edges = [(years[0], 0, 0), (years[1], 11 + 12 * 28, 86_399_999_999), (1970, 0, 0), (1969, 23, 86_399_999_999)]
    drawn = st.tuples(st.integers(*years), st.integers(0, 10_000), st.integers(0, 10**11))
    return st.one_of(st.sampled_from(edges), drawn).map(lambda parts: spell(*parts))


def days() -> Literals:
    """Return literals of dates."""
    return st.dates().map(lambda day: quoted(day.isoformat()))


POSTGRESQL: dict[str, Literals] = {
    "boolean": among("t", "f"),
    "smallint": integers(16),
    "integer": integers(32),
    "bigint": integers(64),
    "real": floats(32),
    "double precision": floats(64),
    "numeric": st.one_of(
        decimals(20, 7), decimals(45, 3), among("NaN", "Infinity", "-Infinity", "0", "1.50", "1e-30", "1e40")
    ),
    "numeric(12,3)": st.one_of(decimals(9, 3), among("NaN")),
    "numeric(50,10)": decimals(40, 10),
    "money": st.one_of(among("-92233720368547758.08", "92233720368547758.07", "0.01"), decimals(12, 2)),
    "text": _TEXTS.map(quoted),
    "varchar(20)": _TEXTS.map(lambda text: quoted(text[:20])),
    "char(12)": _TEXTS.map(lambda text: quoted(text[:12])),
    '"char"': among("a", "", "z"),
    "name": among("a", "orders"),
    "bytea": bytes_as(lambda value: f"'\\x{value.hex()}'"),
    "date": st.one_of(days(), among("infinity", "-infinity", "0044-03-15 BC", "20260-01-01")),
    "time": moments(6).map(lambda text: f"{text}::timestamp::time"),
    "time(0)": among("23:59:59", "24:00:00"),
    "timetz": among("10:00:00.25+02", "23:59:59.999999-12:30", "24:00:00+00"),
    "timestamp": st.one_of(moments(6), among("infinity", "-infinity", "4713-01-01 BC", "294276-12-31 23:59:59.999999")),
    "timestamp(3)": moments(3),
    "timestamptz": st.one_of(moments(6, "+00", (2, 9998)), moments(6, "-09:30", (2, 9998)), among("infinity")),
    "timestamptz(0)": moments(0, "+00"),
    "interval": among(
        "1 mon -3 days 04:05:06.789",
        "-00:00:00.000001",
        "0",
        "178000000 years",
        "1 year 2 mons",
        "-1 mons +1 days",
        "36 hours",
    ),
    "interval(2)": among("1.25 s", "3 days"),
    "interval year to month": among("14 mons"),
    "uuid": st.uuids().map(lambda one: quoted(str(one))),
    "inet": st.one_of(st.ip_addresses().map(lambda one: quoted(str(one))), among("10.1.2.3/8", "::1/64", "0.0.0.0/0")),
    "cidr": among("10.0.0.0/8", "::/0"),
    "macaddr": among("08:00:2b:01:02:03"),
    "macaddr8": among("08:00:2b:01:02:03:04:05"),
    "bit(5)": among("10101", "00000"),
    "varbit": among("", "1", "1010101010"),
    "json": among('{"b":1,  "a": [1, null]}', "null", '"x"', "1.50", '{"a":1,"a":2}'),
    "jsonb": among('{"b":1,  "a": [1, null]}', "null", '"\\u00e9"', "1.50", "[]", "12345678901234567890123.5"),
    "xml": among("<a>1</a>", ""),
    "point": among("(1.1,2)", "(NaN,Infinity)"),
    "box": among("(3,4),(1,2)"),
    "polygon": among("((0,0),(0,1),(1,1))"),
    "circle": among("<(0.1,0),5>"),
    "lseg": among("[(0,0),(1,1)]"),
    "line": among("{1,2,3}"),
    "int4range": among("[1,5)", "empty", "(,)"),
    "numrange": among("(1.10,)", "[1,1]"),
    "daterange": among("[2026-02-01,infinity)"),
    "tsrange": among("[2026-01-01,2026-01-02)", "(,infinity]"),
    "tstzrange": among("[2026-01-01 00:00:00+02,)"),
    "int8multirange": among("{[1,2),[3,4)}", "{}"),
    "tsvector": among("'a':1 'b':2", ""),
    "tsquery": among("'a' & 'b'"),
    "pg_lsn": among("16/B374D848"),
    "oid": among("0", "4294967295"),
    "regclass": among("pg_class"),
    "integer[]": among("{1,NULL,-5}", "{}", "{{1,2},{3,4}}", "[0:1]={1,2}"),
    "boolean[]": among("{t,f,NULL}"),
    "text[]": among('{a,"b c",NULL,"NULL",""}', '{"it\'\'s","\\"q\\"","\\\\"}'),
    "real[]": among("{0.1,NaN,Infinity}"),
    "double precision[]": among("{0.1,-0,5e-324}", "{NULL}"),
    "numeric[]": among("{1.50,NaN,1e40}"),
    "numeric(10,2)[]": among("{1.50,NULL}"),
    "uuid[]": among("{6f9619ff-8b86-d011-b42d-00cf4fc964ff}"),
    "timestamp[]": among("{infinity,2026-01-01,NULL}"),
    "date[]": among("{2026-01-01,-infinity}"),
    "bytea[]": among('{"\\\\x00ff",NULL}'),
    "money[]": among("{1.50}"),
    "jsonb[]": among('{"{\\"a\\": 1}",NULL}'),
    "interval[]": among('{"1 day",NULL}'),
    "inet[]": among("{10.0.0.1}"),
    "char(3)[]": among("{ab,NULL}"),
    "varchar(3)[]": among('{"a ",NULL}'),
    "mood": among("ok", "it's"),
    "mood[]": among("{ok,NULL}"),
    "short": among("abc", ""),
    "whole": integers(32),
    "priced": among("1.25", "0.10"),
    "pair": among('(1,"a b")', "(,)", '(2,"")'),
    "named": among("2026-01-01", "infinity"),
}
OWN = (
    "CREATE TYPE mood AS ENUM ('ok', 'it''s')",
    "CREATE DOMAIN short AS varchar(3) CHECK (value <> 'no')",
    "CREATE DOMAIN whole AS int",
    "CREATE DOMAIN priced AS numeric(10, 2)",
    "CREATE TYPE pair AS (a int, b text)",
    "CREATE DOMAIN named AS date",
)
_ANY: Literals = st.one_of(
    _INT64.map(str),
    st.floats(allow_nan=False).map(lambda x: {"inf": "9e999", "-inf": "-9e999"}.get(repr(x), repr(x))),
    _TEXTS.map(quoted),
    bytes_as(lambda value: f"x'{value.hex()}'"),
)
_NUMBERS: Literals = st.one_of(_INT64.map(str), st.sampled_from(["1.5", "-0.0", "9e999", "1e300", "0.1", "3.0"]))
_TIMES: Literals = st.one_of(
    moments(6), moments(0), days(), among("2026-01-01T10:00:00Z", "2026-01-01 10:00", "12:30", "", "soon", "20260101")
)
SQLITE: dict[str, Literals] = {
    "INTEGER": _INT64.map(str),
    "BIGINT": _NUMBERS,
    "TEXT": _TEXTS.map(quoted),
    "VARCHAR(5)": _ANY,
    "CLOB": _TEXTS.map(quoted),
    "REAL": _NUMBERS,
    "DOUBLE PRECISION": _NUMBERS,
    "NUMERIC": _NUMBERS,
    "DECIMAL(10,2)": _NUMBERS,
    "BLOB": bytes_as(lambda value: f"x'{value.hex()}'"),
    "": _ANY,
    "blob": _NUMBERS,
    "JSON": _TEXTS.map(quoted),
    "BOOLEAN": st.sampled_from(["0", "1"]),
    "BOOL": _NUMBERS,
    "DATE": _TIMES,
    "TIMESTAMP": _TIMES,
    "DATETIME": _TIMES,
    "TIME": _TIMES,
    "TIMESTAMPTZ": _TIMES,
    "TIMESTAMP TEXT": _TIMES,
    "DATE BLOB": st.one_of(_TIMES, _INT64.map(str)),
    "INT": _ANY,
    "ANY": _ANY,
}
DUCKDB: dict[str, Literals] = {
    "BOOLEAN": among("t", "f"),
    "TINYINT": integers(8),
    "SMALLINT": integers(16),
    "INTEGER": integers(32),
    "BIGINT": integers(64),
    "HUGEINT": integers(128),
    "UTINYINT": integers(8, signed=False),
    "USMALLINT": integers(16, signed=False),
    "UINTEGER": integers(32, signed=False),
    "UBIGINT": integers(64, signed=False),
    "UHUGEINT": integers(128, signed=False),
    "FLOAT": floats(32),
    "DOUBLE": floats(64),
    "DECIMAL(4,1)": decimals(3, 1),
    "DECIMAL(38,10)": decimals(28, 10),
    "DECIMAL(38,0)": integers(120),
    "VARCHAR": _TEXTS.map(quoted),
    "BLOB": bytes_as(lambda value: "'" + "".join(f"\\x{one:02X}" for one in value) + "'"),
    "BIT": among("10101", "0"),
    "DATE": st.one_of(days(), among("infinity", "0044-03-15 (BC)")),
    "TIME": among("00:00:00", "23:59:59.999999", "24:00:00"),
    "TIMETZ": among("10:00:00.25+02", "23:59:59-12:30"),
    "TIMESTAMP": st.one_of(moments(6), among("infinity", "-infinity", "294246-01-01")),
    "TIMESTAMP_S": moments(0),
    "TIMESTAMP_MS": moments(3),
    "TIMESTAMP_NS": among("2026-01-01 00:00:00.123456789", "1677-09-22"),
    "TIMESTAMPTZ": moments(6, "+00"),
    "INTERVAL": among("1 month -3 days 04:05:06.789", "0 seconds", "-1 microsecond"),
    "UUID": st.uuids().map(lambda one: quoted(str(one))),
    "ENUM('ok', 'it''s')": among("ok", "it's"),
    "JSON": among('{"b":1,  "a": 2}', "null", "1.50"),
    "INTEGER[]": among("[1, NULL]", "[]"),
    "VARCHAR[]": among("[a, NULL, '']", "[]"),
    "INTEGER[2]": among("[1, NULL]"),
    "DECIMAL(10,2)[]": among("[1.50]"),
    "TIMESTAMP[]": among("[2026-01-01 00:00:00, infinity]", "[]"),
    "INTEGER[][]": among("[[1], [], NULL]"),
    "UUID[]": among("[6f9619ff-8b86-d011-b42d-00cf4fc964ff]"),
    "STRUCT(a INTEGER, b VARCHAR)": among("{'a': 1, 'b': x}", "{'a': NULL, 'b': NULL}"),
    "MAP(VARCHAR, INTEGER)": among("{a=1, b=NULL}", "{}"),
    "UNION(n INTEGER, s VARCHAR)": st.sampled_from(
        ["1::UNION(n INTEGER, s VARCHAR)", "'x'::VARCHAR::UNION(n INTEGER, s VARCHAR)"]
    ),
    "BIGNUM": among("12345678901234567890123456789012345678901234567890", "-1"),
}
TYPES = {"postgresql": POSTGRESQL, "sqlite": SQLITE, "duckdb": DUCKDB}
