"""The ASGI application: `uvicorn --factory api.app:create_app`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import redis
import redis.asyncio
import structlog
from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from api.access import door
from api.access import routes as access
from api.access.guard import guard
from api.access.known import knowing_keys
from api.access.listening import behind_its_door
from api.access.log import hide_keys
from api.access.needs import NEEDS, scopes_of
from api.background import in_background
from api.forgotten import reading_rows
from api.http import docs, openapi, paths, problems
from api.http.bodies import Body
from api.jobs import artifacts, bulk, events
from api.jobs import routes as jobs
from api.jobs.changes import watching
from api.jobs.dispatch import Dispatch
from api.jobs.submissions import BATCH, SUBMISSION
from api.kinds import routes as job_kinds
from api.kinds.results import result_components
from api.metrics import endpoint as metrics
from api.operations import dead_letters, health, queues, workers
from api.outbox import publishing
from api.schedules import routes as schedules
from api.settings import GatewaySettings, gateway_settings
from api.uploads import routes as uploads
from shared import __version__
from shared.access.keyring import Keyring
from shared.broker.messages import Composer
from shared.broker.safety import refuse_unsafe
from shared.collector import set_aside_what_is_loaded
from shared.connections.settings import load_connections
from shared.contract.catalogue import catalogue
from shared.environment import refusal_ends_the_program
from shared.ledger.aclient import AsyncLedger
from shared.ledger.ids import random_hex
from shared.ledger.server import bounded
from shared.rows.packages import refuse_missing_packages
from shared.storage import ArtifactStore
from shared.texts import redact
from shared.workflows.planning import Planner

CONNECTIONS = 64  # maximum number of connections to the ledger
_log = structlog.get_logger(__name__)

ROUTERS = (  # in the order of the document
    jobs.direct,
    jobs.router,
    bulk.router,
    events.router,
    artifacts.router,
    schedules.router,
    queues.router,
    dead_letters.router,
    workers.router,
    job_kinds.router,
    uploads.router,
    access.router,
    health.router,
    docs.router,
)

BODIES: tuple[Body[Any], ...] = (SUBMISSION, BATCH, jobs.RERUN, bulk.BULK, schedules.SCHEDULE, *access.BODIES)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: GatewaySettings = app.state.settings
    await asyncio.to_thread(_check_ledger, settings)
    client = ledger_client(settings)
    app.state.ledger = ledger = AsyncLedger(
        client, timeout_s=settings.ledger_timeout_s, reserve_ratio=settings.ledger_reserve_ratio
    )
    app.state.store = ArtifactStore(settings.store_url)
    try:
        async with (
            knowing_keys(settings.ledger_url, Keyring(ledger)) as app.state.keys,
            behind_its_door(settings, app.state.keys),
            in_background(ledger.headroom.watch()),
            watching(settings.ledger_url) as app.state.changes,
            publishing(settings, ledger) as outbox,
            reading_rows(settings, ledger) as app.state.forgotten,
            metrics.reporting(settings, app.state.metrics, client, waiting=lambda: len(app.state.changes)),
        ):
            app.state.dispatch = Dispatch(
                settings,
                ledger=ledger,
                planner=Planner(settings, Composer(settings)),
                connections=load_connections(settings.connections_file),
                outbox=outbox,
            )
            await asyncio.to_thread(_warm_up, app.state.dispatch)
            await ledger.headroom.first_look()  # so that the first submissions are refused where there is no room
            set_aside_what_is_loaded()
            yield
    finally:
        await client.aclose()


def ledger_client(settings: GatewaySettings) -> redis.asyncio.Redis:
    """Return the process's client of the ledger. If all connections are in use, a call waits within its time limit.

    A restart of the ledger breaks every connection of the pool; each is replaced on its next use.
    """
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        settings.ledger_url,
        max_connections=CONNECTIONS,
        timeout=settings.ledger_timeout_s,
        retry=Retry(NoBackoff(), 1, (redis.ConnectionError,)),
        **bounded(),
    )
    return redis.asyncio.Redis.from_pool(pool)


def _check_ledger(settings: GatewaySettings) -> None:
    """Refuse a Redis that would lose accepted jobs. An unreachable one does not prevent the start: see /readyz."""
    with redis.Redis.from_url(settings.ledger_url, **bounded(settings.ledger_timeout_s)) as client:
        try:
            refuse_unsafe(client, allow_volatile=settings.allow_volatile_broker)
        except redis.RedisError as failure:
            _log.warning("ledger not checked", cause=redact(repr(failure)))


def _warm_up(dispatch: Dispatch) -> None:
    """Create message templates and schemas of bodies, so that the first requests do not wait for them."""
    dispatch.warm_up()
    for body in BODIES:
        body.warm_up()


def create_app(settings: GatewaySettings | None = None) -> FastAPI:
    """Return the gateway. Raises `DefinitionError` for unsafe `settings`; those of the environment end the program."""
    with refusal_ends_the_program() if settings is None else nullcontext():
        settings = settings or gateway_settings()
        refuse_missing_packages(settings.database_url)
    app = FastAPI(
        title="Celeriac",
        version=__version__,
        lifespan=_lifespan,
        summary="Submit typed jobs over HTTP; Celery workers run them.",
        description=openapi.DESCRIPTION,
        license_info={"name": "MIT", "identifier": "MIT"},
        contact={"name": "Celeriac contributors"},
        openapi_tags=openapi.TAGS,
        servers=[{"url": "/", "description": "The gateway that serves this document."}],
        openapi_url=None,  # see docs.router
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.settings = settings
    problems.install(app)
    for router in ROUTERS:
        _mount(app, router)
    openapi.install(app, _components, {name: scopes_of(need) for name, need in NEEDS.items()})
    app.add_middleware(door.Door, hosts=settings.host_names, origins=settings.cors_origins)
    app.state.metrics = metrics.install(app)
    guard(app)
    hide_keys()
    app.add_middleware(paths.WholeIds)
    app.add_middleware(problems.LastResort)
    app.add_middleware(
        CorrelationIdMiddleware, generator=random_hex
    )  # outermost, because the others use the request's id
    return app


def _components() -> dict[str, Any]:
    """Return the schemas that FastAPI does not know: of the bodies that it does not parse, and of results."""
    bodies = {name: schema for body in BODIES for name, schema in body.components().items()}
    return bodies | result_components(catalogue().submitted())


def _mount(app: FastAPI, router: APIRouter) -> None:
    """Add the routes of `router` to those of `app`, each with its function's name as operation id.

    `include_router` keeps them nested, and walking the tree (twice with metrics) took a third of the time of accepting
    a job.
    """
    for route in router.routes:
        if isinstance(route, APIRoute):
            route.operation_id = route.name
        app.router.routes.append(route)
