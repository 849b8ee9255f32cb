"""Connections of a team's own kind: a package that is installed declares one, a job names it, a body gets it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import BaseModel, SecretStr, field_validator

from shared.connections.settings import check_connections, load_connections
from shared.contract import names
from shared.contract.installed import CONNECTIONS, KINDS, TASKS, connection_kinds
from shared.errors import DefinitionError, TaskFailure
from tests.support.servers.services import Server, gateway_server, http_client
from tests.support.servers.workers import Jobs, crew
from worker.runtime.bodies.connections import own_connection

SECRET = "t0p-of-the-shop"  # noqa: S105 - what must not be seen
PACKAGE = {
    "connections.py": """
from pydantic import BaseModel, Field, SecretStr


class PrintShop(BaseModel):
    '''A print shop.'''

    url: str = Field(description="Its address.")
    pages: int = Field(default=10, ge=1, description="Most pages of an order.")
    token: SecretStr = Field(description="Who we are.")
""",
    "contracts.py": """
from typing import Annotated

from celeriac import ConnectionName, Contract, Limits, connection
from pydantic import BaseModel, Field


class Signed(BaseModel):
    '''What was seen of a shop.'''

    url: str = Field(description="Its address.")
    token_length: int = Field(description="Characters of its token.")
    shown: str = Field(description="How the settings are printed.")


class AskShop(
    Contract[Signed], kind="printing.ask_shop", limits=Limits(soft_s=20, hard_s=30), examples=[{"shop": "corner"}]
):
    '''Ask a shop.'''

    shop: Annotated[ConnectionName, connection("print_shop")] = Field(description="Which.")
    of_another_class: bool = Field(default=False, description="Whether the task asks for the wrong class.")
""",
    "tasks.py": """
from celeriac import Run
from pydantic import BaseModel

from printing.connections import PrintShop
from printing.contracts import AskShop, Signed


class Other(BaseModel):
    '''Settings of something else.'''


@AskShop.task
def ask_shop(job: AskShop, run: Run) -> Signed:
    '''Say what is known of the shop.'''
    if job.of_another_class:
        run.connection(job.shop, Other)
    shop = run.connection(job.shop, PrintShop)
    run.log("asking", shop=shop, token=shop.token.get_secret_value())
    print(shop)
    return Signed(url=shop.url, token_length=len(shop.token.get_secret_value()), shown=repr(shop))
""",
}
ENTRY_POINTS = f"""
[{KINDS}]
printing = printing.contracts
[{TASKS}]
printing = printing.tasks
[{CONNECTIONS}]
print_shop = printing.connections:PrintShop
"""
FILE = """
[corner]
kind = "print_shop"
description = "The shop at the corner."
url = "https://corner.example.com"
token_env = "CORNER_TOKEN"

[closed]
kind = "print_shop"
url = "https://closed.example.com"
token_env = "CLOSED_TOKEN"

[lake]
kind = "store"
url = "lake"
"""


def installed_in(folder: Path) -> Path:
    """Install the package, as a wheel is: its modules, and what it says of itself."""
    (folder / "printing").mkdir(parents=True)
    for name, text in {"__init__.py": "", **PACKAGE}.items():
        (folder / "printing" / name).write_text(text, encoding="utf-8")
    about = folder / "printing-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: printing\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    (folder / "connections.toml").write_text(FILE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed_in(tmp_path_factory.mktemp("printing") / "site")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def jobs(own_valkey: Server, folder: Path, logs: Path) -> Iterator[Jobs]:
    """Run a gateway without the secret and a worker with it, both with the installed package."""
    env = {
        "PYTHONPATH": str(folder),
        "CELERIAC_CONTRACTS": "",
        "CELERIAC_CONNECTIONS_FILE": str(folder / "connections.toml"),
        "CELERY_BROKER_URL": own_valkey.redis_url,
        "CELERIAC_STORE_URL": str(logs / "store"),
    }
    secret = {"WORKER_FAMILIES": "printing", "CORNER_TOKEN": SECRET}
    with gateway_server(logs, **env) as gateway, crew(logs, **env, **secret) as workers:
        workers.start()
        yield Jobs(gateway)


@pytest.mark.integration
def test_a_body_gets_the_connection_that_its_job_names(jobs: Jobs, own_valkey: Server, logs: Path) -> None:
    """With its secret, which is nowhere else: not in the job, its log, the ledger, nor what the programs print."""
    job = jobs.ended(jobs.submit("printing.ask_shop", {"shop": "corner"}))
    assert job["state"] == "succeeded", job["error"]
    assert (job["result"]["url"], job["result"]["token_length"]) == ("https://corner.example.com", len(SECRET))
    assert "token=SecretStr('**********')" in job["result"]["shown"]
    lines = http_client.get(f"{jobs.gateway.url}/jobs/{job['id']}/logs").json()["lines"]
    assert lines[0]["fields"]["token"] == "***"  # noqa: S105 - that it is hidden
    assert SECRET not in json.dumps([job, lines])
    with redis.Redis(port=own_valkey.port) as client:
        stored = [client.dump(key) or b"" for key in client.scan_iter(count=1_000)]
    written = [path.read_bytes() for path in logs.rglob("*") if path.is_file()]
    assert any(b"print_shop" in text or b"ask_shop" in text for text in written)
    assert [text for text in (*stored, *written) if SECRET.encode() in text] == []


@pytest.mark.integration
@pytest.mark.parametrize(
    ("shop", "message"),
    [
        ("korner", "The connection 'korner' is not configured. Configured: closed, corner."),
        ("lake", "The connection 'lake' is of kind 'store', but a connection of kind 'print_shop' is needed here."),
    ],
)
def test_the_gateway_refuses_a_name_of_another_kind(jobs: Jobs, shop: str, message: str) -> None:
    """It knows names and kinds from the file, and nothing of the class or the secrets."""
    asked = {"kind": "printing.ask_shop", "params": {"shop": shop}}
    refused = http_client.post(f"{jobs.gateway.url}/jobs", json=asked)
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_connection")
    assert message in refused.json()["errors"][0]["message"]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("params", "code", "message"),
    [
        ({"shop": "closed"}, "connection_misconfigured", "CLOSED_TOKEN is not set"),
        ({"shop": "corner", "of_another_class": True}, "wrong_connection", "printing.connections.PrintShop'>, not "),
    ],
)
def test_a_connection_that_is_not_set_up_fails_with_what_to_do(
    jobs: Jobs, params: dict[str, Any], code: str, message: str
) -> None:
    """At the first use, with the variable; and a body that asks for another class is told which one it is."""
    error = jobs.ended(jobs.submit("printing.ask_shop", params))["error"]
    assert (error["code"], message in error["message"]) == (code, True), error
    assert error["remedy"]


class Shop(BaseModel):
    """Settings of a shop."""

    url: str
    token: SecretStr

    @field_validator("token")
    @classmethod
    def _long(cls, token: SecretStr) -> SecretStr:
        if len(token) < 10:
            raise ValueError(f"too short: {token.get_secret_value()}")
        return token


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install a package that declares this module's `Shop` as a kind, and return a folder for a connections file."""
    about = tmp_path / "shops-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shops\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(f"[{CONNECTIONS}]\nshop = {__name__}:Shop\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    connection_kinds.cache_clear()
    assert sys.modules[__name__].Shop is Shop
    yield tmp_path
    connection_kinds.cache_clear()


def written(folder: Path, text: str) -> Path:
    path = folder / "connections.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ('tokn_env = "T"\nurl = "x"', {}, "Shop takes no 'tokn_env'. Did you mean 'token_env'?"),
        ('token_env = "T"\nurl_env = "U"', {"T": "long enough"}, "Shop takes no 'url_env'. Did you mean 'url'?"),
        ('token_env = "T"', {"T": "long enough"}, "url: Field required"),
        ('token_env = "T"\nurl = "x"', {"T": ""}, "T is not set"),
        ('token_env = "T"\nurl = "x"', {"T": "s3cr3t"}, "token: Value error, too short: ***"),
    ],
)
def test_wrong_settings_are_told_without_secrets(
    declared: Path, text: str, environment: dict[str, str], message: str
) -> None:
    """By the name in the file."""
    known = load_connections(written(declared, f'[corner]\nkind = "shop"\n{text}'))
    with pytest.raises(TaskFailure) as failed:
        own_connection("corner", Shop, known, environment)
    assert (failed.value.code, message in failed.value.message) == ("connection_misconfigured", True), failed.value


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            'token = "s3cr3t"',
            "'token': it contains credentials; put them into an environment variable and name that in",
        ),
        ('url = "https://me:s3cr3t@example.com"', "'url': it contains credentials"),
        ('token_env = "s3cr3t"', "'token_env' must be the name of an environment variable"),
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_shown(declared: Path, line: str, message: str) -> None:
    """By the gateway, too, which does not know the class."""
    with pytest.raises(DefinitionError) as refused:
        load_connections(written(declared, f'[corner]\nkind = "shop"\n{line}'))
    assert message in str(refused.value)
    assert "s3cr3t" not in str(refused.value)


def test_a_kind_that_nobody_declares_is_refused(declared: Path) -> None:
    """In a contract, with the nearest; in the file, with those of the service."""
    assert names.connection("shop") == names.NamesConnection("shop")
    with pytest.raises(
        DefinitionError, match=r"no such kind of connection. Did you mean 'shop'\?.*celeriac.connections"
    ):
        names.connection("shopp")
    with pytest.raises(DefinitionError, match="shopp"):
        load_connections(written(declared, '[corner]\nkind = "shopp"'))


def test_a_kind_of_the_service_cannot_be_declared(declared: Path) -> None:
    """Its connections would be two things."""
    points = declared / "shops-1.0.dist-info" / "entry_points.txt"
    points.write_text(f"[{CONNECTIONS}]\nstore = {__name__}:Shop\n", encoding="utf-8")
    connection_kinds.cache_clear()
    with pytest.raises(DefinitionError, match=r"'store', which the service has\. Rename it"):
        load_connections(written(declared, ""))
    assert check_connections(Shop(url="x", token=SecretStr("long enough")), {}) == []
