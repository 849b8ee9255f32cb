"""Docker, and podman with the same command line."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from deploy.engine import STOP_BOUND_S, Container, build_options, health_command

if TYPE_CHECKING:
    from pathlib import Path


class Docker:
    """An engine with docker's command line, which pulls the base image itself."""

    def __init__(self, name: str) -> None:
        self.name = name

    def prepare(self, dockerfile: Path) -> None:
        """Do nothing: the build pulls the base image of `dockerfile`."""

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
        options = build_options(str(context / dockerfile), name, target, arguments, secrets)
        subprocess.run([self.name, "build", *options, str(context)], check=True)

    def size_bytes(self, name: str) -> int:
        """Return the size of an image, unpacked."""
        return int(self._ask("image", "inspect", "--format", "{{.Size}}", name))

    def start(
        self,
        name: str,
        folder: Path,  # noqa: ARG002 - the engine keeps the log
        *,
        env: dict[str, str],
        mounts: dict[Path, str],
    ) -> Container:
        """Start the image `name` on the host's network, its root file system read-only."""
        options = ["--detach", "--network", "host", "--init", "--read-only", "--tmpfs", "/tmp"]  # noqa: S108 - in the container
        for variable, value in env.items():
            options += ["--env", f"{variable}={value}"]
        for outside, inside in mounts.items():
            options += ["--volume", f"{outside}:{inside}"]
        test = json.loads(self._ask("image", "inspect", "--format", "{{json .Config.Healthcheck}}", name))
        container = self._ask("run", *options, name)
        return _DockerContainer(self.name, container, health_command(test))

    def _ask(self, *words: str) -> str:
        return subprocess.run([self.name, *words], check=True, capture_output=True, text=True).stdout.strip()


class _DockerContainer:
    def __init__(self, engine: str, container: str, test: list[str]) -> None:
        self._engine = engine
        self._id = container
        self._test = test

    def running(self) -> bool:
        return self._run("inspect", "--format", "{{.State.Running}}", self._id).stdout.strip() == "true"

    def check(self) -> str | None:
        tested = self._run("exec", self._id, *self._test)
        return None if tested.returncode == 0 else tested.stdout

    def log(self) -> str:
        return self._run("logs", self._id).stdout

    def stop(self) -> int:
        self._run("stop", "--time", str(int(STOP_BOUND_S)), self._id)
        code = int(self._run("inspect", "--format", "{{.State.ExitCode}}", self._id).stdout)
        self._run("rm", "--force", self._id)
        return code

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._engine, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
