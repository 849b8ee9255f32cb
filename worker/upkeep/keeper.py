"""The keeper: publishes due and lost jobs, ends expired ones, and deletes those past their retention.

Every worker runs one; a lock in the ledger selects the active one. The script of the ledger decides (`tend`),
atomically with the changes of states. This module does what a script cannot do: publish to a broker other than
Redis, create the messages of callbacks, and remove files.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from functools import cached_property

from celery import Celery

from shared.broker.messages import Composer, publish
from shared.broker.settings import BrokerSettings
from shared.connections.callbacks import concurrency_key_of
from shared.contract.options import RunOptions
from shared.jobs.callbacks import DeliverCallback
from shared.ledger.calling.tending import Action
from shared.ledger.client import Ledger
from shared.ledger.keys import key
from shared.ledger.records import Record
from shared.storage import ArtifactStore
from shared.workflows.planning import Planner, prepare

_LEAST_S = 0.005  # between two looks at turns
_LOGGED_AT_ONCE = 5_000  # actions in one line of the log

logger = logging.getLogger(__name__)


class Keeper:
    """Runs rounds: calls of `tend` of the ledger, each with its follow-up actions, until nothing is left to do."""

    def __init__(
        self, ledger: Ledger, settings: BrokerSettings, *, owner: str, app: Celery, callbacks_per_host: int
    ) -> None:
        self._ledger = ledger
        self._owner = owner
        self._app = app
        self._settings = settings
        self._grace_s = settings.lost_message_grace_s
        self._lease_s = settings.lease_s
        self._callbacks_per_host = callbacks_per_host
        self._store = ArtifactStore(settings.store_url)
        self._is_active = False
        self._next_round = 0
        self._done: Counter[str] = Counter()  # what was done since the last line of the log

    def round(self) -> float | None:
        """Tend the ledger if this worker is the keeper.

        Returns in how many seconds more is to be done, None if nothing is: after as long as the call took, so that a
        backlog of any size leaves half of the ledger to others.
        """
        began = time.monotonic()
        tended = self._ledger.tend(
            owner=self._owner, first_round=self._next_round or 1, grace_s=self._grace_s, lease_s=self._lease_s
        )
        took_s = time.monotonic() - began
        self._is_active = tended is not None
        if tended is None:
            return None
        self._next_round = tended.next_round
        self._follow(tended.actions)
        self._done.update(action.what for action in tended.actions)
        if self._done and (not tended.next_round or self._done.total() >= _LOGGED_AT_ONCE):
            self._tell()
        return took_s if tended.next_round else None

    def _follow(self, actions: list[Action]) -> None:
        self._complain(actions)
        for action in actions:  # first: the ledger no longer has these jobs
            if action.what == "forgotten":
                self._forget(action.id)
        if unpublished := [action.id for action in actions if action.what == "unpublished"]:
            self._publish(unpublished)
        for action in actions:
            if action.what == "callback":
                self._call_back(action.id)

    def turns(self) -> float | None:
        """Publish the jobs whose turn has come by the rate of their kind, if this worker is the keeper.

        Returns in how many seconds the next turn comes; None if no job waits for one. A second thread calls this, since
        turns come more often than rounds.
        """
        if not self._is_active:
            return None
        next_s, unpublished = self._ledger.turns()
        if unpublished:
            self._publish(unpublished)
        return None if next_s is None else max(next_s, _LEAST_S)

    def _forget(self, file_owner: str) -> None:
        try:
            self._store.forget(file_owner)
        except OSError as failure:
            logger.warning("the files of %s could not be deleted: %r", file_owner, failure)

    def _publish(self, job_ids: list[str]) -> None:
        with self._app.connection_for_write() as connection, connection.Producer() as producer:
            for job_id, (queue, message, publication) in self._ledger.messages(job_ids).items():
                publish(producer, self._app.amqp.queues[queue], message)
                self._ledger.published({job_id: publication})

    def _call_back(self, job_id: str) -> None:
        """Submit the callback of this job; the ledger handles its retries, limits and crashes."""
        told = self._ledger.read(job_id)
        if not isinstance(told, Record):  # deleted meanwhile
            return
        options = RunOptions(
            tags=["callback"],
            concurrency_key=concurrency_key_of(json.loads(told.options)["callback_url"]),
            concurrency_limit=self._callbacks_per_host,
        )
        self._ledger.call_back(job_id, self._planner.entry(prepare(DeliverCallback(job_id=job_id), options)))

    @cached_property
    def _planner(self) -> Planner:
        return Planner(self._settings, Composer(self._settings))

    def _complain(self, actions: list[Action]) -> None:
        """Log what an operator has to repair."""
        for action in actions:
            if action.what == "set_aside":
                logger.error("%s cannot be worked on and is set aside: see HGET %s", action.id, key("set_aside"))
            elif action.what == "failed":
                logger.error("keeper: this round failed: %s", action.id)

    def _tell(self) -> None:
        routine = {"published", "forgotten", "callback"}
        level = logging.INFO if self._done.keys() <= routine else logging.WARNING
        logger.log(level, "keeper: %s", ", ".join(f"{count} {what}" for what, count in sorted(self._done.items())))
        self._done.clear()
