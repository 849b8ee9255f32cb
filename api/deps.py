"""Dependencies of routes: the shared objects of the process, created in the application's lifespan."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from api.settings import GatewaySettings
from shared.ledger.aclient import AsyncLedger
from shared.storage import ArtifactStore


async def _ledger(request: Request) -> AsyncLedger:
    ledger: AsyncLedger = request.app.state.ledger
    return ledger


async def _settings(request: Request) -> GatewaySettings:
    settings: GatewaySettings = request.app.state.settings
    return settings


async def _store(request: Request) -> ArtifactStore:
    store: ArtifactStore = request.app.state.store
    return store


Ledger = Annotated[AsyncLedger, Depends(_ledger)]
Settings = Annotated[GatewaySettings, Depends(_settings)]
Store = Annotated[ArtifactStore, Depends(_store)]
