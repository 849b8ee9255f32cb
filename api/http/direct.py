"""Routes whose usual requests skip FastAPI's reading of parameters, which costs as much as accepting a job.

They are FastAPI's routes: in the document, measured, and refused like all others.
"""

from __future__ import annotations

import re
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class DirectRoute(APIRoute):
    """A route that calls its endpoint itself where only the path and headers have to be read.

    The endpoint takes the request, the ids of its path, and as keywords with defaults whatever else it wants; it
    returns a response. A request with a query, with an id that is not written as the service writes it, or with a
    header that is sent twice or wrong, goes through FastAPI, which refuses it where that is right.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take what `APIRoute` takes. Raises `ValueError` for an endpoint with dependencies."""
        super().__init__(*arguments, **options)
        if self.dependant.dependencies:
            raise ValueError(f"{self.name} has dependencies, which are FastAPI's: take them from the request instead")
        self._parsing = self.app
        self._headers = {one.alias.lower().encode("latin-1"): one for one in self.dependant.header_params}
        self.app = self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        parameters = self._parameters(scope)
        if parameters is None:
            await self._parsing(scope, receive, send)
        else:
            response = await self.endpoint(Request(scope, receive), **parameters)
            await response(scope, receive, send)

    def _parameters(self, scope: Scope) -> dict[str, Any] | None:
        """Return the parameters of the endpoint; None where FastAPI has to read them."""
        parameters: dict[str, Any] = scope["path_params"]
        if scope["query_string"] or not all(_ID.fullmatch(text) for text in parameters.values()):
            return None
        for name, value in scope["headers"]:
            header = self._headers.get(name)
            if header is None:
                continue
            checked, errors = header.validate(value.decode("latin-1"), {}, loc=("header", header.alias))
            if errors or header.name in parameters:
                return None
            parameters = parameters | {header.name: checked}
        return parameters
