"""Paths with any text as a segment: other Celery clients may choose ids of jobs that contain slashes."""

from __future__ import annotations

from urllib.parse import quote, unquote

from starlette.types import ASGIApp, Receive, Scope, Send

_JOBS = "/jobs/"


class WholeIds:
    """ASGI middleware that leaves the id in `/jobs/{id}` percent-encoded, so that it may contain a slash."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "http" and scope.get("raw_path"):
            begin = scope.get("root_path", "") + _JOBS
            raw = scope["raw_path"].decode("ascii", "replace").partition("?")[0]
            if raw.startswith(begin):
                encoded, slash, rest = raw.removeprefix(begin).partition("/")
                scope["path"] = begin + encoded + slash + unquote(rest)
        await self._app(scope, receive, send)


def segment(text: str) -> str:
    """Return `text` as one segment of a path."""
    return quote(text, safe="") if text.strip(".") else text.replace(".", "%2E")  # clients resolve `.` and `..`


def text_of(segment: str) -> str | None:
    """Return the text of a percent-encoded segment; None if it is not UTF-8."""
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError:
        return None
