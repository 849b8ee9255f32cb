"""A client's SQL: what it can do, and that it reaches nothing but its views. Two walls, each tested alone."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import pytest

from shared.errors import TaskFailure
from tests.support.transforming import MIB, run
from worker.etl.sandbox import checked
from worker.etl.unite import define_united
from worker.tables.duck.engine import Engine, locked_engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FRAME = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "x"]})


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT b, sum(a) AS a FROM input GROUP BY b ORDER BY b", [{"b": "x", "a": 4}, {"b": "y", "a": 2}]),
        ("select count(*) as n from INPUT; -- done", [{"n": 3}]),
        ("FROM input SELECT a WHERE a > 2", [{"a": 3}]),
        ("WITH big AS (SELECT * FROM input WHERE a > 1), two AS (FROM big) SELECT min(a) AS a FROM two", [{"a": 2}]),
        ("WITH input AS (SELECT 9 AS a) SELECT * FROM input", [{"a": 9}]),
        (
            "WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM r WHERE x < 3) SELECT max(x) AS x FROM r",
            [{"x": 3}],
        ),
        ("SELECT i.a, o.label FROM input i JOIN other o USING (a) ORDER BY a", [{"a": 1, "label": "one"}]),
        ("SELECT a FROM input WHERE a = (SELECT max(a) FROM input)", [{"a": 3}]),
        ("SELECT sum(x) AS x FROM (VALUES (1), (2)) v(x)", [{"x": 3}]),
        ("SELECT x FROM unnest([4, 5]) u(x) ORDER BY x", [{"x": 4}, {"x": 5}]),
        ("SELECT a, row_number() OVER (ORDER BY a DESC) AS r FROM input QUALIFY r = 1", [{"a": 3, "r": 1}]),
        ("SELECT * FROM input PIVOT (sum(a) FOR b IN ('x', 'y'))", [{"x": 4, "y": 2}]),
        ("SELECT list_sum([v * 2 for v in list(a)]) AS s FROM input", [{"s": 12}]),
        ("SELECT TRY_CAST(b AS INTEGER) AS n FROM input LIMIT 1", [{"n": None}]),
        ("SELECT 'FROM read_csv(''/etc/passwd'')' AS text", [{"text": "FROM read_csv('/etc/passwd')"}]),
    ],
)
def test_one_select_over_the_views(tmp_path: Path, sql: str, expected: list[dict[str, Any]]) -> None:
    """A SELECT of DuckDB's dialect computes what it says, over the dataset and the other inputs."""
    other = pd.DataFrame({"a": [1], "label": ["one"]})
    assert run(tmp_path, FRAME, {"sql": sql}, inputs={"other": other}).records == expected


REACHING = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('{dataset}')",
    "SELECT * FROM read_parquet('{dataset}')",
    "SELECT * FROM read_json('/proc/self/environ')",
    "SELECT * FROM parquet_metadata('{dataset}')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM glob('/etc/*')",
    "FROM '/etc/passwd'",
    "FROM '{neighbour}'",
    'FROM "{dataset}"',
    "SELECT * FROM 'http://127.0.0.1:{port}/a.parquet'",
    "SELECT * FROM read_csv('http://127.0.0.1:{port}/a.csv')",
    "FROM query('SELECT 1')",
    "FROM query_table('input')",
    "FROM duckdb_secrets()",
    "FROM duckdb_settings()",
    "FROM duckdb_views()",
    "FROM duckdb_views",
    "FROM pg_catalog.pg_class",
    "FROM information_schema.tables",
    "FROM sqlite_master",
    "FROM main.input",
    "FROM json_execute_serialized_sql('{{}}')",
    "SELECT getenv('HOME')",
    "SELECT current_setting('temp_directory')",
    "SELECT system.main.current_setting('temp_directory')",
    "SELECT 'temp_directory'.current_setting()",
    "SELECT list_transform(['temp_directory'], x -> current_setting(x))",
    "SELECT current_query()",
    "SELECT current_query",
    "SELECT pg_get_viewdef('input')",
    "SELECT json_serialize_plan('SELECT 1')",
    "SELECT sleep_ms(1000)",
    "SELECT write_log('x')",
    "SELECT nextval('x')",
    "SELECT $1",
    "SELECT ?",
    "FROM FRAME",
    # hidden in each corner of a query
    "SELECT a FROM input WHERE b IN (SELECT content FROM read_text('/etc/passwd'))",
    "SELECT (SELECT count(*) FROM glob('/etc/*'))",
    "SELECT a FROM input ORDER BY (SELECT count(*) FROM glob('/etc/*'))",
    "SELECT a FROM input LIMIT (SELECT count(*) FROM glob('/etc/*'))",
    "SELECT sum(a) FILTER (WHERE (SELECT count(*) FROM glob('/etc/*')) > 1) FROM input",
    "SELECT sum(a) OVER (ORDER BY (SELECT count(*) FROM glob('/etc/*'))) FROM input",
    "SELECT b FROM input GROUP BY b HAVING (SELECT count(*) FROM glob('/etc/*')) > 0",
    "VALUES ((SELECT count(*) FROM glob('/etc/*')))",
    "SELECT * FROM input JOIN read_text('/etc/passwd') ON true",
    "SELECT * FROM input, LATERAL (SELECT * FROM read_text('/etc/passwd'))",
    "SELECT * FROM unnest((SELECT list(file) FROM glob('/etc/*')))",
    "SELECT * FROM range((SELECT count(*)::INT FROM glob('/etc/*')))",
    "SELECT * REPLACE ((SELECT count(*) FROM glob('/etc/*')) AS a) FROM input",
    "SELECT CASE WHEN true THEN (SELECT count(*) FROM glob('/etc/*')) END",
    "SELECT {{'a': (SELECT count(*) FROM glob('/etc/*'))}}",
    "SELECT [x FOR x IN (SELECT list(file) FROM glob('/etc/*'))]",
    "SELECT a FROM input UNION SELECT count(*) FROM glob('/etc/*')",
    "WITH r AS MATERIALIZED (FROM glob('/etc/*')) SELECT 1",
    "WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM r, glob('/etc/*') WHERE x < 3) FROM r",
    # a name of a common table expression where it does not hold
    "WITH duckdb_views AS (SELECT * FROM duckdb_views) SELECT * FROM duckdb_views",
    "WITH a AS (SELECT * FROM duckdb_views), duckdb_views AS (SELECT 1) SELECT * FROM a",
    "SELECT * FROM (WITH pg_class AS (SELECT 1 AS x) SELECT x FROM pg_class), pg_class",
]
CHANGING = [
    "COPY input TO '{neighbour}'",
    "COPY (SELECT 1) TO '{folder}/new.csv'",
    "EXPORT DATABASE '{folder}/export'",
    "IMPORT DATABASE '{folder}'",
    "ATTACH '{folder}/new.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{folder}/x.so'",
    "SET threads = 4",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "CALL enable_logging()",
    "CREATE TABLE t AS SELECT 1",
    "CREATE SECRET s (TYPE http)",
    "CREATE MACRO m() AS 1",
    "DROP VIEW input",
    "SET VARIABLE x = 1",
    "USE memory",
    "CHECKPOINT",
    "VACUUM",
    "BEGIN",
    "EXPLAIN SELECT 1",
    "DESCRIBE input",
    "SHOW TABLES",
    "PIVOT input ON b USING sum(a)",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP VIEW input",
    "SELECT 1) TO '{folder}/new.csv' --",
    "SELECT 1 /*",
    "",
    ";",
    "-- nothing",
    "WITH a AS (INSERT INTO input VALUES (1, 'x') RETURNING *) SELECT * FROM a",
    "WITH a AS (UPDATE input SET a = 1 RETURNING *) SELECT * FROM a",
    "WITH a AS (DELETE FROM input) SELECT 1",
    "WITH a AS (COPY (SELECT 1) TO '{folder}/new.csv') SELECT * FROM a",
    "SELECT " + "(" * 3_000 + "1" + ")" * 3_000,
    "SELECT " + "[" * 3_000 + "]" * 3_000,
    "SELECT * FROM " + "(SELECT * FROM " * 1_000 + "input" + ")" * 1_000,
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return paths for hostile SQL to name: a dataset, a neighbour with a secret, a folder, a port nobody asked for."""
    folder = tmp_path_factory.mktemp("sql")
    dataset, neighbour = folder / "dataset.parquet", folder / "neighbour.parquet"
    FRAME.to_parquet(dataset, index=False)
    pd.DataFrame({"secret": ["s3cr3t"]}).to_parquet(neighbour, index=False)
    return {"folder": folder, "dataset": dataset, "neighbour": neighbour}


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Yield a server socket that must not be called."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, place: dict[str, Any]) -> Iterator[Engine]:
    """Yield an engine that may read the dataset."""
    scratch = tmp_path_factory.mktemp("scratch")
    with locked_engine(
        readable={place["dataset"]: "dataset 1"},
        writable=[scratch / "out.parquet"],
        scratch=scratch,
        memory_limit_bytes=64 * MIB,
        threads=1,
        row_bytes=100,
        on_fraction=lambda _: None,
    ) as locked:
        define_united("input", [place["dataset"]], locked)
        yield locked


@pytest.mark.parametrize("sql", [*REACHING, *CHANGING], ids=lambda sql: sql[:40])
def test_other_sql_is_refused_before_it_runs(
    engine: Engine, place: dict[str, Any], listening: socket.socket, sql: str
) -> None:
    """The first wall: what is not one SELECT over the views does not reach the engine, and leaves no trace."""
    before = place["neighbour"].read_bytes()
    hostile = sql.format(**place, port=listening.getsockname()[1]) if len(sql) < 1_000 else sql
    with pytest.raises(TaskFailure) as failed:
        checked(hostile, ["input"], engine)
    assert failed.value.code == "invalid_sql"
    assert "s3cr3t" not in str(failed.value.document())
    assert sorted(path.name for path in place["folder"].iterdir()) == ["dataset.parquet", "neighbour.parquet"]
    assert place["neighbour"].read_bytes() == before
    with pytest.raises(BlockingIOError):
        listening.accept()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_text('/proc/self/environ')",
        "SELECT * FROM read_blob('{neighbour}')",
        "SELECT * FROM read_parquet('{folder}/*.parquet')",
        "SELECT * FROM read_parquet('{folder}/../{folder.name}/neighbour.parquet')",
        "SELECT * FROM parquet_metadata('{neighbour}')",
        "SELECT * FROM glob('{folder}/*')",
        "FROM '{neighbour}'",
        "SELECT * FROM read_csv('http://127.0.0.1:{port}/a.csv')",
        "COPY (SELECT 1) TO '{folder}/new.csv'",
        "WITH a AS (COPY (SELECT 1) TO '{folder}/new.csv') SELECT * FROM a",
        "EXPORT DATABASE '{folder}/export'",
        "ATTACH '{folder}/new.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "LOAD '{folder}/x.so'",
        "SET threads = 4",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "RESET lock_configuration",
        "PRAGMA enable_profiling = 'json'",
        "FROM duckdb_secrets()",
        "CREATE PERSISTENT SECRET s (TYPE http)",
        "SELECT getenv('HOME')",
        "FROM FRAME",
    ],
)
def test_the_engine_itself_reaches_nothing_else(
    engine: Engine, place: dict[str, Any], listening: socket.socket, sql: str
) -> None:
    """The second wall: even unchecked, SQL gets at no other file, no network, no extension, no setting, no variable."""
    with pytest.raises((TaskFailure, duckdb.Error)) as failed:
        engine.rows(sql.format(**place, port=listening.getsockname()[1]))
    assert "s3cr3t" not in str(failed.value)
    assert sorted(path.name for path in place["folder"].iterdir()) == ["dataset.parquet", "neighbour.parquet"]
    with pytest.raises(BlockingIOError):
        listening.accept()


def test_failures_do_not_tell_paths(tmp_path: Path) -> None:
    """Messages of the engine name datasets by their number, not by the worker's paths."""
    for sql in (
        "SELECT nothing FROM input",
        "SELECT CAST(b AS INTEGER) AS n FROM input",
        "SELECT error(b) AS e FROM input",
    ):
        folder = tmp_path / str(len(sql))
        with pytest.raises(TaskFailure) as failed:
            run(folder, FRAME, {"sql": sql})
        assert str(tmp_path) not in str(failed.value.document())


def test_a_conversion_that_fails_is_a_typed_failure(tmp_path: Path) -> None:
    """A CAST that cannot be done fails with what to write instead."""
    with pytest.raises(TaskFailure, match="Could not convert string 'x'") as failed:
        run(tmp_path, FRAME, {"sql": "SELECT CAST(b AS INTEGER) AS n FROM input"})
    assert (failed.value.code, "TRY_CAST" in failed.value.remedy) == ("value_out_of_range", True)


def test_integers_of_128_bits_are_written_exactly_or_not_at_all(tmp_path: Path) -> None:
    """DuckDB would write them to Parquet as rounded floats."""
    frame = pd.DataFrame({"a": [2**60, 3]})
    assert run(tmp_path / "1", frame, {"sql": "SELECT sum(a) AS s FROM input"}).records == [{"s": 2**60 + 3}]
    with pytest.raises(TaskFailure) as failed:
        run(tmp_path / "2", frame, {"sql": "SELECT sum(a) * 1000 AS s FROM input"})
    assert failed.value.code == "value_out_of_range"


def test_the_view_of_the_result_is_not_in_the_way(tmp_path: Path) -> None:
    """An input may have any name, that of our own view included."""
    outcome = run(tmp_path, FRAME, {"sql": "SELECT count(*) AS n FROM result"}, inputs={"result": FRAME})
    assert outcome.records == [{"n": 3}]
