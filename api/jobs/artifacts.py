"""The files of a job: list and download."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Annotated
from urllib.parse import quote

import anyio
from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Send

from api.deps import Store
from api.http.paths import segment
from api.http.problems import FieldError, Problem, problems
from api.http.ranges import requested_range
from api.jobs.selection import FoundJob
from api.jobs.waiting import knows
from shared.contract.artifacts import Artifact
from shared.errors import TaskFailure
from shared.ledger.records import Record
from shared.storage import ArtifactStore

_CHUNK_BYTES = 256 * 1024
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,64}/[\w.+-]{1,64}(; ?charset=[\w-]{1,32})?", re.ASCII)

router = APIRouter(prefix="/jobs/{job_id}/artifacts", tags=["jobs"])


class JobArtifact(BaseModel):
    """A file of a job or of one of its steps."""

    model_config = ConfigDict(frozen=True)

    artifact: Artifact = Field(description="The file.")
    step: str | None = Field(description="The step that made it, if the job is a workflow.")
    href: str = Field(description="URL of its content.")


class JobArtifacts(BaseModel):
    """The files of a job."""

    model_config = ConfigDict(frozen=True)

    artifacts: list[JobArtifact] = Field(description="The files, in the order of the steps.")


@router.get("", summary="List a job's files", responses=problems(404, 410, 422, 503))
async def list_artifacts(job: FoundJob) -> JobArtifacts:
    """Return the files that the job and its steps recorded when they ended."""
    return JobArtifacts(artifacts=list(_artifacts(job)))


@router.get(
    "/{name}",
    summary="Download a file",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "The file; its ETag is its SHA-256.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        206: {
            "description": "The part requested by `Range`.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        304: {"description": "The file matches `If-None-Match`."},
        **problems(404, 410, 416, 422, 503),
    },
)
async def download_artifact(
    *,
    job: FoundJob,
    store: Store,
    name: Annotated[str, Path(max_length=128, description="The file's name.")],
    step: Annotated[str | None, Query(max_length=128, description="The step that made it.")] = None,
    range_: Annotated[
        str | None, Header(alias="Range", description="One range of bytes; several ranges return the whole file.")
    ] = None,
    if_range: Annotated[str | None, Header(description="Apply `Range` only if the file has this ETag.")] = None,
    if_none_match: Annotated[str | None, Header(description="Known ETags: 304 if the file has one of them.")] = None,
) -> Response:
    """Send a file that the job recorded, whole or in part. Raises `Problem`."""
    artifact = _named(job, name, step).artifact
    etag = f'"{artifact.sha256}"'
    headers = _headers(artifact, etag)
    if if_none_match is not None and knows(if_none_match, etag, "*"):
        return Response(status_code=304, headers=headers)
    wanted = None
    if range_ is not None and if_range in (None, etag):
        wanted = requested_range(range_, artifact.size_bytes)
    start, stop = wanted or (0, artifact.size_bytes)
    headers["Content-Length"] = str(stop - start)
    if wanted:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{artifact.size_bytes}"
    await _check_stored(store, artifact)
    return _FileResponse(_chunks(store, artifact.uri, start, stop), 206 if wanted else 200, headers)


class _FileResponse(StreamingResponse):
    """A stream whose file is closed when the client disconnects."""

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self.body_iterator):  # type: ignore[type-var]  # _chunks is a generator
            await super().stream_response(send)


def _artifacts(job: Record) -> Iterator[JobArtifact]:
    for record in (job, *job.steps):
        for recorded in json.loads(record.artifacts):
            # A dataset has fields beyond a reference's; they are in its job's result.
            artifact = Artifact.model_validate({name: recorded[name] for name in Artifact.model_fields})
            query = f"?step={quote(record.step, safe='')}" if record.step else ""
            href = f"/jobs/{segment(job.id)}/artifacts/{quote(artifact.name, safe='')}{query}"
            yield JobArtifact(artifact=artifact, step=record.step, href=href)


def _named(job: Record, name: str, step: str | None) -> JobArtifact:
    found = [each for each in _artifacts(job) if each.artifact.name == name and step in (None, each.step)]
    if not found:
        there = sorted({each.artifact.name for each in _artifacts(job)})
        raise Problem(
            404,
            "unknown_artifact",
            f"The job has no file of this name{' and step' if step else ''}. Its files: {', '.join(there) or 'none'}.",
        )
    if len(found) > 1:
        steps = ", ".join(each.step or "" for each in found)
        missing = FieldError(pointer="step", message=f"Set the step to one of: {steps}.")
        raise Problem(422, "ambiguous_artifact", "Several steps have a file of this name.", errors=[missing])
    return found[0]


def _headers(artifact: Artifact, etag: str) -> dict[str, str]:
    """Return the file's headers. Nothing that a task chose freely may end a header or run in a page."""
    media_type = artifact.media_type if _MEDIA_TYPE.fullmatch(artifact.media_type) else "application/octet-stream"
    name = artifact.uri.rsplit("/", 1)[1]  # letters, digits, dot, underscore and hyphen, as its pattern says
    digest = base64.b64encode(bytes.fromhex(artifact.sha256)).decode()
    return {
        "Content-Type": media_type,
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Security-Policy": "sandbox",
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Repr-Digest": f"sha-256=:{digest}:",
        "Cache-Control": "private, no-cache",
    }


async def _check_stored(store: ArtifactStore, artifact: Artifact) -> None:
    try:
        await asyncio.to_thread(store.size_bytes, artifact.uri)
    except TaskFailure as missing:
        raise Problem(410, "artifact_gone", f"{artifact.name} is no longer in the store.") from missing


async def _chunks(store: ArtifactStore, uri: str, start: int, stop: int) -> AsyncIterator[bytes]:
    """Yield the bytes `start` .. `stop` (exclusive), read in threads, and close the file whatever happens."""
    content = await asyncio.to_thread(store.open, uri)
    try:
        await asyncio.to_thread(content.seek, start)
        while start < stop and (chunk := await asyncio.to_thread(content.read, min(_CHUNK_BYTES, stop - start))):
            start += len(chunk)
            yield chunk
    finally:
        with anyio.CancelScope(shield=True):
            await asyncio.to_thread(content.close)
