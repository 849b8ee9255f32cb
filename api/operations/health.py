"""Liveness and readiness of the gateway."""

from __future__ import annotations

import asyncio
from typing import Literal
from urllib.parse import urlsplit

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from api.deps import Ledger, Settings
from api.http.problems import Problem, problems
from api.settings import GatewaySettings
from shared.ledger.calling.calls import NO_ANSWER
from shared.ledger.calling.headroom import Headroom

_BOUND_S = 2.0
_DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671, "pyamqp": 5672, "redis": 6379, "rediss": 6379}

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process is alive."""

    model_config = ConfigDict(frozen=True)

    is_alive: Literal[True] = Field(description="Always true; a dead process does not respond.")


class Ready(BaseModel):
    """The gateway can accept jobs."""

    model_config = ConfigDict(frozen=True)

    is_ready: Literal[True] = Field(description="Always true; otherwise the response is a problem document.")


@router.get("/livez", summary="Is the process alive?")
async def live() -> Alive:
    """Respond without using the broker: if that is down, restarting the gateway does not help."""
    return Alive(is_alive=True)


@router.get("/readyz", summary="Can it accept jobs?", responses=problems(503))
async def ready(settings: Settings, ledger: Ledger) -> Ready:
    """Check ledger and broker. Raises `Problem` (503) that names the part that is down or full."""
    parts = {"ledger": _ledger_answers(ledger.headroom)}
    if not settings.shares_redis:
        parts["broker"] = _broker_listens(settings)
    answers = await asyncio.gather(*parts.values())
    if down := [part for part, answers_ in zip(parts, answers, strict=True) if not answers_]:
        names = " and ".join(down)
        raise _not_ready(f"Down: {names}.")
    if problem := ledger.headroom.problem:
        raise _not_ready(f"Full: ledger, {problem}.")
    return Ready(is_ready=True)


def _not_ready(why: str) -> Problem:
    return Problem(503, "not_ready", f"{why} Jobs cannot be accepted.", headers={"Retry-After": "2"})


async def _ledger_answers(headroom: Headroom) -> bool:
    try:
        await headroom.look()
    except NO_ANSWER:
        return False
    return True


async def _broker_listens(settings: GatewaySettings) -> bool:
    """Return whether the broker's port accepts connections; True for a broker without a port, like SQS."""
    url = urlsplit(settings.broker_url)
    port = url.port or _DEFAULT_PORTS.get(url.scheme)
    if not url.hostname or port is None:
        return True
    try:
        async with asyncio.timeout(_BOUND_S):
            _, writer = await asyncio.open_connection(url.hostname, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
