"""Errors for clients: RFC 9457 problem documents with a stable ``code``.

Raise `Problem` anywhere below a route. Other exceptions become one here; their text appears only in the log.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from asgi_correlation_id import correlation_id
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import DamagedRecord, LedgerFull, LedgerUnavailable, OutcomeUnknown
from shared.ledger.calling.calls import Asked, asked
from shared.texts import redact

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 100  # in one document: a workflow of a thousand steps may have several errors in each
_log = structlog.get_logger(__name__)


class FieldError(BaseModel):
    """An error in one field."""

    model_config = ConfigDict(frozen=True)

    pointer: str = Field(
        description="JSON pointer (RFC 6901) into the body, or the name of the query parameter or header.",
        examples=["/params/source/url"],
    )
    message: str = Field(description="What is wrong, and what is expected.")


class ProblemDocument(BaseModel):
    """An error: RFC 9457 problem details."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(description="URN of the kind of problem.", examples=["urn:celeriac:problem:unknown_job"])
    title: str = Field(description="The kind of problem in words; the same for every occurrence.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What happened, and what to do.")
    instance: str = Field(description="Path of the request.")
    code: str = Field(description="Stable name of the kind of problem, for programs.", examples=["unknown_job"])
    request_id: str = Field(description="Id of the request, also in the header X-Request-ID and in the logs.")
    errors: list[FieldError] = Field(description="The invalid fields; empty if the error is not in a field.")


class Problem(Exception):
    """Answer the request with a problem document."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = list(errors[:MOST_ERRORS])
        self.headers = dict(headers or {})

    def response(self, path: str) -> Response:
        """Return the answer to a request for `path`."""
        document = ProblemDocument(
            type=f"urn:celeriac:problem:{self.code}",
            title=self.code.replace("_", " ").capitalize(),
            status=self.status,
            detail=self.detail,
            instance=path,
            code=self.code,
            request_id=_request_id(),
            errors=self.errors,
        )
        return Response(to_json(document), self.status, self.headers, MEDIA_TYPE)


def wrong_field(pointer: str, message: str) -> Problem:
    """Return the refusal of a body for one of its fields."""
    error = FieldError(pointer=pointer, message=message)
    return Problem(422, "invalid_request", f"{pointer}: {message}", errors=[error])


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route: these statuses are problem documents."""
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem document."""

    @app.exception_handler(Problem)
    async def problem(request: Request, raised: Problem) -> Response:
        return raised.response(request.url.path)

    _install_for_ledger(app)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, raised: RequestValidationError) -> Response:
        errors = [
            FieldError(
                pointer=str(error["loc"][min(1, len(error["loc"]) - 1)]), message=f"{error['msg']} ({error['loc'][0]})."
            )
            for error in raised.errors()
        ]
        return Problem(422, "invalid_request", "A parameter of the request is invalid.", errors=errors).response(
            request.url.path
        )

    @app.exception_handler(HTTPException)
    async def refused(request: Request, raised: HTTPException) -> Response:
        if raised.status_code < HTTPStatus.BAD_REQUEST:  # 204 and 304 end a request early and are not errors
            return Response(status_code=raised.status_code, headers=raised.headers)
        phrase = HTTPStatus(raised.status_code).phrase
        code = phrase.lower().replace(" ", "_").replace("-", "_")
        detail = f"{request.method} {request.url.path}: {phrase.lower()}. See /docs for the API."
        headers = dict(raised.headers or {})
        if raised.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_methods(request))
        return Problem(raised.status_code, code, detail, headers=headers).response(request.url.path)


def _install_for_ledger(app: FastAPI) -> None:
    """Answer each failure of the ledger with what is known about the request: changed nothing, or unknown."""

    @app.exception_handler(LedgerUnavailable)
    async def unavailable(request: Request, raised: LedgerUnavailable) -> Response:
        _log.warning("ledger unavailable", cause=redact(repr(raised.__cause__)))
        if _may_have_changed():
            return _outcome_unknown("The ledger does not respond").response(request.url.path)
        detail = "The ledger does not respond; nothing was accepted or changed. Retry the request."
        return Problem(503, "ledger_unavailable", detail, headers={"Retry-After": "2"}).response(request.url.path)

    @app.exception_handler(OutcomeUnknown)
    async def unknown(request: Request, raised: OutcomeUnknown) -> Response:
        _log.warning("outcome unknown", path=redact(request.url.path), cause=redact(repr(raised.__cause__ or raised)))
        return _outcome_unknown("The ledger did not respond in time").response(request.url.path)

    @app.exception_handler(DamagedRecord)
    async def damaged(request: Request, raised: DamagedRecord) -> Response:
        _log.error("damaged record", job_id=raised.job_id, cause=str(raised))
        detail = (
            f"The ledger's record of job {raised.job_id} cannot be read: {raised}. "
            "Ask the operator to look at it in Redis, or remove it with DELETE."
        )
        return Problem(409, "damaged_record", detail).response(request.url.path)

    @app.exception_handler(LedgerFull)
    async def full(request: Request, raised: LedgerFull) -> Response:
        if _may_have_changed():
            return _outcome_unknown(f"The ledger is full ({raised})").response(request.url.path)
        detail = (
            f"The ledger is full ({raised}); nothing was accepted or changed. Retry later, or ask the operator to "
            "give it more memory or disk or to delete jobs that have ended."
        )
        return Problem(507, "ledger_full", detail, headers={"Retry-After": "30"}).response(request.url.path)


def _may_have_changed() -> bool:
    current = asked.get()
    return current is not None and current.may_have_changed


def _outcome_unknown(why: str) -> Problem:
    detail = (
        f"{why}, so it is not known whether, or how far, the request was carried out. Repeat it: a submission with the "
        "same Idempotency-Key is accepted only once. Without a key, first check whether its job exists."
    )
    return Problem(503, "outcome_unknown", detail, headers={"Retry-After": "2"})


def _methods(request: Request) -> list[str]:
    """Return the methods of all routes with the request's path; the router returns those of the first only."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in routes for method in getattr(route, "methods", None) or ()})


class LastResort:
    """ASGI middleware that answers an unexpected exception with a problem document without details.

    The log has the error's type and place, under the request's id. Its text is redacted: it may quote a URL.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        started = False
        asked.set(Asked(asyncio.get_running_loop().time()))

        async def observed(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception as defect:
            frames = redact("".join(traceback.format_tb(defect.__traceback__)[-8:]))
            _log.error(
                "defect",
                path=redact(str(scope.get("path"))),
                error=redact(repr(defect)),
                request_id=_request_id(),
                at=frames,
            )
            if started or scope["type"] != "http":
                raise
            detail = "Internal error of the gateway. Ask its operator to look up the request_id in the log."
            await Problem(500, "internal_error", detail).response(scope["path"])(scope, receive, send)


def _request_id() -> str:
    return correlation_id.get() or ""
