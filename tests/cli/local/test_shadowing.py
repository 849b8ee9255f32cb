"""An installed wheel beside a user's own packages of the same names."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from celeriac.start import PACKAGES
from tests.support.installed import make_environment
from tests.support.up import ROOT, running_up, write_own_kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PROBE = """
import json, runpy, sys
from importlib.util import find_spec
from multiprocessing import get_context

def where():
    names = ("api", "celeriac", "cli", "shared", "worker", "acme")
    specs = {name: find_spec(name) for name in names}
    print(json.dumps({name: list(spec.submodule_search_locations) for name, spec in specs.items()}), flush=True)

where()
if __name__ == "__main__":
    spawned = get_context("spawn").Process(target=runpy.run_module, args=("probe",))
    spawned.start()
    spawned.join()
"""


@dataclass(frozen=True)
class Installed:
    """An environment with our wheel in it, and a user's folder that has packages of the same names."""

    environment: Path
    folder: Path

    @property
    def celeriac(self) -> str:
        """The installed command."""
        return str(self.environment / "bin" / "celeriac")

    def run(self, command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the user's folder."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CELER", "PYTHON"))}
        path = f"{self.environment / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**inherited, "PATH": path, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


def write_packages(folder: Path, names: Iterable[str]) -> None:
    """Write packages that must not be imported."""
    for name in names:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise RuntimeError('this is the {name} of another project')\n")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, installed_wheel: Path) -> Installed:
    """Return an installed wheel and a folder with README's kind, and with all our names."""
    environment = make_environment(tmp_path_factory.mktemp("environment"), installed_wheel, ["etl", "up"])
    folder = tmp_path_factory.mktemp("project")
    write_own_kind(folder)
    write_packages(folder, PACKAGES)
    (folder / "probe.py").write_text(_PROBE, encoding="utf-8")
    return Installed(environment, folder)


def test_our_names_are_those_of_the_wheel() -> None:
    """What is found at our root first is what the wheel brings and what import-linter looks at."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert set(tools["importlinter"]["root_packages"]) == PACKAGES
    assert {name.removesuffix("*") for name in tools["setuptools"]["packages"]["find"]["include"]} == PACKAGES


@pytest.mark.parametrize("variables", [{}, {"PYTHONPATH": "."}, {"PYTHONSAFEPATH": "1"}], ids=str)
def test_our_packages_come_from_our_root_and_theirs_from_their_folder(
    variables: Mapping[str, str], installed: Installed
) -> None:
    """Whatever Python is told of its path, in the program itself and in what it spawns."""
    (site_packages,) = installed.environment.glob("lib/python*/site-packages")
    python = str(installed.environment / "bin" / "python")
    probed = installed.run([python, "-P", str(site_packages / "celeriac" / "start.py"), "probe"], **variables)
    assert probed.stderr == ""
    expected = {name: [str((site_packages / name).resolve())] for name in PACKAGES}
    expected["acme"] = [str(installed.folder / "acme")]
    assert [json.loads(line) for line in probed.stdout.splitlines()] == [expected, expected]


def test_the_command_is_ours_whatever_pythonpath_names(installed: Installed, tmp_path: Path) -> None:
    """The installed script finds the command line, too, unless somebody has a package `celeriac` of their own there."""
    write_packages(tmp_path, PACKAGES - {"celeriac"})
    shown = installed.run([installed.celeriac, "submit", "--help"], PYTHONPATH=str(tmp_path))
    assert (shown.returncode, shown.stderr) == (0, "")


@pytest.mark.integration
def test_the_readmes_kind_runs_in_a_folder_that_has_all_our_names(installed: Installed, tmp_path: Path) -> None:
    """`celeriac up` starts gateway, worker and beat with our packages, and the worker has the kind of that folder."""
    names = {"CELERIAC_CONTRACTS": "acme.contracts", "CELERIAC_TASKS": "acme.tasks", "CELERIAC_QUEUES": "acme"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    told = re.search(r"```sh\n(celeriac submit acme\.shout_text .*\n)```\n+<!-- prints -->\n```text\n(.*\n)```", readme)
    assert told is not None
    with running_up(tmp_path / "data", names, celeriac=[installed.celeriac], cwd=installed.folder) as up:
        submitted = installed.run(["bash", "-c", told[1]], CELERIAC_URL=up.url)
    assert submitted.stdout == told[2], submitted.stderr
