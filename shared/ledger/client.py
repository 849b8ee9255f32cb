"""The ledger: every job's record, and the only way to change its state.

The transitions are one Lua script (`script/`, the state machine is drawn in `states.py`); this module gives
it typed callers: `Ledger`, here, for the workers, and `AsyncLedger` (`aclient.py`) for the gateway. Both run the same
script.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import redis
from pydantic_core import to_json

from shared.errors import ClaimLost
from shared.ledger.ids import uuid7
from shared.ledger.keys import Keys
from shared.ledger.records import (
    Accepted,
    Action,
    Claim,
    Entry,
    Gone,
    Record,
    Refusal,
    Submission,
    Unknown,
    parse_accepted,
    parse_read,
)
from shared.ledger.script import source


class Ledger:
    """The workers' side: claim, renew, progress, finish, retry, release, and the keeper's round.

    Redis errors pass through: a worker waits and tries again, see `worker.runtime.task`.
    """

    def __init__(self, client: redis.Redis, *, keys: Keys | None = None) -> None:
        """Take the ledger's Redis; the names of its `keys` are those of this process's settings unless told."""
        self.client = client
        self.keys = keys or Keys()
        self._script = client.register_script(source(self.keys))

    def _call(self, transition: str, **arguments: Any) -> Any:
        return self._call_raw(transition, arguments)

    def _call_raw(self, transition: str, arguments: Any) -> Any:
        return self._script(args=[transition, to_json(arguments)])

    def call(self, transition: str, arguments: Any) -> Any:
        """Run a transition that has its typed caller elsewhere: see `shared.schedules.timetable`."""
        return self._call_raw(transition, arguments)

    def accept(self, submission: Submission) -> Accepted:
        """Write jobs and their messages, atomically: beat and the keeper submit, too."""
        (reply,) = self._call_raw("accept", [submission.arguments()])
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
    ) -> Claim | Refusal:
        """Ask for the right to run a job.

        `owner` is the worker process that renews the claim, `message` what was delivered, as it can be published again,
        `delivery` an id of this delivery (a repeated claim of the same one is given again),
        `adopt` the entry to make if the ledger does not know the job, unless it has forgotten it or its `root`, the
        workflow that a step's message is of.
        """
        extra: dict[str, Any] = {"adopt": adopt.record()} if adopt else {}
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
            token, attempt, retries, max_retries, upstream = rest
            return Claim(token, int(attempt), int(retries), int(max_retries), upstream)
        return Refusal(what, rest[0] if rest else "")

    def renew(self, job_ids: Sequence[str], *, owner: str, lease_s: float) -> dict[str, str]:
        """Prolong the claims of `owner`. Returns an answer per id.

        `ok`; `cancel` or `lost`: stop it; `ended`: `owner` has finished it, let it be; `unknown`.
        """
        replies = self._call("renew", owner=owner, ids=list(job_ids), lease_ms=int(lease_s * 1000))
        return dict(zip(job_ids, replies, strict=True))

    def progress(self, job_id: str, *, token: str, progress: str | None, logs: Sequence[str] = ()) -> bool:
        """Write progress and log lines (JSON text). Returns whether the job is asked to stop. Raises `ClaimLost`."""
        extra = {"progress": progress} if progress is not None else {}
        reply = self._call("progress", id=job_id, token=token, logs=list(logs), **extra)
        if reply == "refused":
            raise ClaimLost(f"{job_id} has another owner or has ended")
        return cast("str", reply) == "cancel"

    def succeed(self, job_id: str, *, token: str, result: str, artifacts: str = "[]") -> None:
        """End a job with its JSON result. Raises `ClaimLost`."""
        self._settle(job_id, token=token, state="succeeded", result=result, artifacts=artifacts)

    def fail(self, job_id: str, *, token: str, error: str, artifacts: str = "[]") -> bool:
        """End a job with its JSON error; return whether it is a step that may fail. Raises `ClaimLost`."""
        return self._settle(job_id, token=token, state="failed", error=error, artifacts=artifacts) == "tolerated"

    def fail_as_owner(self, job_id: str, *, owner: str, error: str, unclaimed: bool = False) -> bool:
        """End a job whose child can no longer speak for itself. Returns False where it was not this owner's.

        With `unclaimed` a queued job ends too: its message cannot be run by any worker.
        """
        return bool(
            self._call("finish", id=job_id, owner=owner, state="failed", error=error, unclaimed=unclaimed) != "refused"
        )

    def stopped(self, job_id: str, *, token: str, artifacts: str = "[]") -> None:
        """End a running job that was asked to stop, and has. Raises `ClaimLost`."""
        if self._call("stopped", id=job_id, token=token, artifacts=artifacts) == "refused":
            raise ClaimLost(f"{job_id} has another owner or has ended")

    def _settle(self, job_id: str, **arguments: Any) -> str:
        outcome = cast("str", self._call("finish", id=job_id, **arguments))
        if outcome == "refused":
            raise ClaimLost(f"{job_id} has another owner or has ended")
        return outcome

    def retry(self, job_id: str, *, token: str, delay_s: float, error: str) -> None:
        """Set a job aside until its next try; the keeper publishes it then. Raises `ClaimLost`."""
        if self._call("retry", id=job_id, token=token, delay_ms=int(delay_s * 1000), error=error) == "refused":
            raise ClaimLost(f"{job_id} has another owner or has ended")

    def release(self, job_id: str, *, owner: str, crashed: bool = False) -> str:
        """Give a job back: the worker shuts down, or its child `crashed`. Returns what became of it.

        One of `released`, `republished`, `quarantined`, `cancelled`, or `refused` where it was not this owner's.
        """
        return cast("str", self._call("release", id=job_id, owner=owner, crashed=crashed))

    def published(self, job_ids: Sequence[str]) -> None:
        """Note that the outbox's messages of these jobs have reached the broker."""
        self._call("published", ids=list(job_ids))

    def call_back(self, job_id: str, callback: Entry) -> bool:
        """Accept the job that tells the end of `job_id`; return False where that was done before."""
        return bool(self._call("callback", id=job_id, job=callback.record()) == "accepted")

    def messages(self, job_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Return queue and message of these jobs, for publishing from the outbox."""
        found: dict[str, tuple[str, str]] = {}
        for job_id in job_ids:
            queue, message = cast("list[str | None]", self.client.hmget(self.keys("job", job_id), ["queue", "message"]))
            if queue is not None and message is not None:
                found[job_id] = (queue, message)
        return found

    def tend(
        self,
        *,
        owner: str,
        lock_s: float = 5,
        lease_s: float = 20,
        limit: int = 200,
        grace_s: float = 15,
        outbox_grace_s: float = 5,
        remember_s: float = 90 * 86_400,
    ) -> list[Action] | None:
        """Do one round of the keeper; None where another worker is the keeper.

        A message is taken for lost when it has been off its list for `grace_s` without a claim. Forgotten jobs
        answer 410 for `remember_s`.
        """
        reply = self._call(
            "tend",
            owner=owner,
            lock_ms=int(lock_s * 1000),
            lease_ms=int(lease_s * 1000),
            limit=limit,
            grace_ms=int(grace_s * 1000),
            outbox_grace_ms=int(outbox_grace_s * 1000),
            remember_ms=int(remember_s * 1000),
        )
        if not reply:
            return None
        return [Action(what, job_id) for what, job_id in zip(reply[1::2], reply[2::2], strict=True)]

    def read(self, job_id: str) -> Record | Gone | Unknown:
        """Return a job or step by id."""
        return parse_read(self._call("read", id=job_id))

    def cancel(self, job_id: str, *, reason: str) -> str:
        """Cancel a job. Returns `cancelled`, `requested` (it is running), `unknown` or the state it had ended in."""
        return cast("str", self._call("cancel", id=job_id, reason=reason)[-1])
