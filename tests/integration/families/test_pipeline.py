"""The whole way of a real job: HTTP source, gateway, broker, worker processes, database."""

from __future__ import annotations

import http.server
import sqlite3
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import psycopg
import pytest

from tests.support.servers.services import Server, gateway_server, http_client, valkey_server
from tests.support.servers.workers import Jobs, Worker, crew

pytestmark = pytest.mark.integration

ROWS = 50_000
CLEAN_UP: dict[str, Any] = {
    "bad_rows": "reject",
    "steps": [
        {"op": "drop_missing", "columns": ["category"]},
        {
            "op": "cast",
            "columns": {
                "date": {"type": "date"},
                "value": {"type": "float"},
                "count": {"type": "integer"},
            },
        },
        {
            "op": "aggregate",
            "group_by": ["category"],
            "measures": {
                "value": {"function": "sum", "column": "value"},
                "count": {"function": "sum", "column": "count"},
            },
        },
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pipeline")


@pytest.fixture(scope="module")
def sales(folder: Path) -> pd.DataFrame:
    """Write a CSV with dirty rows and return it as text columns."""
    random = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "date": pd.date_range("2026-01-01", periods=ROWS, freq="min").strftime("%Y-%m-%d"),
            "category": random.choice(["tools", "toys", "garden, etc."], ROWS),
            "value": random.normal(100, 20, ROWS).round(2).astype(str),
            "count": random.integers(1, 10, ROWS).astype(str),
        }
    )
    frame.loc[::97, "value"] = "n.a."
    frame.loc[::101, "date"] = "2026-02-30"
    frame.loc[::89, "category"] = None
    (folder / "served").mkdir()
    frame.to_csv(folder / "served" / "sales.csv", index=False)
    return frame


@pytest.fixture(scope="module")
def expected(sales: pd.DataFrame) -> pd.DataFrame:
    """Compute what the pipeline should load, with pandas."""
    clean = sales.dropna(subset=["category"]).assign(
        date=lambda frame: pd.to_datetime(frame["date"], format="%Y-%m-%d", errors="coerce"),
        value=lambda frame: pd.to_numeric(frame["value"], errors="coerce"),
        count=lambda frame: pd.to_numeric(frame["count"]),
    )
    return clean.dropna().groupby("category", as_index=False)[["value", "count"]].sum()


@pytest.fixture(scope="module")
def source(folder: Path, sales: pd.DataFrame) -> Iterator[str]:
    """Serve the CSV on 127.0.0.1."""
    assert len(sales) == ROWS
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def environment(folder: Path, valkey: Server, **more: str) -> dict[str, str]:
    connections = folder / "connections.toml"
    connections.write_text(
        f"""
        [files]
        kind = "sqlite"
        path = "{folder / "warehouse.db"}"

        [warehouse]
        kind = "postgresql"
        url_env = "WAREHOUSE_URL"

        [lake]
        kind = "store"
        url = "{folder / "lake"}"
        """
    )
    return {
        "CELERY_BROKER_URL": valkey.redis_url,
        "CELERIAC_STORE_URL": str(folder / "store"),
        "CELERIAC_CONNECTIONS_FILE": str(connections),
        **more,
    }


@pytest.fixture(scope="module")
def jobs(folder: Path, valkey: Server, source: str) -> Iterator[Jobs]:
    """Run a gateway and one etl worker with two children."""
    env = environment(folder, valkey)
    allowed = {"CELERIAC_HTTP_ALLOW_HOSTS": source.removeprefix("http://"), "WORKER_FAMILIES": "etl"}
    with gateway_server(folder, **env) as gateway, crew(folder, **env, **allowed) as workers:
        workers.start(concurrency=2)
        yield Jobs(gateway)


def run(jobs: Jobs, kind: str, params: dict[str, Any]) -> dict[str, Any]:
    job = jobs.ended(jobs.submit(kind, params))
    assert job["state"] == "succeeded", job["error"]
    return job


def test_a_pipeline_from_http_into_sqlite(
    jobs: Jobs, source: str, folder: Path, sales: pd.DataFrame, expected: pd.DataFrame
) -> None:
    """The loaded sums are those that pandas computes; refused rows are in an artifact, counted by reason."""
    destination = {"kind": "table", "connection": "files", "table": "sales", "mode": "replace"}
    http_source = {"kind": "http", "url": f"{source}/sales.csv"}
    job = run(jobs, "etl.run_pipeline", {"source": http_source, "transform": CLEAN_UP, "destination": destination})
    assert [(step["name"], step["state"]) for step in job["steps"]] == [
        ("extract", "succeeded"),
        ("transform", "succeeded"),
        ("load", "succeeded"),
    ]
    with sqlite3.connect(folder / "warehouse.db") as database:
        loaded = pd.read_sql("SELECT * FROM sales ORDER BY category", database)
    pd.testing.assert_frame_equal(loaded, expected, check_dtype=False)
    extracted, transformed = job["steps"][0]["result"], job["steps"][1]["result"]
    assert extracted["dataset"]["row_count"] == ROWS
    refused = sales.dropna(subset=["category"]).pipe(
        lambda frame: frame[(frame["value"] == "n.a.") | (frame["date"] == "2026-02-30")]
    )
    assert transformed["rejected"]["row_count"] == len(refused)
    artifact = transformed["rejected"]["artifact"]
    answer = http_client.get(f"{jobs.gateway.url}/jobs/{job['id']}/artifacts/{artifact['name']}?step=transform")
    (folder / "rejects.parquet").write_bytes(answer.content)
    assert len(pd.read_parquet(folder / "rejects.parquet")) == len(refused)


def test_many_parts_into_one_file(jobs: Jobs, source: str, folder: Path, expected: pd.DataFrame) -> None:
    """A chord extracts the parts in parallel, combines them, and the chain behind it loads the result."""
    parts = [{"kind": "http", "url": f"{source}/sales.csv"} for _ in range(3)]
    destination = {"kind": "file", "connection": "lake", "path": "sums/sales.parquet"}
    params = {"sources": parts, "transform": CLEAN_UP, "destination": destination}
    job = run(jobs, "etl.run_partitioned", params)
    assert [step["name"] for step in job["steps"]] == ["extract_0", "extract_1", "extract_2", "combine", "load"]
    loaded = pd.read_parquet(folder / "lake/sums/sales.parquet").sort_values("category", ignore_index=True)
    tripled = expected.assign(value=expected["value"] * 3, count=expected["count"] * 3)
    pd.testing.assert_frame_equal(loaded[tripled.columns], tripled, check_dtype=False)


def test_a_failed_part_of_a_chord_fails_the_job_with_its_reason(jobs: Jobs, source: str) -> None:
    """One part is not there: the job says which and why, and the combine is skipped."""
    parts = [{"kind": "http", "url": f"{source}/{name}.csv"} for name in ("sales", "missing")]
    job = jobs.ended(jobs.submit("etl.run_partitioned", {"sources": parts}))
    assert (job["state"], job["error"]["step"], job["error"]["code"]) == ("failed", "extract_1", "source_http_404")
    assert job["steps"][2]["state"] == "skipped"


def test_an_internal_address_is_refused_by_the_worker(jobs: Jobs, valkey: Server) -> None:
    """What is not allow-listed is not fetched, whatever listens there."""
    url = f"http://127.0.0.1:{valkey.port}/"
    job = jobs.ended(jobs.submit("etl.extract_data", {"source": {"kind": "http", "url": url}}))
    assert (job["state"], job["attempt"]) == ("failed", 1)
    assert "127.0.0.1" in job["error"]["message"]


def test_an_uploaded_file_is_a_source(jobs: Jobs) -> None:
    """What a client uploads, it extracts by the uri that it got back."""
    content = b"name,n\nada,1\ngrace,2\n"
    upload = http_client.post(f"{jobs.gateway.url}/uploads?name=people.csv", content=content).json()
    job = run(jobs, "etl.extract_data", {"source": {"kind": "artifact", "uri": upload["uri"]}})
    assert job["result"]["dataset"]["row_count"] == 2
    assert [column["name"] for column in job["result"]["dataset"]["columns"]] == ["name", "n"]


@pytest.fixture
def on_postgresql(postgres_url: str, source: str, tmp_path: Path) -> Iterator[tuple[Jobs, Worker]]:
    """Run a service of its own whose worker, and nobody else, has the warehouse's credentials."""
    secrets = {
        "WAREHOUSE_URL": postgres_url,
        "CELERIAC_HTTP_ALLOW_HOSTS": source.removeprefix("http://"),
        "WORKER_FAMILIES": "etl",
    }
    with valkey_server(tmp_path / "valkey") as valkey:
        env = environment(tmp_path, valkey)
        with gateway_server(tmp_path, **env) as gateway, crew(tmp_path, **env, **secrets) as workers:
            yield Jobs(gateway), workers.start()


def test_a_pipeline_into_postgresql_and_back(
    on_postgresql: tuple[Jobs, Worker], postgres_url: str, source: str, expected: pd.DataFrame
) -> None:
    """Into PostgreSQL over ADBC, twice under one upsert key; then extracted again from the table it made."""
    jobs, worker = on_postgresql
    destination = {"kind": "table", "connection": "warehouse", "table": "sales", "mode": "upsert", "key": ["category"]}
    http_source = {"kind": "http", "url": f"{source}/sales.csv"}
    pipeline = {"source": http_source, "transform": CLEAN_UP, "destination": destination}
    results = [run(jobs, "etl.run_pipeline", pipeline)["result"] for _ in range(2)]
    assert [(result["inserted_count"], result["updated_count"]) for result in results] == [(3, 0), (0, 3)]
    with psycopg.connect(postgres_url) as database:
        rows = database.execute("SELECT category, value, count FROM sales ORDER BY category").fetchall()
    pd.testing.assert_frame_equal(pd.DataFrame(rows, columns=expected.columns), expected, check_dtype=False)
    back = run(jobs, "etl.extract_data", {"source": {"kind": "sql", "connection": "warehouse", "table": "sales"}})
    assert back["result"]["dataset"]["row_count"] == 3
    password = str(urlsplit(postgres_url).password)
    for told in (http_client.get(f"{jobs.gateway.url}/jobs").text, http_client.get(f"{jobs.gateway.url}/metrics").text):
        assert password not in told
    assert password not in worker.log.read_text()
