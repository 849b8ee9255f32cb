"""Images are built from this machine's index, and only what a build can reach of its settings goes along."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy.index import pip_secrets


@pytest.fixture
def pip_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only configuration file that pip reads."""
    for variable in (
        "PIP_INDEX_URL",
        "PIP_FIND_LINKS",
        "PIP_CERT",
        "PIP_DEFAULT_TIMEOUT",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_FILE",
    ):
        monkeypatch.delenv(variable, raising=False)
    path = tmp_path / "pip.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(path))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    return path


def test_index_and_certificate_become_secrets(pip_config: Path, tmp_path: Path) -> None:
    """A mirror with its own certificate authority serves the build too, under the path that the Dockerfiles mount."""
    (tmp_path / "authority.pem").write_text("certificate")
    pip_config.write_text(
        f"[global]\nindex-url = https://mirror.example/simple\ncert = {tmp_path / 'authority.pem'}\n"
        "find-links = /opt/wheels\nextra-index-url = file:///opt/simple https://more.example/simple\n"
    )
    (tmp_path / "out").mkdir()
    secrets = pip_secrets(tmp_path / "out")
    assert secrets["ca.crt"].read_text() == "certificate"
    written = secrets["pip.conf"].read_text()
    assert {
        "index-url = https://mirror.example/simple",
        "extra-index-url = https://more.example/simple",
        "cert = /etc/pip-ca.crt",
    } <= set(written.splitlines())
    assert "/opt" not in written


def test_the_environment_wins_over_the_file(pip_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pip's own order holds: a variable replaces the file's value."""
    pip_config.write_text("[global]\nindex-url = https://file.example/simple\n")
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable.example/simple")
    assert "index-url = https://variable.example/simple" in pip_secrets(tmp_path)["pip.conf"].read_text()


@pytest.mark.usefixtures("pip_config")
def test_a_plain_machine_has_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is set, builds use pip's defaults."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)  # pip reads no file at all then
    assert pip_secrets(tmp_path) == {}
