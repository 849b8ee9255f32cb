"""Connections joined with the secrets of a worker's environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.connections.settings import load_connections
from shared.errors import TaskFailure
from worker.reach.connections import (
    HttpConnection,
    SqlConnection,
    WorkerConnections,
    scrubbed,
)

if TYPE_CHECKING:
    from pathlib import Path

FILE = """
[warehouse]
kind = "postgresql"
url_env = "WAREHOUSE_URL"
statement_timeout_s = 60
[peer]
kind = "postgresql"
url = "postgresql:///local"
[local]
kind = "sqlite"
path = "local.db"
[mart]
kind = "duckdb"
path = "mart.duckdb"
lock_timeout_s = 5
[exports]
kind = "store"
url = "exports"
[bucket]
kind = "store"
url = "memory://bucket"
storage_options_env = "BUCKET_OPTIONS"
[odd]
kind = "store"
url = "nosuch://x"
[crm]
kind = "http"
origin = "https://CRM.example.com"
headers_env = "CRM_HEADERS"
"""
URL = "postgresql://etl:s3cr3t%20@db/warehouse"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "connections.toml").write_text(FILE)
    return tmp_path


def connections(folder: Path, **environment: str) -> WorkerConnections:
    return WorkerConnections(load_connections(folder / "connections.toml"), environment)


def test_sql_connections_have_their_secrets_and_bounds(folder: Path) -> None:
    """The URL comes from the environment, at the moment of use."""
    known = connections(folder, WAREHOUSE_URL=URL)
    settings = load_connections(folder / "connections.toml")
    assert known.sql("warehouse") == SqlConnection("warehouse", settings["warehouse"], URL)  # type: ignore[arg-type]
    assert known.sql("peer") == SqlConnection("peer", settings["peer"], "postgresql:///local")  # type: ignore[arg-type]
    for name in ("local", "mart"):
        assert known.sql(name) == SqlConnection(name, settings[name])  # type: ignore[arg-type]


def test_secrets_do_not_show(folder: Path) -> None:
    """Neither the connections nor what they are made from show a secret when printed."""
    known = connections(folder, WAREHOUSE_URL=URL, CRM_HEADERS='{"Authorization": "Bearer s3cr3t"}')
    assert "s3cr3t" not in f"{known!r} {known.sql('warehouse')!r} {known.http('crm')!r}"


def test_a_password_is_scrubbed_from_texts(folder: Path) -> None:
    """Raw, decoded or within the URL, and in libpq's own notation."""
    warehouse = connections(folder, WAREHOUSE_URL=URL).sql("warehouse")
    text = f"{URL} | s3cr3t%20 | s3cr3t  | password=other"
    assert scrubbed(text, warehouse.url) == "*** | *** | *** | password=***"


@pytest.mark.parametrize(("group", "name"), [("sql", "nope"), ("sql", "crm"), ("store", "local"), ("http", "mart")])
def test_an_unknown_name_lists_the_known(folder: Path, group: str, name: str) -> None:
    """The gateway refuses such a job; a message from elsewhere meets the same check."""
    with pytest.raises(TaskFailure, match="Configured: ") as caught:
        getattr(connections(folder), group)(name)
    assert (caught.value.code, caught.value.retryable) == ("unknown_connection", False)


@pytest.mark.parametrize(
    ("group", "name", "environment", "what"),
    [
        ("sql", "warehouse", {}, "WAREHOUSE_URL is not set"),
        ("sql", "warehouse", {"WAREHOUSE_URL": "mysql://u:s3cr3t@h"}, "WAREHOUSE_URL is not a postgresql:// URL"),
        ("http", "crm", {}, "CRM_HEADERS is not set"),
        ("http", "crm", {"CRM_HEADERS": "Bearer s3cr3t"}, "CRM_HEADERS is not a JSON object"),
        ("http", "crm", {"CRM_HEADERS": '["s3cr3t"]'}, "CRM_HEADERS is not a JSON object"),
        ("http", "crm", {"CRM_HEADERS": '{"s3cr3t": 1}'}, "a header in CRM_HEADERS is not a string"),
        ("store", "odd", {}, "no file system 'nosuch'"),
    ],
)
def test_a_wrong_environment_is_named_without_its_content(
    folder: Path, group: str, name: str, environment: dict[str, str], what: str
) -> None:
    """The failure names the variable and never what is in it."""
    with pytest.raises(TaskFailure, match=what) as caught:
        getattr(connections(folder, **environment), group)(name)
    assert caught.value.code == "connection_misconfigured"
    assert "s3cr3t" not in f"{caught.value.document()} {caught.value.__cause__!r}"


def test_headers_go_to_their_own_origin_only(folder: Path) -> None:
    """Another scheme, host or port gets none."""
    crm = connections(folder, CRM_HEADERS='{"Authorization": "x"}').http("crm")
    assert crm.host == "crm.example.com"
    assert crm.headers_for("https://crm.example.com:443/a?b") == {"Authorization": "x"}
    for other in (
        "http://crm.example.com/",
        "https://crm.example.com:8443/",
        "https://crm.example.com.evil.org/",
        "https://crm.example.com@evil.org/",
        "https://evil.org/#crm.example.com",
    ):
        assert crm.headers_for(other) == {}


def test_an_origin_with_a_port() -> None:
    """The port is part of the origin."""
    local = HttpConnection("x", "http://127.0.0.1:8080", {"a": "b"})
    assert (local.covers("http://127.0.0.1:8080/x"), local.covers("http://127.0.0.1/x")) == (True, False)


def test_a_store_locates_paths_below_its_root(folder: Path) -> None:
    """A path that leaves the root is refused, through '..' or a symbolic link."""
    root = folder / "exports"
    root.mkdir()
    (folder / "outside").mkdir()
    (root / "link").symlink_to(folder / "outside")
    (root / "inside").symlink_to(root)
    store = connections(folder).store("exports")
    assert store.is_local
    assert store.locate("a/b.csv") == str(root / "a/b.csv")
    assert store.locate("inside/b.csv") == str(root / "inside/b.csv")
    for path in ("../outside/x", "a/../../x", "/etc/passwd", "link/x", "link", "a//b", "", "a\\..\\b"):
        with pytest.raises(TaskFailure) as caught:
            store.locate(path)
        assert caught.value.code == "path_outside_store"


def test_a_bucket_gets_its_options(folder: Path) -> None:
    """Options come from the environment; the root is the URL's path."""
    bucket = connections(folder, BUCKET_OPTIONS='{"skip_instance_cache": true}').store("bucket")
    assert not bucket.is_local
    assert bucket.locate("a/b.csv").endswith("bucket/a/b.csv")
