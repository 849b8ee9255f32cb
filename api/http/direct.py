"""Routes whose usual requests skip FastAPI's reading of parameters, which costs as much as accepting a job.

They are FastAPI's routes: in the document, measured, and refused like all others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class DirectRoute(APIRoute):
    """A route that calls its endpoint itself where nothing but the path has to be read.

    A request is plain if it has no query, none of the headers that the endpoint declares, and ids in the path as the
    service writes them: all other parameters have their defaults then. The endpoint takes the request, and the ids as
    text, and returns a response. All other requests go through FastAPI.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take what `APIRoute` takes."""
        super().__init__(*arguments, **options)
        self._parsing = self.app
        self._declared = frozenset(_header_names(self.dependant))
        self.app = self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_plain(scope):
            response = await self.endpoint(Request(scope, receive), **scope["path_params"])
            await response(scope, receive, send)
        else:
            await self._parsing(scope, receive, send)

    def _is_plain(self, scope: Scope) -> bool:
        return (
            not scope["query_string"]
            and self._declared.isdisjoint([name for name, _ in scope["headers"]])
            and all(_ID.fullmatch(text) for text in scope["path_params"].values())
        )


def _header_names(dependant: Dependant) -> Iterator[bytes]:
    """Yield the headers that an endpoint and its dependencies declare."""
    for parameter in dependant.header_params:
        yield parameter.alias.lower().encode("latin-1")
    for dependency in dependant.dependencies:
        yield from _header_names(dependency)
