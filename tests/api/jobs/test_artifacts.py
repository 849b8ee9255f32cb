"""A job's files over HTTP; the test is the worker that made them."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.ledger.client import Ledger
from shared.storage import ArtifactStore
from tests.support.by_hand import PARTITIONED, HandRun, hand, submitted
from tests.support.servers.services import Server, gateway_server, http_client, wait_for

pytestmark = pytest.mark.integration
CONTENT = os.urandom(700_000)  # some chunks, and a part of one


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store's folder."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def store(folder: Path) -> ArtifactStore:
    """Return the store that gateway and worker share."""
    return ArtifactStore(str(folder))


@pytest.fixture(scope="module")
def gateway(valkey: Server, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a gateway on that store."""
    env = {"CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(folder)}
    with gateway_server(tmp_path_factory.mktemp("gateway"), **env) as server:
        yield server


@pytest.fixture(scope="module")
def ledger(valkey: Server) -> Iterator[Ledger]:
    """Return the worker's side."""
    with hand(valkey.port) as worker_side:
        yield worker_side


def put(store: ArtifactStore, run: HandRun, scratch: Path, name: str, content: bytes = CONTENT) -> dict[str, Any]:
    """Store a file as a worker does; return its reference."""
    local = scratch / "content"
    local.write_bytes(content)
    artifact = store.put(local, file_owner=run.id, attempt=1, name=name, role="file", media_type="text/csv")
    return artifact.model_dump()


def test_a_deleted_job_leaves_no_file(job: HandRun, gateway: Server, folder: Path) -> None:
    """Its folder in the store goes with its record."""
    assert (folder / job.id).is_dir()
    assert http_client.delete(f"{gateway.url}/jobs/{job.id}").status_code == 204
    assert not (folder / job.id).exists()


@pytest.fixture
def job(gateway: Server, ledger: Ledger, store: ArtifactStore, tmp_path: Path) -> HandRun:
    """Return a job that has ended with a file `data.csv`."""
    run = submitted(gateway.url, ledger)
    run.claim()
    run.succeed(put(store, run, tmp_path, "data.csv"))
    return run


def test_the_files_of_a_job_are_listed_with_where_to_get_them(gateway: Server, job: HandRun) -> None:
    """Each file with its reference and a link that downloads it."""
    (listed,) = http_client.get(f"{gateway.url}/jobs/{job.id}/artifacts").json()["artifacts"]
    assert (listed["step"], listed["artifact"]["name"], listed["artifact"]["size_bytes"]) == (None, "data.csv", 700_000)
    assert http_client.get(gateway.url + listed["href"]).content == CONTENT


def test_a_download_is_safe_to_open(gateway: Server, job: HandRun) -> None:
    """The headers name type, size and digest, and keep a browser from running what a job wrote."""
    answer = http_client.get(f"{gateway.url}/jobs/{job.id}/artifacts/data.csv")
    names = ["content-type", "content-length", "content-disposition", "x-content-type-options", "etag"]
    digest = hashlib.sha256(CONTENT).hexdigest()
    expected = ["text/csv", "700000", 'attachment; filename="data.csv"', "nosniff", f'"{digest}"']
    assert expected == [answer.headers[name] for name in names]


def test_a_known_file_is_not_sent_again(gateway: Server, job: HandRun) -> None:
    """`If-None-Match` with the file's ETag, weak or in a list, is a 304 without a body."""
    url = f"{gateway.url}/jobs/{job.id}/artifacts/data.csv"
    etag = http_client.get(url).headers["etag"]
    for known in (etag, f'"x", W/{etag}', "*"):
        answer = http_client.get(url, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content) == (304, b"")
    assert http_client.get(url, headers={"If-None-Match": '"x"'}).status_code == 200


def test_a_download_goes_on_where_it_was_cut(gateway: Server, job: HandRun) -> None:
    """A range is a 206 with just that part, where `If-Range` names this file; else the whole is sent."""
    url = f"{gateway.url}/jobs/{job.id}/artifacts/data.csv"
    part = http_client.get(url, headers={"Range": "bytes=300000-600000"})
    assert (part.status_code, part.content) == (206, CONTENT[300_000:600_001])
    assert part.headers["content-range"] == "bytes 300000-600000/700000"
    same = http_client.get(url, headers={"Range": "bytes=-5", "If-Range": part.headers["etag"]})
    assert (same.status_code, same.content) == (206, CONTENT[-5:])
    other = http_client.get(url, headers={"Range": "bytes=-5", "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, CONTENT)


def test_a_hostile_range_costs_no_more_than_the_file(gateway: Server, job: HandRun) -> None:
    """Thousands of ranges are ignored; one outside of the file is a 416 problem."""
    url = f"{gateway.url}/jobs/{job.id}/artifacts/data.csv"
    many = http_client.get(url, headers={"Range": "bytes=" + ",".join(["0-"] * 5_000)})
    assert (many.status_code, len(many.content)) == (200, 700_000)
    outside = http_client.get(url, headers={"Range": "bytes=700000-"})
    assert (outside.status_code, outside.json()["code"]) == (416, "range_not_satisfiable")
    assert outside.headers["content-range"] == "bytes */700000"


@pytest.mark.parametrize(
    "name",
    [
        "other.csv",
        "%2e%2e",
        "../../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e%2f1%2fdata.csv",
        "data.csv%00",
        "data.csv%0d%0aX-Injected:%20yes",
        "/etc/passwd",
        "x" * 5_000,
    ],
)
def test_only_recorded_files_are_served(gateway: Server, job: HandRun, name: str) -> None:
    """Whatever path a name spells: 404 or 422, and nothing of it in the headers."""
    answer = http_client.get(f"{gateway.url}/jobs/{job.id}/artifacts/{name}")
    assert answer.status_code in (404, 422), answer.text
    assert "x-injected" not in answer.headers


def test_a_media_type_made_by_a_task_cannot_inject_headers(
    gateway: Server, ledger: Ledger, store: ArtifactStore, tmp_path: Path
) -> None:
    """A record's media type with line ends or letters beyond ASCII is served as plain bytes."""
    run = submitted(gateway.url, ledger)
    run.claim()
    files = [put(store, run, tmp_path, name) for name in ("a.csv", "b.csv")]
    run.succeed(files[0] | {"media_type": "text/html\r\nX-Injected: yes"}, files[1] | {"media_type": "text/é"})
    for name in ("a.csv", "b.csv"):
        answer = http_client.get(f"{gateway.url}/jobs/{run.id}/artifacts/{name}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/octet-stream")
        assert "x-injected" not in answer.headers


def test_the_same_name_in_two_steps_needs_the_step(
    gateway: Server, ledger: Ledger, store: ArtifactStore, tmp_path: Path
) -> None:
    """Without `step` the problem names the steps; with it the right file comes."""
    job = submitted(gateway.url, ledger, PARTITIONED)
    for number, step in enumerate(job.steps()[:2]):
        step.claim()
        step.succeed(put(store, step, tmp_path, "data.csv", b"of step %d" % number))
    url = f"{gateway.url}/jobs/{job.id}/artifacts"
    listed = http_client.get(url).json()["artifacts"]
    assert [http_client.get(gateway.url + each["href"]).content for each in listed] == [b"of step 0", b"of step 1"]
    ambiguous = http_client.get(f"{url}/data.csv")
    assert (ambiguous.status_code, ambiguous.json()["code"]) == (422, "ambiguous_artifact")
    assert all(each["step"] in ambiguous.json()["errors"][0]["message"] for each in listed)


def test_a_file_that_the_store_has_lost_is_gone(gateway: Server, job: HandRun, store: ArtifactStore) -> None:
    """A recorded file that is no longer stored is a 410 problem, before any content."""
    store.forget(job.id)
    answer = http_client.get(f"{gateway.url}/jobs/{job.id}/artifacts/data.csv")
    assert (answer.status_code, answer.json()["code"]) == (410, "artifact_gone")


def test_a_download_that_is_cut_off_closes_the_file(
    gateway: Server, ledger: Ledger, store: ArtifactStore, tmp_path: Path
) -> None:
    """A client that leaves in the middle leaves no open file in the gateway."""
    run = submitted(gateway.url, ledger)
    run.claim()
    run.succeed(put(store, run, tmp_path, "large.csv", bytes(64 * 1024**2)))
    path = store.path(f"artifact://{run.id}/1/large.csv")

    def is_open() -> bool:
        links = Path(f"/proc/{gateway.process.pid}/fd").iterdir()
        return any(link.exists() and str(link.readlink()) == path for link in links)

    # A small receive buffer: the kernel's own can grow until it holds the whole file.
    narrow = httpx.HTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)])
    url = f"{gateway.url}/jobs/{run.id}/artifacts/large.csv"
    with httpx.Client(transport=narrow) as client, client.stream("GET", url) as answer:
        parts = answer.iter_raw()  # kept: the stream closes with its iterator
        next(parts)
        wait_for(is_open, "the download")
    wait_for(lambda: not is_open(), "the closing of the file")
