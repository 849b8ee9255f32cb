"""What routes are given: the shared objects of the process, made in the application's lifespan."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from api.changes import Changes
from api.dispatch import Dispatch
from api.settings import GatewaySettings
from shared.artifacts import ArtifactStore
from shared.ledger import AsyncLedger


async def _ledger(request: Request) -> AsyncLedger:
    ledger: AsyncLedger = request.app.state.ledger
    return ledger


async def _settings(request: Request) -> GatewaySettings:
    settings: GatewaySettings = request.app.state.settings
    return settings


async def _store(request: Request) -> ArtifactStore:
    store: ArtifactStore = request.app.state.store
    return store


async def _changes(request: Request) -> Changes:
    changes: Changes = request.app.state.changes
    return changes


def dispatch_of(request: Request) -> Dispatch:
    """Return the process's `Dispatch`. No dependency: resolving one would cost a tenth of accepting a job."""
    dispatch: Dispatch = request.app.state.dispatch
    return dispatch


Ledger = Annotated[AsyncLedger, Depends(_ledger)]
Settings = Annotated[GatewaySettings, Depends(_settings)]
Store = Annotated[ArtifactStore, Depends(_store)]
Waiters = Annotated[Changes, Depends(_changes)]
