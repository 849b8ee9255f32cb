"""Jobs in a FastAPI application.

    app = FastAPI(lifespan=lifespan)

    @app.post("/reports")
    async def order_report(celeriac: Celeriac) -> str:
        return (await celeriac.submit("report.generate_report", {...})).id

    @app.post("/celeriac/callbacks", status_code=204)
    async def ended(outcome: Outcome) -> None: ...  # of a job submitted with callback_url

An application with a lifespan of its own yields `{"celeriac": client}`, inside of `async with AsyncClient() as client`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request

from celeriac.client import AsyncClient
from celeriac.webhooks import WRONG_SIGNATURE, outcome_of

_NAME = "celeriac"


@asynccontextmanager
async def lifespan(_: Any) -> AsyncIterator[dict[str, AsyncClient]]:
    """Connect one client to the gateway at `CELERIAC_URL` for all requests, until the application ends."""
    async with AsyncClient() as client:
        yield {_NAME: client}


def client_of(request: Request) -> AsyncClient:
    """Return the client of the application."""
    client: AsyncClient | None = getattr(request.state, _NAME, None)
    if client is None:
        raise RuntimeError(
            "This application has no client of Celeriac. Write FastAPI(lifespan=celeriac.fastapi.lifespan), or yield "
            'its state {"celeriac": client} from a lifespan of your own.'
        )
    return client


async def outcome(request: Request) -> dict[str, Any]:
    """Return the outcome of a job, signed with `CELERIAC_WEBHOOK_SECRET`; else the answer is 401.

    It may come again, so whoever takes it is to do its work once for an id.
    """
    secrets = os.environ.get("CELERIAC_WEBHOOK_SECRET", "").split()
    told = outcome_of(await request.body(), request.headers, secrets)
    if told is None:
        raise HTTPException(HTTPStatus.UNAUTHORIZED, WRONG_SIGNATURE)
    return told


Celeriac = Annotated[AsyncClient, Depends(client_of)]
Outcome = Annotated[dict[str, Any], Depends(outcome)]
