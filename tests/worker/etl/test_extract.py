"""Any source becomes one Parquet file: with its rows, where it came from, and progress on the way."""

from __future__ import annotations

import functools
import http.server
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow.parquet as pq
import pytest
import redis
from pydantic import TypeAdapter

from shared.connections.settings import HttpInfo, PostgresqlInfo, SqliteInfo, StoreInfo
from shared.errors import TaskFailure, TransientFailure
from shared.jobs.data.places import Source
from shared.ledger.ids import uuid7
from shared.storage import ArtifactStore
from worker.etl.extract import Extracted, Extractor
from worker.reach.connections import WorkerConnections
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.servers.services import Server

CSV = b"id,value\n007,1.5\n008,2.5\n"
SOURCE: TypeAdapter[Source] = TypeAdapter(Source)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """Serve a folder with ``sales.csv`` on 127.0.0.1; yield its URL."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sales.csv").write_bytes(CSV)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


class Bench:
    """An extractor with connections of its own and a note of its progress."""

    def __init__(self, folder: Path, valkey: Server, **connections: Any) -> None:
        self.progress: list[tuple[int, int | None, str]] = []
        self.store = ArtifactStore(str(folder / "artifacts"))
        self.folder = folder
        self.client = redis.Redis(port=valkey.port)
        self.connections = WorkerConnections(connections, {"KEYS": '{"X-Key": "hush"}', **self.urls(connections)})
        self.count = 0

    @staticmethod
    def urls(connections: dict[str, Any]) -> dict[str, str]:
        return {"PG": str(connections.pop("pg_url"))} if "pg_url" in connections else {}

    def extract(self, **source: Any) -> tuple[Extracted, list[dict[str, Any]]]:
        self.count += 1
        scratch = self.folder / f"scratch-{self.count}"
        scratch.mkdir()
        output = scratch / "output.parquet"
        extractor = Extractor(
            settings=WorkerSettings(
                http_allow_hosts=("127.0.0.1",), breaker_fail_max=2, memory_limit_bytes=64 * 1024**2
            ),
            connections=self.connections,
            store=self.store,
            redis_client=self.client,
            scratch=scratch,
            on_progress=lambda *now: self.progress.append(now),
        )
        return extractor.extract(SOURCE.validate_python(source), output), pq.read_table(output).to_pylist()


ROWS = [{"id": "007", "value": 1.5}, {"id": "008", "value": 2.5}]


def test_from_http(site: str, tmp_path: Path, empty_valkey: Server) -> None:
    """The file is fetched, read and typed; its URL is named without the query."""
    bench = Bench(tmp_path, empty_valkey)
    extracted, rows = bench.extract(kind="http", url=f"{site}/sales.csv?x=1")
    assert rows == ROWS
    assert (2, len(CSV), f"{site}/sales.csv") == (extracted.row_count, extracted.read_bytes, extracted.source)
    assert [(column.name, column.type) for column in extracted.columns] == [("id", "string"), ("value", "double")]
    assert (len(CSV), len(CSV), "bytes") in bench.progress


def test_a_failing_host_is_left_alone(site: str, tmp_path: Path, empty_valkey: Server) -> None:
    """After two refused connections the circuit is open; another host is not concerned."""
    bench = Bench(tmp_path, empty_valkey)
    codes = []
    for _ in range(3):
        with pytest.raises(TransientFailure) as raised:
            bench.extract(kind="http", url="http://127.0.0.1:9/x")
        codes.append(raised.value.code)
    assert codes == ["source_unreachable", "source_unreachable", "circuit_open"]
    assert bench.extract(kind="http", url=f"{site}/sales.csv")[1] == ROWS


def test_a_connection_is_for_its_own_server(site: str, tmp_path: Path, empty_valkey: Server) -> None:
    """A connection's headers cannot be sent to another server by naming it with another URL."""
    bench = Bench(tmp_path, empty_valkey, api=HttpInfo(kind="http", origin=site, headers_env="KEYS"))
    assert bench.extract(kind="http", url=f"{site}/sales.csv", connection="api")[1] == ROWS
    with pytest.raises(TaskFailure) as raised:
        bench.extract(kind="http", url="http://127.0.0.1:9/sales.csv", connection="api")
    assert raised.value.code == "connection_mismatch"


def test_from_an_artifact(tmp_path: Path, empty_valkey: Server) -> None:
    """An uploaded file is read in place and stays; a missing one is a failure."""
    bench = Bench(tmp_path, empty_valkey)
    upload = tmp_path / "upload"
    upload.write_bytes(CSV)
    artifact = bench.store.put(
        upload, file_owner=uuid7(), attempt=1, name="sales.csv", role="file", media_type="text/csv"
    )
    extracted, rows = bench.extract(kind="artifact", uri=artifact.uri)
    assert (rows, artifact.uri) == (ROWS, extracted.source)
    assert len(CSV) == bench.store.size_bytes(artifact.uri)
    bench.store.forget(artifact.uri.split("/")[2])
    with pytest.raises(TaskFailure) as raised:
        bench.extract(kind="artifact", uri=artifact.uri)
    assert raised.value.code == "artifact_missing"


def test_from_a_store(tmp_path: Path, empty_valkey: Server) -> None:
    """A file below a store's root is read; one that is not there, or outside, is a failure."""
    root = tmp_path / "exports"
    (root / "2026").mkdir(parents=True)
    (root / "2026/sales.csv").write_bytes(CSV)
    (root / "out.csv").symlink_to("/etc/hostname")
    bench = Bench(tmp_path, empty_valkey, exports=StoreInfo(kind="store", url=str(root)))
    extracted, rows = bench.extract(kind="store", connection="exports", path="2026/sales.csv")
    assert (rows, "exports:2026/sales.csv") == (ROWS, extracted.source)
    for path, code in (
        ("2026/none.csv", "source_missing"),
        ("2026", "source_missing"),
        ("out.csv", "path_outside_store"),
    ):
        with pytest.raises(TaskFailure) as raised:
            bench.extract(kind="store", connection="exports", path=path)
        assert code == raised.value.code


def test_from_sqlite(tmp_path: Path, empty_valkey: Server) -> None:
    """Rows are counted as progress, and numbers are numbers."""
    path = tmp_path / "w.db"
    with closing(sqlite3.connect(path)) as session, session:
        session.execute("CREATE TABLE sales (id TEXT, value REAL)")
        session.execute("INSERT INTO sales VALUES ('007', 1.5), ('008', 2.5)")
    bench = Bench(tmp_path, empty_valkey, shop=SqliteInfo(kind="sqlite", path=path))
    extracted, rows = bench.extract(kind="sql", connection="shop", table="sales")
    assert (rows, 0, "shop:sales") == (ROWS, extracted.read_bytes, extracted.source)
    assert (2, None, "rows") in bench.progress


def test_from_postgresql(tmp_path: Path, empty_valkey: Server, postgres_url: str) -> None:
    """A numeric becomes an exact decimal; the source is named without credentials."""
    with psycopg.connect(postgres_url) as session:
        session.execute("CREATE TABLE sales AS SELECT i AS id, i * 0.10 AS price FROM generate_series(1, 3) AS i")
    bench = Bench(
        tmp_path, empty_valkey, pg_url=postgres_url, warehouse=PostgresqlInfo(kind="postgresql", url_env="PG")
    )
    extracted, _ = bench.extract(kind="sql", connection="warehouse", query="SELECT * FROM sales")
    assert [(c.name, c.type) for c in extracted.columns] == [("id", "int32"), ("price", "decimal128(18, 2)")]
    assert (extracted.row_count, extracted.source) == (3, "warehouse:query")
