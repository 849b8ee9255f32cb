"""Images with somebody's own kinds: what the compose files and the Dockerfile for them make of ours."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.up import ROOT, write_own_kind

OWN = ROOT / "deploy" / "own"
IN_ENV_FILE = {
    "VALKEY_PASSWORD": "a",
    "CELERIAC_QUEUES": "acme",
    "CELERIAC_OWN": "acme",
    "CELERIAC_TASKS": "acme.tasks",
}
IN_ENV_FILE |= {"CELERIAC_CONTRACTS": "shared.jobs,acme.contracts"}
_SHOW = {
    "api": "from shared.contract.catalogue import catalogue as c; print('acme.shout_text' in c(), len(c()) > 20)",
    "worker": "from worker.app import app; print('acme.shout_text' in app.tasks, sorted(app.amqp.queues.consume_from))",
}


class _Loader(yaml.SafeLoader):
    """Reads the tags of Compose, too."""


_Loader.add_constructor("!reset", lambda _loader, _node: None)


def services(path: Path) -> dict[str, Any]:
    """Return the services of a compose file."""
    return dict(yaml.load(path.read_text(encoding="utf-8"), _Loader)["services"])  # noqa: S506 - it is a safe loader


def given(environment: dict[str, str]) -> dict[str, str]:
    """Return the variables of a container, as Compose fills them in."""

    def value(found: re.Match[str]) -> str:
        name, default = found["name"], found["default"] or ""
        return IN_ENV_FILE.get(name) or default

    pattern = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?[^}]*)?\}")
    return {name: pattern.sub(value, str(text)) for name, text in environment.items()}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with README's kind."""
    folder = tmp_path_factory.mktemp("project")
    write_own_kind(folder)
    return folder


def image(folder: Path, project: Path, *parts: str) -> Path:
    """Return a folder with what an image of ours has in /app, and what the Dockerfile adds."""
    for part in parts:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (copied,) = re.findall(r"^COPY (\S+) /app/(\S+)$", (OWN / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    shutil.copytree(project / copied[0], folder / copied[1])
    return folder


@pytest.mark.parametrize(
    ("service", "parts", "shown"),
    [
        ("api", ("celeriac", "shared", "api"), "True True"),
        ("worker", ("celeriac", "shared", "worker"), "True ['acme']"),
    ],
)
def test_own_images_have_the_kind(
    service: str, parts: tuple[str, ...], shown: str, project: Path, tmp_path: Path
) -> None:
    """The gateway accepts it beside ours, and the worker runs it, on its queue alone, with the variables of Compose."""
    ours, own = services(ROOT / "docker-compose.yml"), services(OWN / "compose.yml")
    if service == "worker":
        environment = ours["worker-celery-etl"]["environment"] | own["worker-celery-own"]["environment"]
    else:
        environment = ours[service]["environment"] | own[service].get("environment", {})
    folder = image(tmp_path / "app", project, *parts)
    ran = subprocess.run(
        [sys.executable, "-P", "-c", _SHOW[service]],
        cwd=folder,
        env={**given(environment), "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.stdout.strip() == shown, ran.stderr


def test_own_services_are_ours_with_another_image() -> None:
    """Each names an image of the three that the page builds, and is not built from our Dockerfiles under that name."""
    own = services(OWN / "compose.yml")
    assert {name: given(service)["image"] for name, service in own.items()} == {
        "api": "acme-api",
        "beat": "acme-beat",
        "worker-celery-own": "acme-worker",
    }
    assert all("build" in service and service["build"] is None for service in own.values())
    page = (ROOT / "docs/authors/shipping.md").read_text(encoding="utf-8")
    assert set(re.findall(r"-t (acme-\w+) \.", page)) == {"acme-api", "acme-beat", "acme-worker"}
    assert f"```dockerfile\n{(OWN / 'Dockerfile').read_text(encoding='utf-8')}```" in page
    assert given(services(ROOT / "docker-compose.yml")["beat"]["environment"])["CELERIAC_CONTRACTS"].endswith(
        "contracts"
    )
