"""The ledger: the records of all jobs, and the only way to change their states.

The transitions are one Lua script (in `script/`; `states.py` has a diagram of the states). It has two typed callers:
`Ledger`, here, for the workers, and `AsyncLedger` (`aclient.py`) for the gateway. Both run the same script.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import redis
from pydantic_core import to_json

from shared.errors import ClaimLost
from shared.ledger.calling.tending import Action, Tended
from shared.ledger.ids import uuid7
from shared.ledger.keys import Keys
from shared.ledger.records import (
    Accepted,
    Claim,
    Entry,
    Gone,
    Place,
    Record,
    Refusal,
    Submission,
    Unknown,
    parse_accepted,
    parse_read,
    step_records,
)
from shared.ledger.script import NOT_LOADED, library
from shared.ledger.states import State


class Ledger:
    """The calls of workers: claim, renew, progress, finish, retry, release, and the round of the keeper.

    Redis errors are raised as they are: a worker waits and retries, see `worker.runtime.task`.
    """

    def __init__(self, client: redis.Redis, *, keys: Keys | None = None) -> None:
        """Use the Redis `client`; `keys` are by default those of the settings of this process."""
        self.client = client
        self.keys = keys or Keys()
        self._library = library(self.keys)

    def _call(self, transition: str, **arguments: Any) -> Any:
        return self._call_raw(transition, arguments)

    def _call_raw(self, transition: str, arguments: Any, columns: Sequence[str] = ()) -> Any:
        call, client = self._library.call(transition, to_json(arguments), *columns), cast("Any", self.client)
        try:
            return client.execute_command(*call)
        except redis.ResponseError as failure:
            if not str(failure).startswith(NOT_LOADED):
                raise
        self._load(client)
        return client.execute_command(*call)

    def _load(self, client: Any) -> None:
        loading, reply = self._library.loading(), None
        with suppress(StopIteration):
            while True:
                reply = client.execute_command(*loading.send(reply))

    def raised(self, failure: redis.RedisError) -> bool:
        """Return whether `failure` came from this ledger's connections, and not from a Redis client of the task."""
        used = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(failure.__traceback__))
        return any(isinstance(one, redis.Redis) and one.connection_pool is self.client.connection_pool for one in used)

    def _as_claimed(self, transition: str, job_id: str, *, token: str, **arguments: Any) -> str:
        """Run a transition that only the claim with this token may ask for. Raises `ClaimLost`."""
        reply = cast("str", self._call(transition, id=job_id, token=token, **arguments))
        if reply == "refused":
            raise ClaimLost(f"{job_id} is claimed by another worker or has ended")
        return reply

    def call(self, transition: str, arguments: Any, columns: Sequence[str] = ()) -> Any:
        """Run a transition whose typed caller is in another module, such as `shared.schedules.timetable`."""
        return self._call_raw(transition, arguments, columns)

    def accept(self, submission: Submission) -> Accepted:
        """Write jobs and their messages atomically, for beat and the keeper."""
        arguments, columns = submission.arguments()
        (reply,) = self._call_raw("accept", [arguments], columns)
        return parse_accepted(submission, reply)

    def claim(
        self,
        job_id: str,
        *,
        owner: str,
        worker: str,
        lease_s: float,
        message: str,
        delivery: str = "",
        adopt: Entry | None = None,
        root: str | None = None,
        place: Place | None = None,
    ) -> Claim | Refusal:
        """Claim a job: get the right to run it.

        `owner` is the worker process that renews the claim; `message` the delivered message, for publishing it again;
        `delivery` an id of this delivery (a repeated claim with the same id gets the same answer); `adopt` the entry to
        create for an unknown job, unless the ledger has forgotten the job or `root`, the workflow of a step; `place`
        what the job counts under from now on, instead of the key that it was accepted with.
        """
        extra: dict[str, Any] = {"adopt": adopt.record()} if adopt else {}
        if place is not None:
            extra["place"] = {"key": place.key, "limit": place.limit}
        if root is not None:
            extra["root"] = root
        what, *rest = self._call(
            "claim",
            id=job_id,
            owner=owner,
            worker=worker,
            lease_ms=int(lease_s * 1000),
            message=message,
            delivery=delivery or uuid7(),
            **extra,
        )
        if what == "run":
            token, attempt, retries, max_retries, upstream, version = rest
            accepted = int(version) if version else None
            return Claim(token, int(attempt), int(retries), int(max_retries), upstream, accepted)
        return Refusal(what, rest[0] if rest else "")

    def renew(
        self, job_ids: Sequence[str], *, owner: str, lease_s: float, tokens: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Renew the claims of `owner`, those in `tokens` only if they are still the ones with these tokens.

        Returns an answer per id: `ok`; `cancel` or `lost`: stop it; `ended`: `owner` has finished it, do not interrupt
        it; `waiting`: nobody has claimed it; `unknown`.
        """
        known = [(tokens or {}).get(job_id, "") for job_id in job_ids]
        replies = self._call("renew", owner=owner, ids=list(job_ids), tokens=known, lease_ms=int(lease_s * 1000))
        return dict(zip(job_ids, replies, strict=True))

    def progress(
        self,
        job_id: str,
        *,
        token: str,
        progress: str | None,
        logs: Sequence[str] = (),
        checkpoint: str | None = None,
    ) -> bool:
        """Write progress, log lines and a checkpoint (JSON text). Returns whether the job must stop.

        Raises `ClaimLost`.
        """
        given = {"progress": progress, "checkpoint": checkpoint}
        extra = {name: text for name, text in given.items() if text is not None}
        return self._as_claimed("progress", job_id, token=token, logs=list(logs), **extra) == "cancel"

    def submit(self, parent_id: str, *, token: str, child: Entry) -> bool | None:
        """Accept a child of a running job, unless it has been. Returns whether there was room; None: the job must stop.

        Raises `ClaimLost`.
        """
        reply = self._as_claimed("submit", parent_id, token=token, job=child.record())
        return {"ok": True, "full": False, "cancel": None}[reply]

    def expand(self, step_id: str, *, token: str, steps: Sequence[Entry], counts_steps: bool) -> bool:
        """Add steps to the job of a running step, unless it has been done. Returns False if it must stop.

        With `counts_steps` the result of the job is the numbers of its steps. Raises `ClaimLost`.
        """
        records = step_records(steps)
        return self._as_claimed("expand", step_id, token=token, steps=records, counts_steps=counts_steps) == "ok"

    def created_at_ms(self, job_id: str) -> int:
        """Return when a job was created, in milliseconds since 1970; 0 if it is unknown."""
        return int(self.client.hget(self.keys("job", job_id), "created_at") or 0)

    def checkpoint(self, job_id: str) -> str | None:
        """Return the latest checkpoint of a job that has not ended, as JSON text."""
        found = self.client.get(self.keys("checkpoint", job_id))
        return found.decode() if isinstance(found, bytes) else found

    def succeed(self, job_id: str, *, token: str, result: str, artifacts: str = "[]") -> None:
        """End a job with its JSON result. Raises `ClaimLost`."""
        self._as_claimed("finish", job_id, token=token, state=State.SUCCEEDED, result=result, artifacts=artifacts)

    def fail(self, job_id: str, *, token: str, error: str, artifacts: str = "[]") -> bool:
        """End a job with its JSON error; return whether it is a step that may fail. Raises `ClaimLost`."""
        failed = {"state": State.FAILED, "error": error, "artifacts": artifacts}
        return self._as_claimed("finish", job_id, token=token, **failed) == "tolerated"

    def fail_as_owner(self, job_id: str, *, owner: str, error: str, unclaimed: bool = False) -> bool:
        """End a job whose child cannot do it. Returns False if `owner` does not have the claim.

        With `unclaimed` also end a queued job, whose message no worker can run.
        """
        return bool(
            self._call("finish", id=job_id, owner=owner, state=State.FAILED, error=error, unclaimed=unclaimed)
            != "refused"
        )

    def stopped(self, job_id: str, *, token: str, artifacts: str = "[]") -> None:
        """End a job that stopped on request. Raises `ClaimLost`."""
        self._as_claimed("stopped", job_id, token=token, artifacts=artifacts)

    def retry(self, job_id: str, *, token: str, delay_s: float, error: str) -> None:
        """Delay a job until its next attempt; the keeper publishes it then. Raises `ClaimLost`."""
        self._as_claimed("retry", job_id, token=token, delay_ms=int(delay_s * 1000), error=error)

    def give_back(
        self,
        job_id: str,
        *,
        token: str,
        contract: str,
        error: str,
        for_s: float,
        least_s: float = 2,
        most_s: float = 30,
    ) -> bool:
        """Leave a job to a worker with another version of its contract than the one with the fingerprint `contract`.

        The next attempt comes between `least_s` and `most_s` later, the later the longer it has waited. Returns False
        if the job must fail: its parameters were accepted by this version, or by none, or it was first given back
        `for_s` seconds ago. Raises `ClaimLost`.
        """
        reply = self._as_claimed(
            "give_back",
            job_id,
            token=token,
            contract=contract,
            error=error,
            for_ms=int(for_s * 1000),
            least_ms=int(least_s * 1000),
            most_ms=int(most_s * 1000),
        )
        return reply == "ok"

    def release(self, job_id: str, *, owner: str, crashed: bool = False, token: str | None = None) -> str:
        """Release a job, because the worker shuts down or its child `crashed`. Returns the outcome.

        One of `released`, `republished`, `quarantined`, `cancelled`, or `refused` if `owner` does not have the claim,
        or not the one with this `token`.
        """
        extra = {"token": token} if token is not None else {}
        return cast("str", self._call("release", id=job_id, owner=owner, crashed=crashed, **extra))

    def published(self, publications: Mapping[str, int]) -> None:
        """Record which publication of each of these jobs in the outbox has been done: see `messages`."""
        self._call("published", ids=list(publications), publications=list(publications.values()))

    def call_back(self, job_id: str, callback: Entry) -> bool:
        """Accept the callback of `job_id`; return False if it was accepted before."""
        return bool(self._call("callback", id=job_id, job=callback.record()) == "accepted")

    def messages(self, job_ids: Sequence[str]) -> dict[str, tuple[str, str, int]]:
        """Return queue and message of each of these jobs, and the number of the publication that is to come."""
        found: dict[str, tuple[str, str, int]] = {}
        for job_id in job_ids:
            reply = self.client.hmget(self.keys("job", job_id), ["queue", "message", "publishes"])
            queue, message, publishes = cast("list[str | None]", reply)
            if queue is not None and message is not None:
                found[job_id] = (queue, message, int(publishes or 0) + 1)
        return found

    def tend(
        self,
        *,
        owner: str,
        lock_s: float = 5,
        lease_s: float = 20,
        limit: int = 50,
        first_round: int = 1,
        grace_s: float = 15,
        outbox_grace_s: float = 5,
        remember_s: float = 90 * 86_400,
    ) -> Tended | None:
        """Run rounds of the keeper until about `limit` jobs are changed; return None if another worker is the keeper.

        A message counts as lost if it left its list more than `grace_s` ago and the job is not claimed. The ids of
        forgotten jobs are kept for `remember_s`, for the response 410. When a keeper dies, the next one begins after
        `lock_s` or half a lease: were it a whole one, the ledger would seem to have been away.
        """
        reply = self._call(
            "tend",
            owner=owner,
            lock_ms=int(min(lock_s, lease_s / 2) * 1000),
            lease_ms=int(lease_s * 1000),
            limit=limit,
            round=first_round,
            grace_ms=int(grace_s * 1000),
            outbox_grace_ms=int(outbox_grace_s * 1000),
            remember_ms=int(remember_s * 1000),
        )
        if not reply:
            return None
        _, next_round, *told = reply
        actions = [Action(what, job_id) for what, job_id in zip(told[::2], told[1::2], strict=True)]
        return Tended(actions, int(next_round))

    def turns(self, *, limit: int = 50) -> tuple[float | None, list[str]]:
        """Publish the jobs whose turn has come by the rate of their key.

        Returns in how many seconds the next turn comes (None: no job waits for one), and the ids of jobs whose messages
        the caller has to publish.
        """
        wait_ms, *unpublished = self._call("turns", limit=limit)
        return (None if wait_ms == "-1" else int(wait_ms) / 1000), unpublished

    def read(self, job_id: str) -> Record | Gone | Unknown:
        """Return a job or step by id."""
        return parse_read(self._call("read", id=job_id))

    def cancel(self, job_id: str, *, reason: str) -> str:
        """Cancel a job. Returns `cancelled`, `requested` (it is running), `unknown` or its final state."""
        what, *rest = self._call("cancel", id=job_id, reason=reason)
        return cast("str", rest[0] if what == "ended" else what)
