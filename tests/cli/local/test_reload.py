"""A package of kinds, from `celeriac new-kind` to a running service that follows its changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cli.app import app
from tests.support.servers.services import http_client, wait_for
from tests.support.up import ROOT, Up, running_up, start_up

pytestmark = pytest.mark.integration

_BOUND_S = 60.0
_CPU_BOUND_S = 0.8  # of a worker from a change until it runs; importing all that it needs takes 1.0 and more


def new_kind(folder: Path, kind: str) -> list[str]:
    """Write a kind into `folder`; return the files."""
    done = CliRunner().invoke(app, ["new-kind", kind, "--folder", str(folder)])
    assert done.exit_code == 0, done.output
    return [str(Path(line).relative_to(folder)) for line in done.stdout.split()]


def ran(*words: str, cwd: Path, path: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in `cwd`, which finds packages in `path`."""
    environment = {**os.environ, "PYTHONPATH": path, **variables}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a project with two kinds."""
    folder = tmp_path_factory.mktemp("project")
    assert sorted(new_kind(folder, "acme.shout_text")) == [
        "acme/__init__.py",
        "acme/contracts/__init__.py",
        "acme/contracts/shout_text.py",
        "acme/tasks/__init__.py",
        "acme/tasks/shout_text.py",
        "pyproject.toml",
        "tests/test_shout_text.py",
    ]
    assert sorted(new_kind(folder, "acme.whisper")) == [
        "acme/contracts/whisper.py",
        "acme/tasks/whisper.py",
        "tests/test_whisper.py",
    ]
    return folder


@pytest.fixture(scope="module")
def installed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which the project is installed, with its entry points."""
    folder = tmp_path_factory.mktemp("installed")
    pip = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps"]
    done = ran(*pip, "--no-build-isolation", "--target", str(folder), str(project), cwd=project, path="")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_new_kind_is_right_as_it_is_written(project: Path, installed: Path) -> None:
    """Its tests pass, mypy strict has nothing to say, and `celeriac check` neither."""
    path = f"{installed}:{ROOT}"
    tests = ran("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis", cwd=project, path=path)
    assert "2 passed" in tests.stdout, tests.stdout + tests.stderr
    cache = str(ROOT / ".mypy_cache" / "of-tests")  # of what the service and its libraries are: most of the time
    types = ran("-m", "mypy", "--package", "acme", cwd=project, path=path, MYPYPATH=str(ROOT), MYPY_CACHE_DIR=cache)
    assert types.returncode == 0, types.stdout + types.stderr
    checked = ran("-m", "cli.app", "check", "acme", cwd=project, path=path)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert [line.split() for line in checked.stdout.splitlines()[1:]] == [
        ["acme.shout_text", "acme.tasks.shout_text.shout_text", "acme"],
        ["acme.whisper", "acme.tasks.whisper.whisper", "acme"],
    ]


def test_a_kind_that_is_there_is_not_overwritten(project: Path) -> None:
    """Nor is a name accepted that no kind can have."""
    again = CliRunner().invoke(app, ["new-kind", "acme.whisper", "--folder", str(project)])
    assert (again.exit_code, "acme/tasks/whisper.py" in again.stderr) == (2, True)
    wrong = CliRunner().invoke(app, ["new-kind", "Acme.Whisper", "--folder", str(project)])
    assert (wrong.exit_code, "not of the form family.verb_noun" in wrong.stderr) == (2, True)


def test_check_names_everything_that_is_wrong(tmp_path: Path) -> None:
    """A queue that nobody has, a task that is missing, a module that raises, all at once."""
    new_kind(tmp_path, "odd.one")
    new_kind(tmp_path, "odd.two")
    new_kind(tmp_path, "odd.three")
    (tmp_path / "odd/tasks/one.py").write_text("", encoding="utf-8")
    (tmp_path / "odd/tasks/two.py").write_text("import nowhere", encoding="utf-8")
    contract = tmp_path / "odd/contracts/three.py"
    contract.write_text(contract.read_text(encoding="utf-8").replace("limits=", "limit="), encoding="utf-8")
    checked = ran("-m", "cli.app", "check", "odd", cwd=tmp_path, path=str(ROOT), CELERIAC_QUEUES="odd")
    assert checked.returncode == 1
    assert [line.partition(". ")[0] for line in checked.stderr.splitlines()] == [
        "odd.contracts.three.Three: it has no hard time limit",
        "odd.contracts.three.Three: there is no class keyword 'limit'",
        "odd.tasks.two cannot be imported: ModuleNotFoundError: No module named 'nowhere'",
        "odd.contracts.one.One: the kind 'odd.one' has no task",
        "odd.contracts.two.Two: the kind 'odd.two' has no task",
    ]
    assert "the queue 'odd' is unknown" in ran("-m", "cli.app", "check", "odd", cwd=tmp_path, path=str(ROOT)).stderr
    assert "cannot be imported" in ran("-m", "cli.app", "check", "nowhere", cwd=tmp_path, path=str(ROOT)).stderr


def test_contracts_are_compared_with_what_was_shown(project: Path, tmp_path: Path) -> None:
    """`show` writes what `diff` reads; a changed contract is refused with exit code 1."""

    def contracts(*words: str) -> subprocess.CompletedProcess[str]:
        return ran("-m", "cli.app", "contracts", *words, cwd=project, path=str(ROOT), CELERIAC_QUEUES="acme")

    old, less = tmp_path / "old.json", tmp_path / "less.json"
    old.write_text(contracts("show", "acme").stdout, encoding="utf-8")
    less.write_text(old.read_text(encoding="utf-8").replace("1000", "999"), encoding="utf-8")
    same = contracts("diff", str(old), "acme")
    assert (same.returncode, same.stderr) == (0, "")
    narrowed = contracts("diff", str(old), str(less))
    assert (narrowed.returncode, narrowed.stdout.count("the parameter text was ")) == (1, 2)
    unreadable = contracts("diff", "nowhere.json", "acme")
    assert (unreadable.returncode, "nowhere.json cannot be read" in unreadable.stderr) == (2, True)


def shouted(up: Up) -> Any:
    """Return what the kind returns now, None if the gateway or the job does not run."""
    body = {"kind": "acme.shout_text", "params": {"text": "hello"}, "options": {"expires_in_s": 5}}
    try:
        accepted = http_client.post(f"{up.url}/jobs", json=body)
        job = http_client.get(f"{up.url}/jobs/{accepted.json()['id']}", params={"wait_s": 30}).json()
    except httpx.TransportError:
        return None
    return job["result"] and job["result"]["text"]


def summary(up: Up) -> Any:
    """Return what the gateway says of the kind, None if it does not run."""
    try:
        return http_client.get(f"{up.url}/job-kinds/acme.shout_text").json()["summary"]
    except httpx.TransportError:
        return None


def cpu_s(pid: int) -> float:
    """Return the seconds that a process has computed, however busy the machine is."""
    user, system = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def loaded_spare(up: Up, words: str) -> tuple[int, float]:
    """Return the process that waits to become the program with `words`, once it has loaded all, and its CPU time."""
    seen = [""]

    def waits() -> int | None:
        if spare := up.spare_of(words):
            seen.append(Path(f"/proc/{spare}/stat").read_text(encoding="utf-8").rpartition(") ")[2][0])
        return spare if seen[-5:] == 5 * ["S"] else None  # not "R", as it is when others have the processors

    spare = wait_for(waits, f"the spare of {words}", bound_s=_BOUND_S)
    return spare, cpu_s(spare)


def edit(file: Path, old: str, new: str) -> None:
    """Replace a text in a file."""
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_an_installed_package_is_found_and_its_changes_are_run(installed: Path, tmp_path: Path) -> None:
    """No variable names it. A changed body runs and a changed contract is served; a wrong one stops nothing else."""
    environment = {"CELERIAC_CONTRACTS": "shared.jobs.workflow", "PYTHONPATH": str(installed)}
    with running_up(tmp_path / "data", environment, "--reload") as up:
        assert shouted(up) == "hello"
        served_by = up.pid_of("api.app:create_app")
        spare, loading_s = loaded_spare(up, "worker --hostname acme")
        edit(installed / "acme/tasks/shout_text.py", "text=job.text", "text=job.text.upper()")
        wait_for(lambda: shouted(up) == "HELLO", "the changed body", bound_s=_BOUND_S)
        wait_for(lambda: up.pid_of("worker --hostname acme") == spare, "the end of the worker before", bound_s=_BOUND_S)
        assert cpu_s(spare) - loading_s < _CPU_BOUND_S
        assert up.pid_of("api.app:create_app") == served_by  # which has not loaded it
        edit(installed / "acme/contracts/shout_text.py", "limits=", "limit=")
        wait_for(lambda: "gateway ended (exit code" in up.said, "the end of the gateway", bound_s=_BOUND_S)
        assert "there is no class keyword 'limit'" in up.said
        edit(installed / "acme/contracts/shout_text.py", "limit=", "limits=")
        edit(installed / "acme/contracts/shout_text.py", '"""Return a text."""', '"""Shout a text."""')

        wait_for(lambda: summary(up) == "Shout a text.", "the changed contract", bound_s=_BOUND_S)
        edit(installed / "acme/contracts/shout_text.py", '"""Shout a text."""', '"""Shout it."""')
        wait_for(lambda: summary(up) == "Shout it.", "the contract changed again", bound_s=_BOUND_S)
        assert up.pid_of("api.app:create_app") != served_by
        wait_for(lambda: any(" beat " in command for command in up.pids().values()), "beat", bound_s=_BOUND_S)
        wait_for(lambda: shouted(up) == "HELLO", "a job after it", bound_s=_BOUND_S)
    assert "killing it" not in up.said


def test_there_has_to_be_something_to_look_at(tmp_path: Path) -> None:
    """Otherwise `--reload` would never do anything."""
    up = start_up(tmp_path / "data", {}, "--reload")
    assert up.process.wait(_BOUND_S) == 2
    assert "--reload looks at the packages in CELERIAC_CONTRACTS" in up.said
