"""The gateway's own metrics, in Prometheus' text format on `/metrics`."""

from __future__ import annotations

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_fastapi_instrumentator import Instrumentator


def install(app: FastAPI) -> CollectorRegistry:
    """Measure every request of `app` and serve what was measured; return the registry for further metrics.

    A handler's label is its route's template, or `none`. That holds only while the application does not redirect
    slashes: the instrumentator would label a redirected request with its whole path.
    """
    if app.router.redirect_slashes:
        raise ValueError("create the application with redirect_slashes=False: paths would become label values")
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    Instrumentator(
        should_group_status_codes=False,
        should_exclude_streaming_duration=True,  # a stream of events lasts as long as its job
        excluded_handlers=["^/metrics$", "^/livez$", "^/readyz$"],
        registry=registry,
    ).instrument(app).expose(app, include_in_schema=False)
    return registry
