"""The metrics on `/metrics` in Prometheus' text format: those of the gateway, jobs, tasks and workers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import redis
import redis.asyncio
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Gauge, GCCollector, PlatformCollector, ProcessCollector
from prometheus_fastapi_instrumentator import Instrumentator, metrics
from redis.backoff import NoBackoff
from redis.retry import Retry

from api.metrics.election import consuming
from api.metrics.measuring import Measuring
from api.metrics.task_metrics import TaskMetrics
from api.settings import GatewaySettings
from shared.ledger.server import bounded

_NOT_MEASURED = frozenset({"/metrics", "/livez", "/readyz"})
_LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


def install(app: FastAPI) -> CollectorRegistry:
    """Measure every request of `app` and serve the metrics; return the registry for further metrics.

    The label of a handler is its route's template, or `none`. The application must not redirect slashes, because the
    instrumentator would label a redirected request with its full path.
    """
    if app.router.redirect_slashes:
        raise ValueError("create the application with redirect_slashes=False: paths would become label values")
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    # Two of the five default metrics: the others cost more per request than accepting a job.
    measures = (
        metrics.requests(registry=registry),
        metrics.latency(
            registry=registry,
            buckets=_LATENCY_BUCKETS_S,
            should_exclude_streaming_duration=True,  # a stream of events lasts as long as its job
        ),
    )
    app.add_middleware(
        Measuring, measures=[measure for measure in measures if measure is not None], excluded=_NOT_MEASURED
    )
    Instrumentator(registry=registry).expose(app, include_in_schema=False)
    return registry


@asynccontextmanager
async def reporting(
    settings: GatewaySettings, registry: CollectorRegistry, ledger: redis.asyncio.Redis, *, waiting: Callable[[], int]
) -> AsyncIterator[None]:
    """Add the metrics of `ledger` to `registry`, and take part in consuming events, as long as the block lasts.

    `waiting` returns how many requests wait for a job's end just now.
    """
    client = redis.Redis.from_url(
        settings.ledger_url,
        **bounded(settings.ledger_timeout_s),
        retry=Retry(NoBackoff(), 0),
    )
    tasks = TaskMetrics(client)
    registry.register(tasks)
    waiters = Gauge("celeriac_waiting_requests", "Requests that wait for a job's end (wait_s).", registry=registry)
    waiters.set_function(waiting)
    try:
        if not settings.task_events:
            yield
            return
        async with consuming(settings, ledger):
            yield
    finally:
        registry.unregister(waiters)
        registry.unregister(tasks)
        client.close()
