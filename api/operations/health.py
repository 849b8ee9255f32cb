"""Liveness and readiness of the gateway."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal
from urllib.parse import urlsplit

import redis.asyncio
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from redis.exceptions import RedisError

from api.deps import Settings
from api.http.problems import Problem, problems
from api.settings import GatewaySettings

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


async def _ledger_client(request: Request) -> redis.asyncio.Redis:
    client: redis.asyncio.Redis = request.app.state.redis
    return client


@router.get("/readyz", summary="Can it accept jobs?", responses=problems(503))
async def ready(settings: Settings, ledger: Annotated[redis.asyncio.Redis, Depends(_ledger_client)]) -> Ready:
    """Check ledger and broker. Raises `Problem` (503) that names the part that is down."""
    parts = {"ledger": _ledger_answers(ledger)}
    if not settings.shares_redis:
        parts["broker"] = _broker_listens(settings)
    answers = await asyncio.gather(*parts.values())
    if down := [part for part, answers_ in zip(parts, answers, strict=True) if not answers_]:
        names = " and ".join(down)
        raise Problem(503, "not_ready", f"Down: {names}. Jobs cannot be accepted.", headers={"Retry-After": "2"})
    return Ready(is_ready=True)


async def _ledger_answers(client: redis.asyncio.Redis) -> bool:
    try:
        async with asyncio.timeout(_BOUND_S):
            return bool(await client.ping())
    except (RedisError, OSError, TimeoutError):
        return False


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
