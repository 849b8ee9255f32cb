"""A complete service for tests: broker, gateway and workers, as `celeriac up` runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from celeriac import start
from celeriac.ports import HOST, free_port
from shared.contract.artifacts import Artifact
from shared.contract.definition import Contract
from shared.ledger.states import FINAL_STATES
from shared.storage import ArtifactStore

_TETHER = start.ROOT / "cli" / "local" / "tether.py"
_BROKER_VARIABLES = {"CELERY_BROKER_URL", "CELERIAC_BROKER_URL"}  # with these, it would start no broker
_READY_WITHIN_S = 150.0
_STOPPED_WITHIN_S = 60.0
_ANSWER_WITHIN_S = 30.0
_LOOK_EVERY_S = 0.1
_WAIT_S = 10.0  # of one request for the end of a job

_http = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine


class Refused(Exception):
    """The gateway refused a request; the text is its problem document."""


@dataclass(frozen=True)
class Service:
    """A running service."""

    url: str
    broker_url: str
    folder: Path

    def submit(self, job: Contract[Any], **options: Any) -> str:
        """Submit a job with the options of `POST /jobs`; return its id. Raises `Refused`."""
        params = job.model_dump(mode="json", exclude_unset=True)
        return str(self.call("POST", "/jobs", {"kind": job.spec.kind, "params": params, "options": options})["id"])

    def ended(self, job_id: str, *, within_s: float = 60) -> dict[str, Any]:
        """Return the job, in the form of `GET /jobs/{id}`, once it has ended. Raises `TimeoutError`."""
        deadline = time.monotonic() + within_s
        while (left_s := deadline - time.monotonic()) > 0:
            job = self.call("GET", f"/jobs/{job_id}?wait_s={min(left_s, _WAIT_S):.3f}")
            if job["state"] in FINAL_STATES:
                return job
        raise TimeoutError(f"job {job_id} did not end within {within_s:g} s")

    def run(self, job: Contract[Any], *, within_s: float = 60, **options: Any) -> dict[str, Any]:
        """Submit a job and return it once it has ended."""
        return self.ended(self.submit(job, **options), within_s=within_s)

    def store_file(self, content: bytes | str, name: str) -> Artifact:
        """Upload a file, and return its reference: `.uri` is what a job names it by."""
        body = content.encode() if isinstance(content, str) else content
        return Artifact(**self._answer("POST", f"/uploads?name={quote(name)}", body, "application/octet-stream"))

    def read_file(self, uri: str) -> bytes:
        """Return the content of a file that a job has published, or that was uploaded."""
        with ArtifactStore(str(self.folder / "artifacts")).open(uri) as stream:
            return stream.read()

    def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Make any call of the HTTP interface; return its JSON. Raises `Refused`."""
        return self._answer(method, path, None if body is None else json.dumps(body).encode(), "application/json")

    def _answer(self, method: str, path: str, body: bytes | None, media_type: str) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - the address is our own
            self.url + path, body, {"Content-Type": media_type}, method=method
        )
        try:
            with _http.open(request, timeout=_ANSWER_WITHIN_S) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as refused:
            with refused:
                raise Refused(refused.read().decode()) from None


@contextmanager
def running_service(folder: Path, environment: Mapping[str, str]) -> Iterator[Service]:
    """Run a service with its data in `folder` until the block ends; `environment` has its further variables.

    It ends with this process, however that ends. Raises `RuntimeError` with what it said if it does not start.
    """
    port, valkey_port = free_port(), free_port()
    said = folder / "said.txt"
    options = ["--port", str(port), "--valkey-port", str(valkey_port), "--data", str(folder)]
    ends_with_us = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), str(int(signal.SIGTERM))]
    folder.mkdir(parents=True, exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if name not in _BROKER_VARIABLES}
    with said.open("wb") as output:
        process = subprocess.Popen(
            [*ends_with_us, *start.command("cli.app", "up", *options)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**inherited, **environment},
        )
    try:
        deadline = time.monotonic() + _READY_WITHIN_S
        while "ready; Ctrl-C" not in said.read_text(encoding="utf-8"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the service did not start:\n{said.read_text(encoding='utf-8')}")
            time.sleep(_LOOK_EVERY_S)
        yield Service(f"http://{HOST}:{port}", f"redis://{HOST}:{valkey_port}/0", folder)
    finally:
        process.terminate()
        try:
            process.wait(_STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()  # its programs end with it
            process.wait()
