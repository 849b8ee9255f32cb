"""The start, fork, shutdown and end of a worker."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import redis
from billiard import current_process
from celery import Celery, signals
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.broker.celery import send_to_any_queue
from shared.broker.safety import refuse_unsafe
from shared.broker.settings import broker_settings
from shared.collector import set_aside_what_is_loaded
from shared.contract.catalogue import catalogue
from shared.errors import DefinitionError
from shared.ledger.backend import OWNER_VARIABLE, LedgerBackend
from shared.ledger.client import Ledger
from shared.ledger.ids import new_owner
from shared.ledger.server import bounded
from shared.rows.packages import refuse_missing_packages
from shared.storage import ArtifactStore
from shared.texts import redact
from shared.workflows.definition import is_only_planned
from worker.events import EventsTogether
from worker.observability import configure_logging
from worker.runtime import deadlines, scratch
from worker.runtime.parents import end_with
from worker.runtime.task import definitions
from worker.settings import worker_settings
from worker.upkeep.cancels import Cancels
from worker.upkeep.custodian import Custodian
from worker.upkeep.endings import Endings
from worker.upkeep.keeper import Keeper
from worker.upkeep.periodic import Periodic
from worker.upkeep.presence import Heartbeat
from worker.upkeep.pulse import Pulse
from worker.upkeep.rows.starting import RowsProcess
from worker.upkeep.warden import Warden
from worker.upkeep.watchdog import Watchdog

logger = logging.getLogger(__name__)

_ROUND_S = 1.0
_TURNS_S = 0.2  # until the keeper sees that a job waits for the rate of its kind; then it knows when to look again
_ENDS_WITHIN_S = 30.0  # after the soft shutdown; jobs are interrupted, then killed after 10 s
_RENEWS_WITHIN_RATIO = 0.25  # of a lease: how long one call of the custodian may take, so that there are several
_HEARS_WITHIN_S = 2.0  # time limit of the channel of cancels, which only saves time


class Lifecycle:
    """Connects a worker process to the ledger: claim owner id, custodian, keeper."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._custodian: Custodian | None = None
        self._watchdog: Watchdog | None = None
        self._threads: list[Periodic] = []
        self._scratch = Path()
        self._pid = 0
        self._deadlines: deadlines.Deadlines
        self._warden: Warden
        self._rows: RowsProcess

    def on_init(self, sender: Any, **_: Any) -> None:
        """Set the claim owner id before children are forked. Refuse to run without tasks or with an unsafe broker.

        `sender` is Celery's worker, which has its queues by now, with or without `-Q`.
        """
        if not definitions():
            raise DefinitionError(
                "This worker has no tasks, so it would fail every job of its queues. "
                "Set its families in WORKER_FAMILIES, or modules with tasks in CELERIAC_TASKS."
            )
        if os.geteuid() == 0:
            logger.warning("this worker is root, and so is the code of its jobs: start it as another user")
        refuse_foreign(sender.app.amqp.queues.consume_from, runs=sender.app.tasks.keys())
        os.environ[OWNER_VARIABLE] = new_owner()
        self._pid = os.getpid()
        self._scratch = scratch.make_root()
        settings = broker_settings()
        refuse_missing_packages(settings.database_url)
        ArtifactStore(settings.store_url)  # an invalid URL is an error now, not in the first job
        try:
            refuse_unsafe(_client(settings.ledger_url), allow_volatile=settings.allow_volatile_broker)
        except redis.RedisError as failure:
            logger.warning("the ledger could not be checked: %s", redact(repr(failure)))
        self._deadlines = deadlines.Deadlines()
        self._warden = Warden(self._deadlines)
        self._warden.start()
        self._rows = RowsProcess(settings)

    def on_ready(self, sender: Any, **_: Any) -> None:
        """Start custodian and keeper, with separate connections. `sender` is Celery's consumer."""
        settings, owner = broker_settings(), os.environ[OWNER_VARIABLE]
        broker = _client(settings.broker_url) if settings.uses_redis else None
        ledger = Ledger(_client_once(settings.ledger_url, settings.lease_s * _RENEWS_WITHIN_RATIO))
        endings = Endings(_backend_on(self._app, ledger))
        heartbeat = Heartbeat(ledger, settings, owner=owner, consumer=sender)
        heartbeat.begin()
        self._custodian = custodian = Custodian(
            ledger,
            settings,
            owner=owner,
            broker=broker,
            scratch=self._scratch,
            heartbeat=heartbeat,
            cancels=Cancels(_client_once(settings.ledger_url, _HEARS_WITHIN_S)),
            deadlines=self._deadlines,
            endings=endings,
        )
        LedgerBackend.was_stopped = custodian.has_stopped
        LedgerBackend.limit_reached = custodian.limit_reached
        LedgerBackend.later = endings.keep
        self._watchdog = watchdog = Watchdog(
            sender.pulse, stalled_after_s=worker_settings().stalled_after_s, give_back=custodian.give_back
        )

        def look_and_keep() -> None:
            watchdog.look()
            self._warden.start()
            self._rows.start()
            custodian.round()

        keeper = Keeper(
            _ledger(),
            settings,
            owner=owner,
            app=self._app,
            callbacks_per_host=worker_settings().callbacks_per_host,
        )
        self._threads = [
            Periodic("custodian", look_and_keep, interval_s=_ROUND_S, pause=custodian.pause),
            Periodic("keeper", keeper.round, interval_s=_ROUND_S),
            Periodic("turns", keeper.turns, interval_s=_TURNS_S),
        ]
        for thread in self._threads:
            thread.start()

    def on_shutting_down(self, how: str = "", **_: Any) -> None:
        """Start the clock of the soft shutdown."""
        if self._custodian is not None and how == "Warm":
            self._custodian.begin_shutdown()
        if self._watchdog is not None:
            self._watchdog.begin_shutdown(broker_settings().soft_shutdown_s + _ENDS_WITHIN_S)

    def on_shutdown(self, **_: Any) -> None:
        """Return the remaining jobs to their queues, and stop."""
        for thread in self._threads:
            thread.stop()
        if self._custodian is not None:
            self._custodian.give_back()
        LedgerBackend.later = None
        self._rows.stop()
        self._warden.stop()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def on_child(self, **_: Any) -> None:
        """Make a child die with its parent, which renews its claims and reads its outcome; give it a deadline."""
        send_to_any_queue(self._app)
        if os.getpid() == self._pid:  # --pool solo: there are no children
            return
        LedgerBackend.later = None  # a child waits for the ledger
        end_with(self._pid)
        deadlines.join(self._deadlines, current_process().index)  # type: ignore[attr-defined]  # of billiard's pool


def refuse_foreign(queues: Collection[str], *, runs: Collection[str]) -> None:
    """Refuse to consume a queue of kinds that this worker cannot run: it would take jobs from those that can.

    Raises `DefinitionError`.
    """
    foreign = [
        contract.spec
        for kind, contract in catalogue().items()
        if contract.spec.queue in queues and kind not in runs and not is_only_planned(contract)
    ]
    if foreign:
        kinds, own = ", ".join(spec.kind for spec in foreign), sorted({spec.queue for spec in foreign})
        raise DefinitionError(
            f"This worker would consume {', '.join(own)}, but has no task for {kinds} there. Add "
            f"{', '.join(sorted({spec.family for spec in foreign}))} to WORKER_FAMILIES (or the module of the tasks "
            "to CELERIAC_TASKS), or give your kinds a queue of their own: name it in CELERIAC_QUEUES and in their "
            "contracts, or consume others with -Q."
        )


def on_set_up(**_: Any) -> None:
    """Set aside what is loaded, just before the children are forked."""
    set_aside_what_is_loaded()


def on_celeryd_init(conf: Any, options: Mapping[str, Any], instance: Any, **_: Any) -> None:
    """Have as many processes as the contracts of the consumed queues say, unless `--concurrency` says it."""
    if options.get("concurrency") is not None:
        return
    consumed = set(options.get("queues") or instance.app.amqp.queues.consume_from)
    consumed -= set(options.get("exclude_queues") or ())
    said = catalogue().processes()
    if consumed and consumed <= said.keys():
        conf.worker_concurrency = sum(said[queue] for queue in consumed)


def or_not_at_all(handler: Callable[..., None]) -> Callable[..., None]:
    """Return `handler` so that an error in it ends the worker. Celery only logs errors of signal handlers.

    A worker without its custodian would run jobs without renewing their claims.
    """

    def whole(**arguments: Any) -> None:
        try:
            handler(**arguments)
        except DefinitionError as wrong:
            raise SystemExit(f"{wrong}") from wrong
        except Exception as failure:
            logger.exception("this worker cannot start")
            raise SystemExit(f"This worker cannot start: {redact(repr(failure))}") from failure

    return whole


def attach(app: Celery) -> None:
    """Connect the signals of the worker. They need `weak=False`: Celery keeps weak references by default."""
    app.steps["consumer"].add(Pulse)
    app.steps["consumer"].add(EventsTogether)
    lifecycle = Lifecycle(app)
    signals.setup_logging.connect(configure_logging, weak=False)
    signals.celeryd_init.connect(or_not_at_all(on_celeryd_init), weak=False)
    signals.worker_init.connect(or_not_at_all(lifecycle.on_init), weak=False)
    signals.celeryd_after_setup.connect(on_set_up, weak=False)
    signals.worker_ready.connect(or_not_at_all(lifecycle.on_ready), weak=False)
    signals.worker_shutting_down.connect(lifecycle.on_shutting_down, weak=False)
    signals.worker_shutdown.connect(lifecycle.on_shutdown, weak=False)
    signals.worker_process_init.connect(lifecycle.on_child, weak=False)


def _ledger() -> Ledger:
    return Ledger(_client(broker_settings().ledger_url))


def _backend_on(app: Celery, ledger: Ledger) -> LedgerBackend:
    """Return a result backend that calls the ledger through `ledger`."""
    backend = LedgerBackend(app=app, url=broker_settings().ledger_url)
    backend.ledger = ledger
    return backend


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, **bounded())


def _client_once(url: str, timeout_s: float) -> redis.Redis:
    """Return a client whose calls end within `timeout_s`; it retries only once, if its connection was broken."""
    return redis.Redis.from_url(url, **bounded(timeout_s), retry=Retry(NoBackoff(), 1, (redis.ConnectionError,)))
