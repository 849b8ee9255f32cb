"""A circuit breaker per host or connection, shared by all workers through Redis.

It protects a system that is down from the retries of every job: after some consecutive transient failures its
circuit opens and calls are refused at once, until a trial call after the reset time closes it again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import pybreaker

from shared.errors import TransientFailure
from shared.ledger.keys import key

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

T = TypeVar("T")
_KEYS = ("state", "fail_counter", "success_counter", "opened_at")
_SHORTEST_MEMORY_S = 3_600


def _says_nothing_of_the_host(failure: BaseException) -> bool:
    return not isinstance(failure, TransientFailure)


class Breaker:
    """The circuit of one system, such as ``http:example.com:443`` or ``connection:warehouse``."""

    def __init__(self, name: str, redis_client: redis.Redis, *, fail_max: int, reset_s: float) -> None:
        """Join the circuit `name`: `fail_max` consecutive transient failures open it for `reset_s` seconds."""
        self._name = name
        self._reset_s = reset_s
        self._redis = redis_client
        self._storage = _Storage(pybreaker.STATE_CLOSED, redis_client, namespace=key("breaker", name))
        self._circuit = pybreaker.CircuitBreaker(
            fail_max=fail_max,
            reset_timeout=reset_s,
            exclude=[_says_nothing_of_the_host],
            state_storage=self._storage,
            name=name,
            throw_new_error_on_trip=False,
        )

    def call(self, attempt: Callable[[], T]) -> T:
        """Return the result of `attempt`; a transient failure is counted, any other outcome resets the count.

        Raises `TransientFailure` (``circuit_open``) without a call while the circuit is open.
        """
        try:
            outcome: T = self._circuit.call(attempt)
        except pybreaker.CircuitBreakerError:
            raise TransientFailure(
                "circuit_open",
                f"{self._name} failed repeatedly; calls to it are refused for {self._reset_s:g} s.",
                remedy="Check that system; jobs are retried and continue when it responds.",
                retry_after_s=self._remaining_s(),
            ) from None
        finally:
            self._forget_in_time()
        return outcome

    def _remaining_s(self) -> float:
        opened_at = self._storage.opened_at or datetime.now(UTC)
        return max(self._reset_s - (datetime.now(UTC) - opened_at).total_seconds(), 0.0)

    def _forget_in_time(self) -> None:
        """Let the keys of an unused circuit expire, because clients can name any number of hosts."""
        lifetime_s = max(_SHORTEST_MEMORY_S, int(10 * self._reset_s))
        with self._redis.pipeline(transaction=False) as pipe:
            for key in _KEYS:
                pipe.expire(self._storage.key(key), lifetime_s)
            pipe.execute()


class _Storage(pybreaker.CircuitRedisStorage):
    """pybreaker's Redis storage, also for clients that decode responses."""

    def key(self, name: str) -> str:
        """Return the Redis key of one of the circuit's values."""
        return self._namespace(name)

    @property
    def state(self) -> str:
        value: Any = self._redis.get(self.key("state"))
        return value.decode() if isinstance(value, bytes) else value or pybreaker.STATE_CLOSED

    @state.setter
    def state(self, state: str) -> None:
        self._redis.set(self.key("state"), state)
