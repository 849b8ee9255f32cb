"""Uploads: stream a file into the artifact store, for use by jobs."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import mimetypes
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Query, Request
from starlette.requests import ClientDisconnect

from api.deps import Ledger, Settings, Store
from api.http.bodies import refuse_upgrade
from api.http.problems import FieldError, Problem, problems
from shared.contract.artifacts import NAME_PATTERN, Artifact
from shared.errors import TransientFailure
from shared.ledger.ids import uuid7
from shared.storage import ArtifactStore, artifact_uri, is_full

_MEDIA_TYPE = re.compile(r"[\w.+-]{1,64}/[\w.+-]{1,64}", re.ASCII)
_SAYS_NOTHING = {"", "application/octet-stream", "application/x-www-form-urlencoded"}  # the last is curl's default
_SHA256 = re.compile(r"(?:^|,)\s*sha-256\s*=\s*:([A-Za-z0-9+/=]{1,64}):\s*(?=,|$)")
_CLOSE = {"Connection": "close"}  # else the server would read the rest of the body and discard it
_WRITE_BYTES = 1024 * 1024
_GRACE_S = 30.0  # the rate is not checked before this time, in seconds
_LEAST_BYTES_PER_S = 1024  # on average, after that

router = APIRouter(prefix="/uploads", tags=["uploads"])


@router.post(
    "",
    status_code=201,
    summary="Upload a file",
    responses=problems(400, 408, 413, 422, 507),
    openapi_extra={
        "requestBody": {
            "description": "The file's bytes; none for an empty file. `Content-Type` is stored as its media type.",
            "required": False,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload_file(
    *,
    request: Request,
    store: Store,
    settings: Settings,
    ledger: Ledger,
    name: Annotated[str, Query(pattern=f"^{NAME_PATTERN}$", description="The file's name.", examples=["sales.csv"])],
    content_digest: Annotated[
        str | None, Header(description="RFC 9530 digest to verify the body: `sha-256=:<base64>:`.")
    ] = None,
) -> Artifact:
    """Store the request's body. Use the `uri` in the response as the source of a job. Raises `Problem`."""
    refuse_upgrade(request)
    expected = _expected_digest(content_digest)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > settings.max_upload_bytes:
        raise _too_large(settings.max_upload_bytes)
    upload_id = uuid7()
    await ledger.upload(upload_id, retention_s=settings.retention_s)
    async with _staging(store, upload_id, name) as staged:
        digest = await _receive(request, staged, settings.max_upload_bytes)
        if expected not in (None, digest):
            mismatch = FieldError(pointer="Content-Digest", message="The received body has another digest.")
            raise Problem(
                422, "digest_mismatch", "The upload was corrupted in transit. Send it again.", errors=[mismatch]
            )
        return await asyncio.to_thread(
            store.put,
            staged,
            file_owner=upload_id,
            attempt=0,
            name=name,
            role="file",
            media_type=_media_type(request.headers.get("content-type", ""), name),
        )


@asynccontextmanager
async def _staging(store: ArtifactStore, upload_id: str, name: str) -> AsyncIterator[Path]:
    """Yield a path to write to; store the file only if the block succeeds. Raises `Problem` (507)."""
    try:
        staged = await asyncio.to_thread(_staging_folder, store, artifact_uri(upload_id, 0, name))
        try:
            yield Path(staged.name) / "content"
        finally:
            with anyio.CancelScope(shield=True):
                await asyncio.to_thread(staged.cleanup)
    except BaseException as failure:
        with anyio.CancelScope(shield=True):
            await asyncio.to_thread(store.forget, upload_id)
        if _is_full(failure):
            raise Problem(
                507, "store_full", "The store has no space for the file. Ask the operator to free some."
            ) from failure
        raise


def _is_full(failure: BaseException) -> bool:
    if isinstance(failure, OSError):
        return is_full(failure)
    return isinstance(failure, TransientFailure) and failure.code == "store_full"


def _staging_folder(store: ArtifactStore, uri: str) -> tempfile.TemporaryDirectory[str]:
    """Return a folder on the store's disk if it is local, so that the finished file is only renamed."""
    if not store.is_local:
        return tempfile.TemporaryDirectory(prefix="upload-")
    beside = Path(store.path(uri)).parent
    beside.mkdir(parents=True)
    return tempfile.TemporaryDirectory(prefix="upload-", dir=beside)


async def _receive(request: Request, target: Path, max_bytes: int) -> bytes:
    """Write the body to `target`, part by part, and return its SHA-256. Raises `Problem`."""
    digest, size_bytes, pending = hashlib.sha256(), 0, bytearray()
    started = asyncio.get_running_loop().time()
    with await asyncio.to_thread(target.open, "wb") as written:

        def flush() -> None:
            digest.update(pending)
            written.write(pending)

        try:
            async with asyncio.timeout(_GRACE_S) as bound:
                async for part in request.stream():
                    size_bytes += len(part)
                    if size_bytes > max_bytes:
                        raise _too_large(max_bytes)
                    pending += part
                    if len(pending) >= _WRITE_BYTES:
                        await asyncio.to_thread(flush)
                        pending.clear()
                    bound.reschedule(started + _GRACE_S + size_bytes / _LEAST_BYTES_PER_S)
                await asyncio.to_thread(flush)
        except TimeoutError:
            raise Problem(
                408,
                "upload_too_slow",
                f"The body was sent too slowly. Send at least {_LEAST_BYTES_PER_S} bytes/s.",
                headers=_CLOSE,
            ) from None
        except ClientDisconnect:
            raise Problem(
                400, "upload_cut", "The connection ended before the body was complete. Send it again."
            ) from None
    return digest.digest()


def _expected_digest(content_digest: str | None) -> bytes | None:
    """Return the SHA-256 of a Content-Digest header; other algorithms are ignored, as in RFC 9530."""
    if content_digest is None or not (found := _SHA256.search(content_digest)):
        return None
    try:
        digest = base64.b64decode(found[1], validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        wrong = FieldError(pointer="Content-Digest", message="sha-256 must be 32 bytes in base64 between colons.")
        raise Problem(422, "invalid_request", "A header of the request is invalid.", errors=[wrong])
    return digest


def _media_type(content_type: str, name: str) -> str:
    declared = content_type.partition(";")[0].strip().lower()
    if declared in _SAYS_NOTHING or not _MEDIA_TYPE.fullmatch(declared):
        declared = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return declared


def _too_large(max_bytes: int) -> Problem:
    return Problem(
        413, "upload_too_large", f"An upload may have at most {max_bytes} bytes. Compress or split it.", headers=_CLOSE
    )
