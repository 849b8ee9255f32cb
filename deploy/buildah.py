"""Buildah without a daemon or namespaces: chroot isolation on a base image made of Debian packages."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from deploy.base import import_base, named_base
from deploy.engine import STOP_BOUND_S, Container, build_options, health_command


class Buildah:
    """An engine that is a single program.

    Everything it keeps is in `~/.cache/celeriac-images`; remove that folder to begin again.
    """

    name = "buildah"

    def __init__(self) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "celeriac-images"
        cache.mkdir(parents=True, exist_ok=True)
        self._cache = cache
        self._options = self._storage("overlay")
        scratch = subprocess.run([*self._options, "from", "scratch"], capture_output=True, text=True, check=False)
        mounted = subprocess.run([*self._options, "mount", scratch.stdout.strip()], capture_output=True, check=False)
        subprocess.run([*self._options, "rm", scratch.stdout.strip()], capture_output=True, check=False)
        if scratch.returncode or mounted.returncode:  # no overlay file system here: copy every layer
            self._options = self._storage("vfs")

    def prepare(self, dockerfile: Path) -> None:
        """Create the base image if mmdebstrap is installed; otherwise the build pulls it."""
        base = named_base(dockerfile)
        if self._has(base) or not shutil.which("mmdebstrap"):
            return
        import_base(self._options, base, self._cache)

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
        """Build the image `name`; `--format docker` because the OCI format has no health checks."""
        options = build_options(str(context / dockerfile), name, target, arguments, secrets)
        options += ["--pull=false", "--format", "docker"]
        subprocess.run(
            [*self._options, "bud", "--quiet", "--layers", "--isolation", "chroot", *options, str(context)],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def size_bytes(self, name: str) -> int:
        """Return the size of an image, unpacked."""
        container = self._ask("from", "--pull=never", name)
        try:
            root = self._ask("mount", container)
            counted = subprocess.run(
                ["du", "--summarize", "--block-size=1", root], check=True, capture_output=True, text=True
            )
            return int(counted.stdout.split()[0])
        finally:
            self._ask("rm", container)

    def start(
        self,
        name: str,
        folder: Path,
        *,
        env: dict[str, str],
        mounts: dict[Path, str],
    ) -> Container:
        """Start processes from the contents of the image `name`, as its user, in a chroot."""
        config = json.loads(self._ask("inspect", "--type", "image", name))["Docker"]["config"]
        container = self._ask("from", "--pull=never", name)
        run = ["run", "--isolation", "chroot"]
        for variable, value in env.items():
            run += ["--env", f"{variable}={value}"]
        for outside, inside in mounts.items():
            run += ["--volume", f"{outside}:{inside}"]
        test = health_command(config.get("Healthcheck"))
        running = _BuildahContainer(self._options, container, [*run, container, "--"], test, folder)
        running.begin(config["Cmd"])
        return running

    def _storage(self, driver: str) -> list[str]:
        roots = ["--root", str(self._cache / driver), "--runroot", str(self._cache / f"{driver}-run")]
        return ["buildah", *roots, "--storage-driver", driver]

    def _has(self, image: str) -> bool:
        return (
            subprocess.run(
                [*self._options, "inspect", "--type", "image", image], capture_output=True, check=False
            ).returncode
            == 0
        )

    def _ask(self, *words: str) -> str:
        return subprocess.run([*self._options, *words], check=True, capture_output=True, text=True).stdout.strip()


class _BuildahContainer:
    def __init__(self, options: list[str], container: str, run: list[str], test: list[str], folder: Path) -> None:
        self._options = options
        self._container = container
        self._run = [*options, *run]
        self._test = test
        self._log = folder / f"{container}.log"

    def begin(self, command: list[str]) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._run, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def running(self) -> bool:
        return self._process.poll() is None

    def check(self) -> str | None:
        tested = subprocess.run([*self._run, *self._test], capture_output=True, text=True, check=False)
        return None if tested.returncode == 0 else tested.stdout + tested.stderr

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> int:
        """End the main process directly, because buildah would kill it."""
        if self.running() and (main := _below_chroot(self._process.pid)) is not None:
            os.kill(main, signal.SIGTERM)
        try:
            return self._process.wait(STOP_BOUND_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            return self._process.wait()
        finally:
            subprocess.run([*self._options, "rm", self._container], capture_output=True, check=True)


def _below_chroot(buildah: int) -> int | None:
    """Return the process that `buildah run` started in the chroot: buildah, its runtime, its exec, then that."""
    process = buildah
    for _ in range(3):
        # Any thread of a Go program may have started the child.
        lists = Path(f"/proc/{process}/task").glob("*/children")
        children = [int(child) for children in lists for child in children.read_text().split()]
        if not children:
            return None
        process = children[0]
    return process
