"""The broker: its settings, and the one place that configures Celery."""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from celery.app.defaults import NAMESPACES, flatten
from kombu import Exchange, Queue
from pydantic import AliasChoices, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.contract import known_queues
from shared.errors import DefinitionError, redact

#: Kombu's Redis transport takes priority 0 first; RabbitMQ and SQS take 9 first. Jobs say 9 is most urgent.
PRIORITIES = 10
DEFAULT_PRIORITY = 4
SOCKET_TIMEOUT_S = 5.0


class BrokerSettings(BaseSettings):
    """Where broker, ledger and artifacts are, and how long things last. Shared by gateway and workers."""

    model_config = SettingsConfigDict(env_prefix="CELERIAC_", populate_by_name=True, extra="ignore")

    broker_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        validation_alias=AliasChoices("broker_url", "CELERY_BROKER_URL"),
        description="Celery's broker. Redis (or Valkey) unless told otherwise: amqp://, sqs://.",
    )
    ledger_url: str = Field(
        default="",
        validation_alias=AliasChoices("ledger_url", "CELERY_RESULT_BACKEND"),
        description="Redis that holds the ledger and Celery's results; default: the broker, if that is Redis.",
    )
    store_url: str = Field(default="data/artifacts", description="Root of the artifact store: a folder or fsspec URL.")
    retention_s: float = Field(
        default=7 * 86_400,
        gt=0,
        description="How long record, events, result and artifacts outlive a job, in seconds.",
    )
    lease_s: float = Field(
        default=20,
        ge=2,
        description="How long a claim lasts without renewal; a lost worker's job runs again after it.",
    )
    lost_message_grace_s: float = Field(
        default=15,
        gt=0,
        description="How long a message may be off its list without a claim before it is published again, in seconds.",
    )
    visibility_timeout_s: float = Field(
        default=3_600, gt=0, description="Redis and SQS: when an unacknowledged message is delivered again."
    )
    soft_shutdown_s: float = Field(
        default=20,
        ge=0,
        description="How long a worker that is told to stop lets its jobs go on before it gives them back.",
    )

    allow_volatile_broker: bool = Field(
        default=False, description="Accept a Redis without an append-only file: a restart of it loses jobs."
    )

    @model_validator(mode="after")
    def _ledger_is_redis(self) -> BrokerSettings:
        if not self.ledger_url:
            if not self.uses_redis:
                raise ValueError(
                    "the broker is not Redis, so the ledger needs one: set CELERIAC_LEDGER_URL=redis://..."
                )
            self.ledger_url = self.broker_url
        if urlsplit(self.ledger_url).scheme not in {"redis", "rediss"}:
            raise ValueError("the ledger lives in Redis or Valkey: CELERIAC_LEDGER_URL=redis://host:6379/0")
        return self

    @property
    def uses_redis(self) -> bool:
        """Whether the broker is Redis."""
        return urlsplit(self.broker_url).scheme in {"redis", "rediss"}

    @property
    def shares_redis(self) -> bool:
        """Whether broker lists and ledger are in one database, so that accept is one script."""
        return self.uses_redis and self.broker_url == self.ledger_url

    def wire_priority(self, priority: int) -> int:
        """Return what Celery calls a job's priority (0..9, 9 most urgent) on this broker."""
        return PRIORITIES - 1 - priority if self.uses_redis else priority


@lru_cache
def broker_settings() -> BrokerSettings:
    """Return the settings of this process, from its environment."""
    return BrokerSettings()


def make_celery(
    settings: BrokerSettings, *, transport: Any = None, backend: str = "shared.backend:LedgerBackend"
) -> Celery:
    """Return the Celery application that gateway, workers, beat and Flower share.

    `transport` replaces the broker's kombu transport class, `backend` the result backend's.
    Raises `DefinitionError` for a setting that Celery does not have.
    """
    app = Celery("celeriac", set_as_current=transport is None)
    # Not the setting `result_backend`: Celery takes CELERY_RESULT_BACKEND over that, and its own backend with it.
    app.backend_cls = f"{backend}+{settings.ledger_url}"
    overrides = {} if transport is None else {"broker_transport": transport}
    configure(app, celery_settings(settings) | overrides)
    return app


def configure(app: Celery, settings: dict[str, Any]) -> None:
    """Set `settings`; refuse those that Celery would silently ignore."""
    known = dict(flatten(NAMESPACES))
    if unknown := sorted(name for name in settings if name not in known and not name.startswith("redbeat_")):
        raise DefinitionError(
            f"Celery has no setting {', '.join(unknown)}. See its documentation for the names it has."
        )
    app.conf.update(settings)


def celery_settings(settings: BrokerSettings) -> dict[str, Any]:
    """Return Celery's settings. The defaults that are kept are not named."""
    direct = Exchange("")  # the default exchange: a queue's name is its routing key, and nothing needs binding
    arguments = {} if settings.uses_redis else {"x-max-priority": PRIORITIES}
    options: dict[str, Any] = {}
    if settings.uses_redis:
        options = {
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
        options = {"visibility_timeout": settings.visibility_timeout_s}
    return {
        "broker_url": settings.broker_url,
        "broker_transport_options": options,
        "broker_connection_timeout": SOCKET_TIMEOUT_S,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "result_expires": settings.retention_s,
        "result_backend_always_retry": True,
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
        "task_default_priority": settings.wire_priority(DEFAULT_PRIORITY),
        "task_queue_max_priority": None,
        "task_inherit_parent_priority": True,
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        # A lost child's job is given back through the ledger, which counts: see shared.backend.
        "task_reject_on_worker_lost": False,
        "task_publish_retry_policy": {
            "max_retries": 3,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 1,
        },
        "task_send_sent_event": True,
        "worker_send_task_events": True,
        # A claim outlives a broken connection, so work under way is not thrown away with it.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": False,
        "worker_proc_alive_timeout": 60,
        "beat_scheduler": "worker.schedules:BeatScheduler",
        "beat_max_loop_interval": 5,
        "redbeat_redis_url": settings.ledger_url,
        "redbeat_redis_options": {
            "socket_timeout": SOCKET_TIMEOUT_S,
            "socket_connect_timeout": SOCKET_TIMEOUT_S,
            "socket_keepalive": True,
        },
        "redbeat_key_prefix": "celeriac:redbeat:",
        "redbeat_lock_timeout": 25,
    }


def refuse_unsafe(client: Any, *, allow_volatile: bool = False) -> None:
    """Refuse a Redis that would lose accepted jobs: eviction, or no append-only file.

    `allow_volatile` skips the check of the append-only file. A server that hides its configuration (a managed one)
    is believed. Raises `DefinitionError` with what to do.
    """
    memory = client.info("memory")
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise DefinitionError(
            f"The ledger's Redis evicts keys under memory pressure (maxmemory-policy {policy}), so accepted jobs could "
            "vanish. Run: redis-cli CONFIG SET maxmemory-policy noeviction"
        )
    if not allow_volatile and not client.info("persistence").get("aof_enabled", 0):
        raise DefinitionError(
            "The ledger's Redis has no append-only file, so a restart would lose accepted jobs. "
            "Run: redis-cli CONFIG SET appendonly yes, or set CELERIAC_ALLOW_VOLATILE_BROKER=true if you accept that."
        )


def safe_url(url: str) -> str:
    """Return `url` as it may be shown: without user and password."""
    return redact(url)
