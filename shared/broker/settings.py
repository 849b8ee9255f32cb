"""The settings of broker, ledger, artifact store, and of times such as retention."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, model_validator
from pydantic_settings import SettingsConfigDict

from shared.contract.options import PRIORITIES
from shared.environment import read
from shared.ledger.keys import KeySettings

_REDIS = frozenset({"redis", "rediss"})
_DATABASE = "db+"  # how Celery marks a database as its result backend; the rest is SQLAlchemy's URL
_DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}
_DATABASES = frozenset({*_DRIVERS, "sqlite"})


class BrokerSettings(KeySettings):
    """Broker, ledger, artifact store, and times such as retention. Shared by gateway and workers."""

    model_config = SettingsConfigDict(
        env_prefix="CELERIAC_",
        populate_by_name=True,
        extra="ignore",
        hide_input_in_errors=True,  # the URLs have passwords
    )

    broker_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        validation_alias=AliasChoices("broker_url", "CELERY_BROKER_URL"),
        description="URL of Celery's broker: Redis or Valkey (default), amqp:// or sqs://.",
    )
    ledger_url: str = Field(
        default="",
        description="Redis that holds the ledger and Celery's results; default: CELERY_RESULT_BACKEND or the broker, "
        "if that is Redis.",
    )
    result_backend: str = Field(
        default="",
        validation_alias=AliasChoices("result_backend", "CELERY_RESULT_BACKEND"),
        description="The ledger, or a database that also gets a row for each job, step and attempt that has ended: "
        "db+postgresql://, db+mysql://, db+mariadb:// or db+sqlite://.",
    )
    rows_retention_s: float = Field(
        default=365 * 86_400,
        gt=0,
        description="Seconds for which rows are kept in the result database after a job has ended.",
    )
    store_url: str = Field(default="data/artifacts", description="Root of the artifact store: a folder or fsspec URL.")
    retention_s: float = Field(
        default=7 * 86_400,
        gt=0,
        description="Seconds for which record, events, result and artifacts are kept after a job has ended.",
    )
    lease_s: float = Field(
        default=20,
        ge=2,
        description="Seconds for which a claim lasts without renewal; then the job of a lost worker runs again.",
    )
    lost_message_grace_s: float = Field(
        default=15,
        gt=0,
        description="Seconds after which a message that left its list without a claim is published again.",
    )
    visibility_timeout_s: float = Field(
        default=3_600, gt=0, description="Redis and SQS: seconds after which an unacknowledged message is redelivered."
    )
    quorum_queues: bool = Field(
        default=False,
        description="RabbitMQ: declare the queues as quorum queues, which are replicated and have no priorities.",
    )
    soft_shutdown_s: float = Field(
        default=20,
        ge=0,
        description="Seconds for which a stopping worker lets its jobs run before it requeues them.",
    )

    ledger_reserve_ratio: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Part of the ledger's maxmemory that submissions leave free, for claims, ends and cancels; "
        "beyond it they are refused with 507, and schedules wait.",
    )
    allow_volatile_broker: bool = Field(
        default=False, description="Accept a Redis without an append-only file, whose restart loses jobs."
    )

    @model_validator(mode="after")
    def _ledger_is_redis(self) -> BrokerSettings:
        scheme = urlsplit(self.result_backend).scheme
        if scheme.startswith(_DATABASE):
            if scheme.removeprefix(_DATABASE).partition("+")[0] not in _DATABASES:
                raise ValueError(_refused_backend(scheme))
        elif scheme in _REDIS:
            self.ledger_url = self.ledger_url or self.result_backend
        elif self.result_backend:
            raise ValueError(_refused_backend(scheme))
        if not self.ledger_url:
            if not self.uses_redis:
                raise ValueError(
                    "CELERY_BROKER_URL does not name Redis or Valkey, and the ledger needs one: "
                    "set CELERIAC_LEDGER_URL=redis://host:6379/0"
                )
            self.ledger_url = self.broker_url
        if urlsplit(self.ledger_url).scheme not in _REDIS:
            raise ValueError(
                "CELERIAC_LEDGER_URL, or CELERY_RESULT_BACKEND, must name Redis or Valkey, which holds the ledger, "
                "such as redis://host:6379/0"
            )
        return self

    @property
    def uses_redis(self) -> bool:
        return urlsplit(self.broker_url).scheme in _REDIS

    @property
    def database_url(self) -> str:
        """SQLAlchemy's URL of the result database, with a driver; empty if there is none."""
        scheme, separator, rest = self.result_backend.removeprefix(_DATABASE).partition("://")
        if not self.result_backend.startswith(_DATABASE):
            return ""
        return f"{_DRIVERS.get(scheme, scheme)}{separator}{rest}"

    @property
    def shares_redis(self) -> bool:
        """Whether broker lists and ledger are in one database, so that accept is one script."""
        return self.uses_redis and self.broker_url == self.ledger_url

    def wire_priority(self, priority: int) -> int:
        """Return Celery's priority on this broker for a job's priority (0..9, 9 is most urgent).

        Kombu's Redis transport delivers priority 0 first; RabbitMQ and SQS deliver 9 first.
        """
        return PRIORITIES - 1 - priority if self.uses_redis else priority


def _refused_backend(scheme: str) -> str:
    return (
        f"CELERY_RESULT_BACKEND cannot be {scheme or 'without a scheme'}: use redis://host:6379/0 for the ledger, or "
        "db+postgresql://, db+mysql://, db+mariadb:// or db+sqlite:/// for a database that gets a row for each ended "
        "job, beside the ledger in Redis (CELERIAC_LEDGER_URL)"
    )


@lru_cache
def broker_settings() -> BrokerSettings:
    """Return the settings of this process, from its environment."""
    return read(BrokerSettings)
