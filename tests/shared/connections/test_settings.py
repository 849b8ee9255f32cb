"""The file that names connections, and how contracts are checked against it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, ConfigDict

from shared.connections.settings import (
    ConnectionProblem,
    PostgresqlInfo,
    SqliteInfo,
    StoreInfo,
    check_connections,
    load_connections,
    names_of,
)
from shared.contract.names import SqlConnectionName, StoreConnectionName
from shared.errors import DefinitionError
from shared.jobs.etl import LoadSpec, RunPartitioned

if TYPE_CHECKING:
    from shared.connections.settings import Connections

EXAMPLE = Path(__file__).parents[3] / "examples" / "connections.toml"


@pytest.fixture
def known() -> Connections:
    return load_connections(EXAMPLE)


def written(folder: Path, text: str) -> Path:
    path = folder / "connections.toml"
    path.write_text(text)
    return path


def test_the_example_names_every_kind(known: Connections) -> None:
    """The committed example is valid and shows all kinds."""
    assert {info.kind for info in known.values()} == {"postgresql", "sqlite", "duckdb", "store", "http"}
    assert names_of(known, "sql") == ["local", "mart", "warehouse"]


def test_relative_paths_begin_at_the_files_folder(known: Connections) -> None:
    """Where a process was started from makes no difference; URLs stay."""
    assert known["local"] == SqliteInfo(kind="sqlite", path=EXAMPLE.parent / "local.db")
    assert isinstance(known["exports"], StoreInfo)
    assert isinstance(known["lake"], StoreInfo)
    assert (known["exports"].url, known["lake"].url) == (str(EXAMPLE.parent / "exports"), "s3://acme-lake/celeriac")


def test_without_a_file_there_is_not_a_connection() -> None:
    """A gateway without the setting knows none."""
    assert load_connections(None) == {}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[w]\nkind = 'oracle'", "w: .*'postgresql'"),
        ("[w]\npath = 'x'", "w: .*'kind'"),
        ("[w]\nkind = 'sqlite'\npath = 'x'\npassword = 's3cr3t'", "w.password: Extra inputs"),
        ("[w]\nkind = 'postgresql'", "give either 'url_env' or 'url'"),
        ("[w]\nkind = 'postgresql'\nurl = 'postgresql://u:s3cr3t@h/d'", "'url': it contains credentials"),
        ("[w]\nkind = 'postgresql'\nurl = 'postgresql://h/d?password=s3cr3t'", "'url': it contains credentials"),
        ("[w]\nkind = 'postgresql'\nurl = 'mysql://h/d'", "must begin with postgresql://"),
        ("[w]\nkind = 'postgresql'\nurl_env = 'postgresql://u:s3cr3t@h/d'", "w.url_env: String should match"),
        ("[w]\nkind = 'store'\nurl = 'ftp://u:s3cr3t@h/d'", "'url': it contains credentials"),
        ("[w]\nkind = 'http'\norigin = 'https://u:s3cr3t@h'", "scheme, host and port only"),
        ("[w]\nkind = 'http'\norigin = 'https://h/path?token=s3cr3t'", "scheme, host and port only"),
        ("[w]\nkind = 'http'\norigin = 's3cr3t'", "absolute http"),
        ("[w]\nkind = 'sqlite'\npath = 'x'\nlock_timeout_s = 0", "w.lock_timeout_s: Input should be greater"),
        ("['W W']\nkind = 'sqlite'\npath = 'x'", "W W: .*it must be 1 to 63 lower-case letters"),
        ("[w\nurl = 's3cr3t'", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_a_hint_and_without_its_values(tmp_path: Path, text: str, hint: str) -> None:
    """The text names the connection and the field; a password in the wrong place is not repeated."""
    with pytest.raises(DefinitionError, match=hint) as caught:
        load_connections(written(tmp_path, text))
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "examples/connections.toml" in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The hint names the variable that names the file."""
    with pytest.raises(DefinitionError, match=r"CELERIAC_CONNECTIONS_FILE: .*No such file"):
        load_connections(tmp_path / "nowhere.toml")


def test_a_url_without_a_password_may_stand_in_the_file(tmp_path: Path) -> None:
    """Peer and certificate login need no secret."""
    url = "postgresql://etl@db.internal/warehouse"
    known = load_connections(written(tmp_path, f"[w]\nkind = 'postgresql'\nurl = '{url}'"))
    assert known == {"w": PostgresqlInfo(kind="postgresql", url=url)}


def test_unknown_and_wrong_connections_of_a_workflow_are_all_found(known: Connections) -> None:
    """Each problem has the path of its field and the names that would do."""
    job = RunPartitioned.model_validate(
        {
            "sources": [
                {"kind": "http", "url": "https://example.com/a.csv"},
                {"kind": "http", "url": "https://example.com/a.csv", "connection": "warehouse"},
                {"kind": "sql", "connection": "nowhere", "table": "t"},
                {"kind": "store", "connection": "exports", "path": "a.csv"},
            ],
            "destination": {"kind": "table", "connection": "exports", "table": "t"},
        }
    )
    assert check_connections(job, known) == [
        ConnectionProblem(
            ("sources", 1, "connection"),
            "The connection 'warehouse' is of kind 'postgresql', but an HTTP connection is needed here. "
            "Configured: crm.",
        ),
        ConnectionProblem(
            ("sources", 2, "connection"),
            "The connection 'nowhere' is not configured. Configured: local, mart, warehouse.",
        ),
        ConnectionProblem(
            ("destination", "connection"),
            "The connection 'exports' is of kind 'store', but a SQL connection is needed here. "
            "Configured: local, mart, warehouse.",
        ),
    ]


def test_known_connections_are_accepted(known: Connections) -> None:
    """A contract that names only what there is passes."""
    spec = LoadSpec.model_validate({"destination": {"kind": "file", "connection": "lake", "path": "x.parquet"}})
    assert check_connections(spec, known) == []


class Nested(BaseModel):
    """A team's own contract may name connections in lists, mappings and optional fields."""

    model_config = ConfigDict(frozen=True)

    several: list[SqlConnectionName] = []
    by_name: dict[str, StoreConnectionName] = {}
    maybe: SqlConnectionName | None = None


def test_connections_in_lists_mappings_and_optional_fields_are_found(known: Connections) -> None:
    """Wherever the marker stands in a field's type, the names are checked."""
    job = Nested(several=["local", "a"], by_name={"x": "b"}, maybe="c")
    assert [problem.path for problem in check_connections(job, known)] == [
        ("several", 1),
        ("by_name", "x"),
        ("maybe",),
    ]


class Tree(BaseModel):
    """A model that contains itself, below fields of several shapes."""

    name: str = ""
    table: SqlConnectionName | None = None
    below: dict[str, list[Tree]] = {}
    anything: Any = None


def test_connections_in_models_inside_of_models_are_found(known: Connections) -> None:
    """Whatever is between them: a contract may have models in itself, in mappings and where any value is allowed."""
    job = Tree(below={"x": [Tree(), Tree(table="a", below={"y": [Tree(table="b")]})]}, anything=(Tree(table="c"),))
    assert [problem.path for problem in check_connections(job, known)] == [
        ("below", "x", 1, "table"),
        ("below", "x", 1, "below", "y", 0, "table"),
        ("anything", 0, "table"),
    ]
