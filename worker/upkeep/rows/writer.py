"""One round of writing rows: take what the ledger has noted, commit it, and only then have the ledger forget it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence

import sqlalchemy as sa

from shared.rows import writing
from shared.rows.djangos import DjangoTables
from shared.rows.migrations import migrate
from shared.rows.noted import LOCK_S, Noted, NotedRow, NotedRows
from shared.texts import redact

logger = logging.getLogger(__name__)

_COMMITS_WITHIN_S = LOCK_S / 2  # else another writer may have begun; this one gives up what it has taken
_CLEANS_EVERY_S = 60.0
_CLEANS_AT_ONCE = 500
_LOOKS_EVERY_S = 300.0  # whether there are tables of Django
_REFUSED_AFTER = 5  # rounds in which the database takes other rows but not this one


class Writer:
    """Writes rows; a failed round changes nothing, and the next one begins with the same rows."""

    def __init__(self, noted: NotedRows, engine: sa.Engine, *, retention_s: float) -> None:
        self._noted = noted
        self._engine = engine
        self._retention_s = retention_s
        self._is_ready = False
        self._django = DjangoTables()
        self._looked_at = self._cleaned_at = 0.0
        self._strikes: Counter[str] = Counter()

    def round(self) -> bool:
        """Write what is noted, or clean up. Return whether there is more to write; raise what the database raises."""
        began = time.monotonic()
        noted = self._noted.take()
        if noted is None:
            return False
        if self._prepare(began):
            return True  # that may have taken long: begin with a fresh lock
        for job_id in noted.damaged:
            logger.error("the record of %s cannot be read, so it gets no row", job_id)
        written, refused = self._write(noted, began) if noted.rows or noted.deleted else ((), ())
        places = {row.record.id: row.place for row in (*written, *refused)} | dict(noted.damaged)
        if places or noted.deleted:
            self._noted.written(places, noted.deleted, refused=len(refused) + len(noted.damaged))
        if not any(noted) and began - self._cleaned_at >= _CLEANS_EVERY_S:
            return self._clean(began)
        return bool(places) or bool(noted.deleted)

    def _prepare(self, now: float) -> bool:
        """Migrate, and look for Django's tables, if it is time for that; return whether the former was done."""
        was_ready = self._is_ready
        if not self._is_ready:
            migrate(self._engine)
            self._is_ready = True
        if now - self._looked_at >= _LOOKS_EVERY_S or not self._looked_at:
            with self._engine.connect() as connection:
                self._django = DjangoTables.look(connection)
            self._looked_at = now
        return not was_ready

    def _write(self, noted: Noted, began: float) -> tuple[Sequence[NotedRow], Sequence[NotedRow]]:
        """Return the rows that are written, and those that the database does not take for what is in them."""
        try:
            self._commit(noted.rows, list(noted.deleted), began)
        except sa.exc.SQLAlchemyError as failure:
            if len(noted.rows) < 2:  # noqa: PLR2004 - it may be the row or the database, and no other row waits for it
                raise
            return self._write_one_by_one(noted, failure)
        self._strikes.clear()
        return noted.rows, ()

    def _write_one_by_one(self, noted: Noted, first: Exception) -> tuple[Sequence[NotedRow], Sequence[NotedRow]]:
        """Write each row in a transaction of its own, so that one that cannot be written does not keep the others.

        If none can be written, it is the database: raise `first`, and lose nothing.
        """
        self._commit((), list(noted.deleted), time.monotonic())
        written: list[NotedRow] = []
        failed: list[tuple[NotedRow, Exception]] = []
        began = time.monotonic()
        for row in noted.rows:
            if time.monotonic() - began > _COMMITS_WITHIN_S:
                break
            try:
                self._commit([row], (), began)
                written.append(row)
            except sa.exc.SQLAlchemyError as failure:
                failed.append((row, failure))
        if not written:
            raise first
        refused = []
        for row, why in failed:
            self._strikes[row.record.id] += 1
            if self._strikes[row.record.id] >= _REFUSED_AFTER:
                logger.error("the result database refuses the row of %s: %s", row.record.id, redact(repr(why)))
                refused.append(row)
                del self._strikes[row.record.id]
        return written, refused

    def _commit(self, rows: Sequence[NotedRow], deleted: Sequence[str], began: float) -> None:
        with self._engine.begin() as connection:
            if rows:
                writing.write(connection, rows, self._django)
            if deleted:
                writing.delete(connection, deleted, self._django)
            if time.monotonic() - began > _COMMITS_WITHIN_S:
                raise TimeoutError("the result database is too slow: another worker may be writing by now")

    def _clean(self, now: float) -> bool:
        """Delete some of the rows that are past their retention; return whether there may be more."""
        than_ms = int((time.time() - self._retention_s) * 1000)
        with self._engine.begin() as connection:
            deleted = writing.delete_older(connection, than_ms, most=_CLEANS_AT_ONCE, django=self._django)
        if deleted:
            logger.info("deleted %d rows past their retention", deleted)
        else:
            self._cleaned_at = now
        return deleted > 0
