"""A server that speaks the API of Amazon SQS: moto's, on a free port of 127.0.0.1."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.servers.absent import absent
from tests.support.servers.services import free_port, wait_for


def require_moto() -> None:
    """Skip the test where moto's server is not installed; where CI=true it has to be."""
    if all(importlib.util.find_spec(name) for name in ("moto", "flask_cors", "boto3", "pycurl")):
        return
    absent("moto's server is not installed (it is in the extra dev)")


@contextmanager
def sqs_server(folder: Path) -> Iterator[str]:
    """Yield the URL of an empty SQS, as a broker."""
    folder.mkdir(parents=True)
    port, log = free_port(), folder / "moto.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(lambda: _answers(port) or process.poll() is not None, "moto's server")
        assert process.poll() is None, log.read_text()
        yield f"sqs://key:secret@127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/moto-api/data.json", trust_env=False).is_success
    except httpx.TransportError:
        return False
