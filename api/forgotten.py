"""Jobs that the ledger has forgotten, from the rows of the result database, if there is one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib import import_module

import structlog

from api.http.problems import Problem
from api.settings import GatewaySettings
from shared.errors import LedgerFull, LedgerUnavailable, OutcomeUnknown
from shared.ledger.aclient import AsyncLedger
from shared.ledger.records import Record
from shared.rows.noted import want_rows
from shared.texts import redact

_THREADS = 4
_ANSWERS_WITHIN_S = 2.0
_log = structlog.get_logger(__name__)


class Forgotten:
    """Reads rows in a few threads of its own, which wait for the database while the event loop goes on."""

    def __init__(self, read: Callable[[str], Record | None], threads: ThreadPoolExecutor) -> None:
        self._read = read
        self._threads = threads
        self._free = asyncio.Semaphore(_THREADS)

    async def read(self, job_id: str) -> Record | None:
        """Return the job or step with this id, or None. Raises `Problem` (503) if that is not known in time."""
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN_S):
                await self._free.acquire()
                reading = asyncio.get_running_loop().run_in_executor(self._threads, self._read, job_id)
                reading.add_done_callback(self._release)  # a thread is free only then, also after the time is up
                return await asyncio.shield(reading)
        except Exception as failure:  # SQLAlchemy's errors, which this module does not import, and TimeoutError
            _log.warning("result database unavailable", cause=redact(repr(failure)))
            detail = (
                f"The ledger does not have job {job_id} (now), and the result database does not respond, so it is not "
                "known whether there was such a job. Retry the request."
            )
            raise Problem(503, "result_database_unavailable", detail, headers={"Retry-After": "5"}) from failure

    def _release(self, reading: asyncio.Future[Record | None]) -> None:
        self._free.release()
        if not reading.cancelled():
            reading.exception()  # taken note of: nobody may wait for it any longer


@asynccontextmanager
async def reading_rows(settings: GatewaySettings, ledger: AsyncLedger) -> AsyncIterator[Forgotten | None]:
    """Yield the reader of rows, None without a result database, and have the ledger note rows from now on."""
    if not settings.database_url:
        yield None
        return
    # SQLAlchemy is in an extra, and takes a third of a second to import.
    database, reading = import_module("shared.rows.database"), import_module("shared.rows.reading")
    engine = database.open_database(settings.database_url, connections=_THREADS, timeout_s=_ANSWERS_WITHIN_S)
    threads = ThreadPoolExecutor(_THREADS, "rows")
    try:
        await want_rows(ledger.call)
    except (LedgerFull, LedgerUnavailable, OutcomeUnknown) as failure:
        _log.warning("rows are not asked for; the first worker does it", cause=redact(repr(failure)))
    try:
        yield Forgotten(lambda job_id: reading.read(engine, job_id), threads)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        engine.dispose()
