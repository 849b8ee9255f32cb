"""Pass this machine's pip settings as build secrets, so that images use its index but do not contain it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

#: Where the Dockerfiles mount the secret `ca.crt`.
_CERTIFICATE_IN_BUILD = "/etc/pip-ca.crt"
_FORWARDED = ("index-url", "extra-index-url", "trusted-host", "proxy", "default-timeout", "timeout")


def pip_secrets(folder: Path) -> dict[str, Path]:
    """Write this machine's pip settings for a build into `folder`; return the files by secret id.

    Folders and `file:` indexes are omitted: the build does not have them, and the hashes are those of the public index.
    """
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings = _effective(listed)
    certificate = settings.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
    lines = [f"{name} = {value}" for name in _FORWARDED if (value := _reachable(settings.get(name, "")))]
    secrets = {}
    if certificate:
        lines.append(f"cert = {_CERTIFICATE_IN_BUILD}")
        secrets["ca.crt"] = folder / "ca.crt"
        # A copy, because engines mount the file, which may be a link or unreadable for them.
        secrets["ca.crt"].write_bytes(Path(certificate).read_bytes())
    if lines:
        secrets["pip.conf"] = folder / "pip.conf"
        secrets["pip.conf"].write_text("\n".join(["[global]", *lines, ""]))
    return secrets


def _effective(listed: str) -> dict[str, str]:
    """Return pip's settings from the lines of `pip config list`; those of the environment win."""
    settings: dict[str, str] = {}
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in {"global", "install", ":env:"}:
            settings[option] = str(ast.literal_eval(value))
    return settings


def _reachable(value: str) -> str:
    return " ".join(part for part in value.split() if not part.startswith(("file:", "/", ".")))
