"""Uploads to a gateway process, by well-meaning and other clients."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.storage import ArtifactStore
from tests.support.servers.disks import small_disk
from tests.support.servers.services import Server, gateway_server, http_client, wait_for

pytestmark = pytest.mark.integration
MAX_BYTES = 4 * 1024**2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store's folder."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def gateway(valkey: Server, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a gateway that takes uploads of up to 4 MiB."""
    env = {
        "CELERY_BROKER_URL": valkey.redis_url,
        "CELERIAC_STORE_URL": str(folder),
        "CELERIAC_MAX_UPLOAD_BYTES": str(MAX_BYTES),
    }
    with gateway_server(tmp_path_factory.mktemp("gateway"), **env) as server:
        yield server


def stored(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_an_upload_is_stored_as_it_came(gateway: Server, folder: Path) -> None:
    """201 with a reference that the store knows: name, type, size and digest are the body's."""
    content = os.urandom(3 * 1024**2 + 5)
    answer = http_client.post(
        f"{gateway.url}/uploads",
        params={"name": "sales.csv"},
        content=(content[start : start + 100_000] for start in range(0, len(content), 100_000)),
        headers={"Content-Type": "text/csv; charset=utf-8"},
    )
    artifact = answer.json()
    assert (answer.status_code, artifact["name"], artifact["role"]) == (201, "sales.csv", "file")
    assert (artifact["media_type"], artifact["size_bytes"]) == ("text/csv", len(content))
    assert artifact["sha256"] == hashlib.sha256(content).hexdigest()
    with ArtifactStore(str(folder)).open(artifact["uri"]) as stream:
        assert stream.read() == content
    (upload_id,) = {path.relative_to(folder).parts[0] for path in stored(folder) if path.name == "sales.csv"}
    assert artifact["uri"] == f"artifact://{upload_id}/0/sales.csv"
    assert [path.name for path in (folder / upload_id).rglob("*")] == ["0", "sales.csv"]


@pytest.mark.parametrize(
    ("name", "declared", "expected"),
    [
        ("a.csv", None, "text/csv"),
        ("a.csv", "application/x-www-form-urlencoded", "text/csv"),
        ("a.parquet", "application/vnd.apache.parquet", "application/vnd.apache.parquet"),
        ("a", "text/é; x", "application/octet-stream"),
    ],
)
def test_the_media_type_is_the_declared_one_or_that_of_the_name(
    gateway: Server, name: str, declared: str | None, expected: str
) -> None:
    """What says nothing, or nothing sensible, gives way to what the name tells; an empty file is one, too."""
    headers = [(b"Content-Type", declared.encode())] if declared else []
    answer = http_client.post(f"{gateway.url}/uploads", params={"name": name}, content=b"", headers=headers)
    assert (answer.status_code, answer.json()["media_type"], answer.json()["size_bytes"]) == (201, expected, 0)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\\b", "a\x00b", "a\r\nX: y", "a\n", ".hidden", "é.csv", "a" * 129],
)
def test_a_name_that_is_none_is_refused(gateway: Server, folder: Path, name: str) -> None:
    """A name that could lead elsewhere or break a header is a 422 that names the parameter; nothing is stored."""
    before = stored(folder)
    answer = http_client.post(f"{gateway.url}/uploads", params={"name": name}, content=b"x")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "name")
    assert before == stored(folder)


@pytest.mark.parametrize("announced", [True, False])
def test_an_upload_that_is_too_large_is_refused(gateway: Server, folder: Path, announced: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """413, at once if the size is announced, else when the limit is passed; nothing is stored."""
    before = stored(folder)
    content = bytes(MAX_BYTES + 1)
    body = content if announced else iter([content[:-1], content[-1:]])
    answer = http_client.post(f"{gateway.url}/uploads", params={"name": "a.bin"}, content=body)
    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
    assert before == stored(folder)


def test_a_digest_is_checked(gateway: Server, folder: Path) -> None:
    """A matching `Content-Digest` passes, another one is refused and leaves nothing, other algorithms are ignored."""
    right = base64.b64encode(hashlib.sha256(b"content").digest()).decode()
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()

    def upload(digest: str) -> tuple[int, str | None]:
        url = f"{gateway.url}/uploads?name=a.bin"
        answer = http_client.post(url, content=b"content", headers={"Content-Digest": digest})
        return answer.status_code, answer.json().get("code")

    assert upload(f"md5=:AAAA:, sha-256=:{right}:") == (201, None)
    assert upload("md5=:AAAA:") == (201, None)
    before = stored(folder)
    assert upload(f"sha-256=:{wrong}:") == (422, "digest_mismatch")
    assert upload("sha-256=:AAAA:") == (422, "invalid_request")
    assert upload("sha-256=:A:") == (422, "invalid_request")
    assert before == stored(folder)


def test_an_upload_that_is_cut_off_leaves_nothing(gateway: Server, folder: Path) -> None:
    """A connection that ends in the middle of the body: what had arrived is removed, with its folder."""
    before = set(folder.iterdir())
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        head = f"POST /uploads?name=a.bin HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {MAX_BYTES}\r\n\r\n"
        connection.sendall(head.encode() + bytes(2 * 1024**2))
        wait_for(lambda: set(folder.iterdir()) - before, "the upload's folder")
    wait_for(lambda: set(folder.iterdir()) == before, "the removal of the folder")


def test_many_uploads_at_once_do_not_hold_up_other_requests(gateway: Server) -> None:
    """While clients dawdle in the middle of their uploads, the gateway answers others."""
    head = b"POST /uploads?name=a.bin HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\nbegin"
    slow = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(50)]
    try:
        for connection in slow:
            connection.sendall(head)
        assert http_client.get(f"{gateway.url}/livez").status_code == 200
        assert http_client.post(f"{gateway.url}/uploads?name=b.bin", content=b"x").status_code == 201
    finally:
        for connection in slow:
            connection.close()


def test_a_full_store_says_so_and_keeps_nothing(valkey: Server, tmp_path: Path) -> None:
    """507 with a code of its own; what fits afterwards is stored."""
    with small_disk(tmp_path / "store", 1024 * 1024) as disk:
        env = {"CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(disk)}
        with gateway_server(tmp_path, **env) as small:
            url = f"{small.url}/uploads?name=a.bin"
            answer = http_client.post(url, content=b"x" * 2 * 1024**2)
            assert (answer.status_code, answer.json()["code"]) == (507, "store_full")
            assert stored(disk) == set()
            assert http_client.post(url, content=b"x").status_code == 201
