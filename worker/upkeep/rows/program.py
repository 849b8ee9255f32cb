"""The program that writes rows into the result database: rounds until its worker ends.

Every worker has one, and a lock in the ledger selects the one that writes. It may be killed at any time: what is not
committed, or not noted as written, is written again.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time

import redis

from shared.broker.settings import BrokerSettings, broker_settings
from shared.ledger.backend import claim_owner
from shared.ledger.client import Ledger
from shared.ledger.server import bounded
from shared.rows.database import open_database
from shared.rows.noted import NotedRows
from shared.texts import redact
from worker.observability import configure_logging
from worker.runtime.parents import end_with
from worker.upkeep.rows.starting import STOPPING
from worker.upkeep.rows.writer import Writer

logger = logging.getLogger("worker.upkeep.rows")

_ROUND_S = 1.0
_LONGEST_PAUSE_S = 10.0  # while the database is away


def run(writer: Writer, stopping: threading.Event) -> None:
    """Do rounds until `stopping`, and one more then."""
    pause_s, is_last = _ROUND_S, False
    while True:
        try:
            more = writer.round()
        except Exception as failure:  # noqa: BLE001 - whatever it is, the rows are still noted: the next round tries again
            if pause_s == _ROUND_S:
                logger.warning("rows wait, as the result database cannot be written: %s", redact(repr(failure)))
            more, pause_s = False, min(2 * pause_s, _LONGEST_PAUSE_S)
        else:
            if pause_s > _ROUND_S:
                logger.warning("the result database can be written again")
            pause_s = _ROUND_S
        if is_last:
            return
        if not more:
            is_last = stopping.wait(pause_s)


def writer_of(settings: BrokerSettings, owner: str) -> Writer:
    """Return the writer of this process."""
    client = redis.Redis.from_url(settings.ledger_url, **bounded())
    engine = open_database(settings.database_url, connections=1)
    return Writer(NotedRows(Ledger(client), owner=owner), engine, retention_s=settings.rows_retention_s)


def main(parent: int) -> None:
    """Write rows until the worker `parent` says to stop, or ends."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(STOPPING, lambda *_: stopping.set())
    end_with(parent)
    configure_logging()
    settings = broker_settings()
    writer = writer_of(settings, f"{claim_owner()}:{os.getpid()}:{time.monotonic_ns()}")
    run(writer, stopping)


if __name__ == "__main__":
    main(int(sys.argv[1]))
