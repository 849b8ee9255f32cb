"""Routes whose usual requests skip FastAPI's reading of parameters, which costs as much as accepting a job.

In all else they are FastAPI's routes: in the document, in the metrics, and in how requests are refused.
"""

from __future__ import annotations

import re
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class DirectRoute(APIRoute):
    """A route that calls its endpoint directly if only the path and headers of the request have to be read.

    The endpoint takes the request and the ids of its path, and all other parameters as keywords with defaults; it
    returns a response. Every other request goes through FastAPI, which may refuse it: one with a query, with an
    unusual spelling of an id, or with a repeated or invalid header.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take what `APIRoute` takes. Raises `ValueError` for an endpoint with dependencies."""
        super().__init__(*arguments, **options)
        if self.dependant.dependencies:
            raise ValueError(
                f"{self.name} has dependencies, which a direct route cannot resolve: take them from the request"
            )
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
