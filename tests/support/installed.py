"""Our wheel, installed into an environment of its own with all or some of the packages that are installed here."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from celeriac.start import PACKAGES
from shared import __version__
from tests.support.up import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable


@pytest.fixture(scope="session")
def installed_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with our wheel, installed alone and once for all processes of a run: see `make_environment`."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "wheel"
    shared.mkdir(exist_ok=True)
    installed = shared / "installed"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not installed.exists():
            unfinished = shared / f"of-{os.getpid()}"  # a second one if the process that began with one was killed
            install_wheel(unfinished / "installed", build_wheel(unfinished)).rename(installed)
    return installed


def build_wheel(folder: Path) -> Path:
    """Build the wheel from copies, so that nothing is left in the checkout and nothing old of it gets in."""
    source = folder / "source"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    wheel = wheel_of(source, folder)
    assert wheel.name.startswith(f"celeriac-{__version__}-")
    return wheel


def wheel_of(source: Path, folder: Path) -> Path:
    """Build the wheel of the project in `source`, where this leaves files, into `folder`, which has no other wheel."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    offline = ["--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([*pip, *offline, "--wheel-dir", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install_wheel(folder: Path, wheel: Path) -> Path:
    """Install the wheel alone to `folder`, where the environments of `make_environment` find it."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", str(folder), str(wheel)], check=True)
    return folder


def make_environment(folder: Path, installed: Path, extras: Iterable[str], others: Iterable[str] = ()) -> Path:
    """Make an environment with the installed wheel but without the checkout.

    Of what is installed here it has what `pip install celeriac[extras] others...` would install, and nothing else.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    for part in installed.iterdir():
        (site_packages / part.name).symlink_to(part)
    asked = [f"celeriac[{','.join(extras)}]", *others]
    _link(site_packages, set[str]().union(*map(_required, asked)) - {"celeriac"})
    script = folder / "bin" / "celeriac"
    script.write_text(f"#!{folder}/bin/python\n" + (installed / "bin" / "celeriac").read_text().partition("\n")[2])
    script.chmod(0o755)
    return folder


def _required(requirement: str) -> set[str]:
    """Return the names of the distributions that this requirement brings, all the way down."""
    found: set[tuple[str, frozenset[str]]] = set()
    wanted = [Requirement(requirement)]
    while wanted:
        one = wanted.pop()
        key = (str(canonicalize_name(one.name)), frozenset(one.extras))
        if key in found:
            continue
        found.add(key)
        for text in metadata.requires(one.name) or ():
            below = Requirement(text)
            if below.marker is None or any(below.marker.evaluate({"extra": extra}) for extra in ("", *one.extras)):
                wanted.append(below)
    return {name for name, _ in found}


def _link(site_packages: Path, names: set[str]) -> None:
    """Link the files of these distributions: folders as a whole, where no other distribution has a part in them."""
    here = Path(sysconfig.get_path("purelib"))
    files = _installed_here()
    tops = {name: {file.parts[0] for file in inside} - {"__pycache__"} for name, inside in files.items()}
    owners = Counter(top for all_tops in tops.values() for top in all_tops)
    for name in names:
        for top in tops[name]:
            if owners[top] == 1:
                (site_packages / top).symlink_to(here / top)
        for file in files[name]:
            if owners[file.parts[0]] > 1 and (here / file).is_file():
                (site_packages / file).parent.mkdir(parents=True, exist_ok=True)
                (site_packages / file).symlink_to(here / file)


@cache
def _installed_here() -> dict[str, list[Path]]:
    """Return the files of each distribution that is installed here: reading their lists takes half a second."""
    return {
        str(canonicalize_name(one.name)): [Path(str(file)) for file in one.files or () if ".." not in file.parts]
        for one in metadata.distributions()
    }
