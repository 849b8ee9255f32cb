"""The ledger and the broker: reachable, of a version that will do, and safe for jobs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import redis
from kombu import Connection
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError

from cli.doctor.clocks import of_clock
from cli.doctor.findings import Finding, fail, ok, said, warn
from shared.broker.celery import celery_settings
from shared.broker.safety import eviction, safe_url, volatility
from shared.broker.settings import BrokerSettings
from shared.ledger.calling.clock import milliseconds
from shared.ledger.calling.headroom import Room
from shared.ledger.keys import Keys
from shared.ledger.server import bounded

TIMEOUT_S = 3.0
_LEAST_REDIS = 7  # its functions hold the ledger's transitions; every Valkey has them
_FULL_SOON = 0.8  # of maxmemory
_KINDS = {"redis": "Redis or Valkey", "amqp": "RabbitMQ", "pyamqp": "RabbitMQ", "sqs": "Amazon SQS"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a Redis says of itself, when it is asked."""

    info: Mapping[str, Any]
    took_s: float
    ahead_s: float  # its clock, of ours

    @property
    def name(self) -> str:
        """Its name and version."""
        if valkey := self.info.get("valkey_version"):
            return f"Valkey {valkey}"
        return f"Redis {self.info['redis_version']}"


def of_ledger(settings: BrokerSettings) -> Iterator[Finding]:
    """Yield what is to be said of the Redis that holds the ledger."""
    url = settings.ledger_url
    with redis.Redis.from_url(url, **bounded(TIMEOUT_S)) as client:
        try:
            answer = _asked(client)
            room = _room(client, settings)
        except redis.RedisError as failure:
            yield _refused("ledger", url, failure, variable=_variable(settings))
            return
    info = answer.info
    yield ok("ledger", f"{answer.name} at {safe_url(url)} answers in {1000 * answer.took_s:.1f} ms")
    if "valkey_version" not in info and int(str(info["redis_version"]).partition(".")[0]) < _LEAST_REDIS:
        yield fail("ledger", f"{answer.name} has no functions.", "Use Redis 7.0 or later, or any Valkey.")
    if info.get("role", "master") != "master":
        yield fail("ledger", "It is a replica, which takes no writes.", "Name the primary in CELERY_BROKER_URL.")
    if info.get("cluster_enabled"):
        yield fail("ledger", "It is a cluster, and the ledger needs all its keys on one server.", "Use a single one.")
    yield from _persistence(settings, info)
    if danger := eviction(info):
        yield fail("eviction", *danger)
    else:
        yield ok("eviction", "keys are not evicted (maxmemory-policy noeviction)")
    yield _memory(info, room)
    yield of_clock("clock", answer.name, answer.ahead_s, answer.took_s)


def of_broker(settings: BrokerSettings, *, ledger_answers: bool) -> Iterator[Finding]:
    """Yield what is to be said of the broker."""
    if settings.shares_redis:
        if ledger_answers:
            yield ok("broker", "the same database as the ledger: a job and its message are accepted together")
        else:
            yield fail("broker", "It is the same database as the ledger.", "See the line of the ledger.")
        return
    url = settings.broker_url
    if settings.uses_redis:
        with redis.Redis.from_url(url, **bounded(TIMEOUT_S)) as client:
            try:
                answer = _asked(client)
            except redis.RedisError as failure:
                yield _refused("broker", url, failure, variable="CELERY_BROKER_URL")
                return
        yield ok("broker", f"{answer.name} at {safe_url(url)} answers in {1000 * answer.took_s:.1f} ms")
        for danger in filter(None, (eviction(answer.info), volatility(answer.info))):
            yield warn("broker", danger.what.replace("ledger", "broker"), danger.remedy)
        return
    yield _of_kombu(settings)


def _of_kombu(settings: BrokerSettings) -> Finding:
    kind = _KINDS.get(urlsplit(settings.broker_url).scheme, "broker")
    options = celery_settings(settings)["broker_transport_options"]
    begun = time.monotonic()
    try:
        with closing(
            Connection(settings.broker_url, connect_timeout=TIMEOUT_S, transport_options=options, heartbeat=0)
        ) as connection:
            connection.connect()
            connection.channel()  # only this asks SQS anything
            about = getattr(connection.connection, "server_properties", {})
    except Exception as failure:  # noqa: BLE001 - each transport has its own: amqp's, botocore's, OSError
        return fail(
            "broker",
            f"{kind} at {safe_url(settings.broker_url)} cannot be used: {said(failure)}.",
            "Start it, or fix address, user and password in CELERY_BROKER_URL.",
        )
    version = f" {about['version']}" if "version" in about else ""
    took_ms = 1000 * (time.monotonic() - begun)
    return ok("broker", f"{kind}{version} at {safe_url(settings.broker_url)} answers in {took_ms:.0f} ms")


def _asked(client: redis.Redis) -> Answer:
    """Return what a server says. Raises `redis.RedisError`."""
    client.ping()  # connects
    begun, clock = time.monotonic(), time.time()
    server_ms = milliseconds(client.time())
    took_s = time.monotonic() - begun
    return Answer(client.info(), took_s, server_ms / 1000 - (clock + took_s / 2))


def _room(client: redis.Redis, settings: BrokerSettings) -> Room:
    room = Room(reserve_ratio=settings.ledger_reserve_ratio, keys=Keys(settings.prefix))
    with client.pipeline(transaction=False) as pipeline:
        room.ask(pipeline)
        room.told(*pipeline.execute())
    return room


def _persistence(settings: BrokerSettings, info: Mapping[str, Any]) -> Iterator[Finding]:
    if danger := volatility(info):
        if settings.allow_volatile_broker:
            yield warn("persistence", danger.what, "CELERIAC_ALLOW_VOLATILE_BROKER accepts it.")
        else:
            yield fail("persistence", *danger)
    elif info.get("aof_last_write_status", "ok") != "ok":
        yield fail("persistence", "Its append-only file cannot be written.", "Look at its log, and free disk space.")
    else:
        yield ok("persistence", "append-only file on, last write succeeded")


def _memory(info: Mapping[str, Any], room: Room) -> Finding:
    used, most = info["used_memory"], info.get("maxmemory", 0)
    words = f"{used / 2**20:,.0f} MiB used, " + (f"of {most / 2**20:,.0f} MiB" if most else "no maxmemory")
    if room.problem:
        return fail("memory", f"{words}: {room.problem}.", "Raise maxmemory, or delete jobs; see docs/operate.md.")
    if most and used > _FULL_SOON * most:
        return warn("memory", f"{words}.", "Raise maxmemory, or shorten CELERIAC_RETENTION_S.")
    return ok("memory", words)


def _variable(settings: BrokerSettings) -> str:
    return "CELERY_BROKER_URL" if settings.shares_redis else "CELERIAC_LEDGER_URL"


def _refused(check: str, url: str, failure: redis.RedisError, *, variable: str) -> Finding:
    where = safe_url(url)
    if isinstance(failure, AuthenticationError | AuthorizationError) or "NOAUTH" in str(failure):
        return fail(
            check,
            f"{where} does not accept the user or the password, or asks for one.",
            f"Fix them in {variable}: redis://:PASSWORD@host:6379/0.",
        )
    if isinstance(failure, NoPermissionError):
        return fail(check, f"{where}: {said(failure)}.", "Give the user the rights of docs/brokers.md.")
    if isinstance(failure, redis.ConnectionError | redis.TimeoutError):
        return fail(
            check,
            f"Nothing that speaks Redis answers at {where}: {said(failure)}.",
            f"Start it, or fix {variable}; `celeriac up` starts one of its own.",
        )
    return fail(check, f"{where}: {said(failure)}.", "Look at its log.")
