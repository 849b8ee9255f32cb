"""Build every image with an installed engine, print sizes, and run a job of each family: `make images`."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.buildah import Buildah
from deploy.docker import Docker
from deploy.index import pip_secrets
from deploy.trial import run_trial
from shared.contract.families import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.engine import Engine

ROOT = Path(__file__).resolve().parent.parent
_NO_ENGINE = (
    "no engine can build images (tried docker, podman, buildah). "
    "On Debian, as root: apt-get install --no-install-recommends buildah mmdebstrap"
)


@dataclass(frozen=True, slots=True)
class Image:
    """One image: its name and its build arguments."""

    name: str
    dockerfile: str
    target: str = ""
    arguments: dict[str, str] = field(default_factory=dict)


def images() -> list[Image]:
    """Return every image of the service."""
    return [
        Image("celeriac-api", "Dockerfile.api"),
        *(Image(f"celeriac-worker-{family}", "Dockerfile.worker", "worker", {"FAMILY": family}) for family in FAMILIES),
        Image("celeriac-beat", "Dockerfile.worker", "beat"),
        Image("celeriac-flower", "Dockerfile.worker", "flower"),
    ]


def find_engine() -> Engine | None:
    """Return the first engine that responds, or `None`."""
    for name in ("docker", "podman"):
        if (
            shutil.which(name)
            and subprocess.run([name, "info"], capture_output=True, timeout=30, check=False).returncode == 0
        ):
            return Docker(name)
    return Buildah() if shutil.which("buildah") else None


def build(engine: Engine) -> None:
    """Build every image with `engine`; print the duration and the size of each."""
    with _told("base image"):
        engine.prepare(ROOT / "Dockerfile.api")
    with tempfile.TemporaryDirectory() as folder:
        secrets = pip_secrets(Path(folder))
        for image in images():
            with _told(image.name):
                engine.build(
                    image.name, ROOT, image.dockerfile, target=image.target, arguments=image.arguments, secrets=secrets
                )
    for image in images():
        print(f"{image.name:<28}{engine.size_bytes(image.name) / 1e6:8.0f} MB", flush=True)


@contextmanager
def _told(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - started:.0f} s", flush=True)


def main() -> int:
    """Build and test the images; return the exit code. Without an engine, skip with a message, or fail in CI."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-trial", action="store_true", help="only build the images")
    arguments = parser.parse_args()
    engine = find_engine()
    if engine is None:
        in_ci = os.environ.get("CI") == "true"
        print(f"{'failed' if in_ci else 'skipped'}: {_NO_ENGINE}", file=sys.stderr)
        return int(in_ci)
    print(f"engine: {engine.name}", flush=True)
    build(engine)
    if not arguments.no_trial:
        with _told("trial"):
            run_trial(engine)
    return 0


if __name__ == "__main__":
    sys.exit(main())
