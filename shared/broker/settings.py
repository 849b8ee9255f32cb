"""Where broker, ledger and artifacts are, and how long things last."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.contract.options import PRIORITIES


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
        """Return what Celery calls a job's priority (0..9, 9 most urgent) on this broker.

        Kombu's Redis transport takes priority 0 first; RabbitMQ and SQS take 9 first.
        """
        return PRIORITIES - 1 - priority if self.uses_redis else priority


@lru_cache
def broker_settings() -> BrokerSettings:
    """Return the settings of this process, from its environment."""
    return BrokerSettings()
