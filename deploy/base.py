"""A base image made of Debian packages, for machines with access to a Debian mirror but no image registry."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: The Debian release whose python3 has the version in the image's name.
_RELEASES = {"3.11": "bookworm", "3.13": "trixie"}
#: Packages of the official image that the Dockerfiles need.
_PACKAGES = ("ca-certificates", "netbase", "passwd", "python3", "python3-venv", "tzdata")
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def named_base(dockerfile: Path) -> str:
    """Return the name of the base image of `dockerfile`."""
    found = re.search(r"^FROM (\S+)", dockerfile.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{dockerfile} has no FROM")
    return found[1]


def import_base(buildah: list[str], name: str, cache: Path) -> None:
    """Create an image called `name` (`python:3.13-slim`) with mmdebstrap, from this machine's apt mirror.

    `buildah` is the command with its storage options. Raises `subprocess.CalledProcessError`.
    """
    version = re.fullmatch(r"python:(\d+\.\d+)-slim", name)
    if version is None or version[1] not in _RELEASES:
        raise ValueError(f"no Debian release is known for {name}; known: {', '.join(_RELEASES)}")
    archive = cache / f"{_RELEASES[version[1]]}.tar"
    if not archive.exists():
        _bootstrap(_RELEASES[version[1]], archive)

    def ask(*words: str) -> str:
        return subprocess.run([*buildah, *words], check=True, capture_output=True, text=True).stdout.strip()

    container = ask("from", "scratch")
    ask("add", container, str(archive), "/")
    ask("config", "--env", f"PATH={_PATH}", "--cmd", "python3", container)
    ask("run", "--isolation", "chroot", container, "--", "python3", "-c", _expect(version[1]))
    ask("commit", "--rm", container, name)


def _bootstrap(release: str, archive: Path) -> None:
    partial = archive.with_suffix(".partial.tar")
    options = ["--quiet", "--variant=apt", f"--include={','.join(_PACKAGES)}"]
    options += [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    subprocess.run(["mmdebstrap", *options, release, str(partial)], check=True)
    partial.rename(archive)


def _expect(version: str) -> str:
    return f"import sys; v = '%d.%d' % sys.version_info[:2]; sys.exit(v != '{version}' and f'python3 is {{v}}')"
