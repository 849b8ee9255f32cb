"""The interface of an engine that builds and runs images. All containers run on the host's network."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from shared import __version__

if TYPE_CHECKING:
    from pathlib import Path

STOP_BOUND_S = 60.0
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


class Container(Protocol):
    """A started container."""

    def running(self) -> bool:
        """Return whether its main process runs."""

    def check(self) -> str | None:
        """Run the image's health check in it; return its error message, or `None`."""

    def log(self) -> str:
        """Return its output so far."""

    def stop(self) -> int:
        """Send the image's stop signal to its main process, remove the container and return its exit code."""


class Engine(Protocol):
    """An engine that builds and starts images."""

    name: str

    def prepare(self, dockerfile: Path) -> None:
        """Make sure that the base image of `dockerfile` is available."""

    def build(
        self,
        name: str,
        context: Path,
        dockerfile: str,
        *,
        target: str,
        arguments: dict[str, str],
        secrets: dict[str, Path],
    ) -> None:
        """Build the image `name`. Raises `subprocess.CalledProcessError`."""

    def size_bytes(self, name: str) -> int:
        """Return the size of an image, unpacked."""

    def start(
        self,
        name: str,
        folder: Path,
        *,
        env: dict[str, str],
        mounts: dict[Path, str],
    ) -> Container:
        """Start the image `name` with its own command and health check; its log goes into `folder`."""


def build_options(
    dockerfile: str, name: str, target: str, arguments: dict[str, str], secrets: dict[str, Path]
) -> list[str]:
    """Return the options of a build that all engines understand. The image gets the tags `latest` and its version."""
    options = ["--file", dockerfile, "--tag", name, "--tag", f"{name}:{__version__}"]
    options += ["--target", target] if target else []
    for argument, value in arguments.items():
        options += ["--build-arg", f"{argument}={value}"]
    for variable in _PROXIES:
        options += ["--build-arg", variable] if variable in os.environ else []
    for secret, file in secrets.items():
        options += ["--secret", f"id={secret},src={file}"]
    return options


def health_command(healthcheck: dict[str, Any] | None) -> list[str]:
    """Return the command of an image's health check. Raises `ValueError` if it has none in exec form."""
    words: list[str] = (healthcheck or {}).get("Test", [])
    if words[:1] != ["CMD"]:
        raise ValueError("the image needs a HEALTHCHECK in exec form")
    return words[1:]
