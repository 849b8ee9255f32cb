"""The package of another team: installed with our wheel, in an environment of its own, its own checks pass."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.installed import install_wheel, make_environment, wheel_of
from tests.support.up import ROOT

EXAMPLE = ROOT / "examples" / "acme_images"


def _requirements(extra: str) -> list[Requirement]:
    """Return what `pip install acme-images[extra]` asks for besides itself."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = [Requirement(text) for text in project["dependencies"]]
    wanted = [extra]
    for name in wanted:
        for requirement in map(Requirement, project["optional-dependencies"][name]):
            if requirement.name == project["name"]:
                wanted += requirement.extras
            else:
                found.append(requirement)
    return found


@pytest.mark.integration
@pytest.mark.journey
def test_the_package_of_another_team_passes_its_own_checks(tmp_path: Path, installed_wheel: Path) -> None:
    """Mypy strict, `celeriac check`, its tests in memory, and those on a real service, as its own script runs them."""
    copy = tmp_path / "acme_images"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
    requirements = _requirements("dev")
    extras = {extra for one in requirements if one.name == "celeriac" for extra in one.extras}
    others = [str(one) for one in requirements if one.name != "celeriac"]
    environment = make_environment(tmp_path / "environment", installed_wheel, extras, others)
    (site_packages,) = environment.glob("lib/python*/site-packages")
    theirs = shutil.copytree(copy, tmp_path / "source")
    install_wheel(site_packages, wheel_of(theirs, tmp_path / "theirs"))
    shutil.rmtree(copy / "acme_images")  # so that only what is installed can be imported
    inherited = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    ran = subprocess.run(
        [copy / ".ci" / "run"],
        env={**inherited, "PATH": f"{environment / 'bin'}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Success: no issues found in 7 source files" in ran.stdout
    assert "acme.draw_sheet        acme_images.tasks.draw_sheet        acme" in ran.stdout
    assert " passed" in ran.stdout
    assert "skipped" not in ran.stdout


def test_its_bodies_do_what_its_own_tests_say(tmp_path: Path) -> None:
    """In memory, with our own environment in place of one that has only what the package asks for."""
    copy = shutil.copytree(EXAMPLE, tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
    tests = shutil.copytree(copy / "tests", tmp_path / "tests")
    installed = install_wheel(tmp_path / "installed", wheel_of(copy, tmp_path / "wheel"))
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis", "test_bodies.py"],
        cwd=tests,
        env={**os.environ, "PYTHONPATH": f"{installed}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout
    assert "skipped" not in ran.stdout


def test_the_package_imports_only_our_face() -> None:
    """Everything else is private: what another team needs is in `celeriac`, and on the pages."""
    lines = [line for path in EXAMPLE.rglob("*.py") for line in path.read_text(encoding="utf-8").splitlines()]
    ours = ("import shared", "from shared", "import worker", "from worker", "import api", "from api", "from cli")
    assert [line for line in lines if line.strip().startswith(ours)] == []
