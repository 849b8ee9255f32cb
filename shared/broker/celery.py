"""The configuration of Celery for gateway, workers, beat and Flower."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.app.defaults import NAMESPACES, flatten
from kombu import Exchange, Queue
from kombu.transport import TRANSPORT_ALIASES
from kombu.utils.url import maybe_sanitize_url

from shared.broker.settings import BrokerSettings
from shared.contract.catalogue import catalogue
from shared.contract.definition import known_queues
from shared.contract.options import DEFAULT_PRIORITY, PRIORITIES
from shared.errors import DefinitionError
from shared.ledger.keys import Keys
from shared.ledger.server import SOCKET_TIMEOUT_S

# By the URL's scheme and not by the setting `broker_transport`, which would replace that scheme in every log line.
TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "shared.broker.transport:Transport"))

_NO_RESULTS = "results:disabled"  # what Celery says if the setting `result_backend` is empty
_OTHERS_QUEUE = "celery"  # where Celery sends a task, and consumes from, if nobody names another queue


class _Reporting(Celery):
    def bugreport(self) -> str:
        """Return what `celery report` prints: with our backend, which Celery does not know as a setting (see below).

        Celery hides the passwords of the URLs that it knows, and not that of the ledger's URL for RedBeat.
        """
        backend, _, url = str(self.backend_cls).partition("+")
        shown = str(maybe_sanitize_url(url))
        report = str(super().bugreport()).replace(url, shown)
        return report.replace(_NO_RESULTS, f"results:{shown} ({backend})")


def make_celery(
    settings: BrokerSettings, *, transport: Any = None, backend: str = "shared.ledger.backend:LedgerBackend"
) -> Celery:
    """Return the Celery application that gateway, workers, beat and Flower share.

    `transport` replaces the broker's kombu transport class, `backend` the result backend's.
    Raises `DefinitionError` for a setting that Celery does not have.
    """
    app = _Reporting("celeriac", set_as_current=transport is None)
    # Not the setting `result_backend`: CELERY_RESULT_BACKEND would override it and replace our backend.
    app.backend_cls = f"{backend}+{settings.ledger_url}"
    overrides = {} if transport is None else {"broker_transport": transport}
    configure(app, celery_settings(settings) | overrides)
    return app


def _route(name: str, *_: Any, **__: Any) -> dict[str, Any] | None:
    """Return the queue of a task that was sent without one, such as a callback (`link`) after a job.

    A kind's is in its contract. Any other task is of another Celery application, whose default queue is Celery's.
    """
    if contract := catalogue().get(name):
        return {"queue": contract.spec.queue}
    if name.startswith("celery."):
        return None
    return {"queue": Queue(_OTHERS_QUEUE, Exchange(""), routing_key=_OTHERS_QUEUE)}


def send_to_any_queue(app: Celery) -> None:
    """Let this process send tasks of other applications to the queues that they name, on the default exchange."""
    queues: Any = app.amqp.queues  # celery-types leaves these out
    queues.autoexchange = lambda _: Exchange("")
    queues.create_missing = True


def configure(app: Celery, settings: dict[str, Any]) -> None:
    """Set `settings`; refuse those that Celery would silently ignore."""
    known = dict(flatten(NAMESPACES))
    if unknown := sorted(name for name in settings if name not in known and not name.startswith("redbeat_")):
        raise DefinitionError(f"Celery has no setting {', '.join(unknown)}. Use a name from Celery's documentation.")
    app.conf.update(settings)


def _queue_arguments(settings: BrokerSettings) -> dict[str, Any]:
    """Return how RabbitMQ declares the queues of jobs."""
    if settings.uses_redis:
        return {}
    return {"x-queue-type": "quorum"} if settings.quorum_queues else {"x-max-priority": PRIORITIES}


def celery_settings(settings: BrokerSettings) -> dict[str, Any]:
    """Return Celery's settings that differ from its defaults."""
    direct = Exchange("")  # the default exchange: a queue's name is its routing key, so no binding is needed
    arguments = _queue_arguments(settings)
    keys = Keys(settings.prefix)
    prefixed = {"global_keyprefix": keys.celery_prefix} if keys.celery_prefix else {}
    options: dict[str, Any] = {}
    if settings.uses_redis:
        options = {
            **prefixed,
            "visibility_timeout": settings.visibility_timeout_s,
            "priority_steps": list(range(PRIORITIES)),  # kombu's default has four
            "queue_order_strategy": "priority",
            "socket_timeout": SOCKET_TIMEOUT_S,
            "socket_connect_timeout": SOCKET_TIMEOUT_S,
            "socket_keepalive": True,
            "health_check_interval": 10,
        }
    elif settings.broker_url.startswith("amqp"):
        options = {"confirm_publish": True, "max_retries": 3, "interval_max": 1}
    elif settings.broker_url.startswith("sqs"):
        options = {"visibility_timeout": settings.visibility_timeout_s, "queue_name_prefix": keys.celery_prefix}
    return {
        "broker_url": settings.broker_url,
        "broker_transport_options": options,
        "broker_connection_timeout": SOCKET_TIMEOUT_S,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # An error reply (OOM, MISCONF, READONLY, BUSY) passes like a broken connection: wait, connect again, go on.
        "broker_channel_error_retry": True,
        "result_expires": settings.retention_s,
        "result_backend_always_retry": True,
        "result_backend_transport_options": prefixed,
        "redis_socket_timeout": SOCKET_TIMEOUT_S,
        "redis_socket_connect_timeout": SOCKET_TIMEOUT_S,
        "redis_socket_keepalive": True,
        "redis_retry_on_timeout": True,
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "accept_content": ["json"],
        "timezone": "UTC",
        "task_queues": [Queue(name, direct, routing_key=name, queue_arguments=arguments) for name in known_queues()],
        "task_default_queue": known_queues()[0],
        "task_default_exchange": "",
        "task_create_missing_queues": False,
        "task_routes": (_route,),
        "task_default_priority": settings.wire_priority(DEFAULT_PRIORITY),
        "task_queue_max_priority": None,
        "task_inherit_parent_priority": True,
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        # The job of a lost child is requeued through the ledger, which counts crashes: see shared.ledger.backend.
        "task_reject_on_worker_lost": False,
        "task_publish_retry_policy": {
            "max_retries": 3,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 1,
        },
        "task_send_sent_event": True,
        "worker_send_task_events": True,
        # A claim outlives a broken connection, so running jobs need not be cancelled.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": False,
        "worker_proc_alive_timeout": 60,
        "beat_scheduler": "worker.beat:BeatScheduler",
        "beat_max_loop_interval": 2,
        "redbeat_redis_url": settings.ledger_url,
        "redbeat_redis_options": {
            "socket_timeout": SOCKET_TIMEOUT_S,
            "socket_connect_timeout": SOCKET_TIMEOUT_S,
            "socket_keepalive": True,
        },
        "redbeat_key_prefix": keys("redbeat"),
        "redbeat_lock_timeout": 6,  # another beat takes over within 10 s; the ledger decides about slots, not the lock
    }
