"""The rows of the result database: what the ledger notes for it, and its removal from there once it is written.

`note_row` in `script/jobs/results.lua` notes, in the transition that ends a job, step or attempt, so that nothing is
lost between the end and the row; `script/service/writing.lua` has the calls of the writer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from shared.errors import DamagedRecord
from shared.ledger.client import Ledger
from shared.ledger.records import Record, parse_record

WANTED_S = 7 * 86_400.0  # rows are noted for this long after the last writer asked for them
LOCK_S = 15.0
_LIMIT = 200
_MOST_BYTES = 8 * 1024**2


class NotedRow(NamedTuple):
    """A job or step with something to write. Of two of the same id, the one with the higher place is the later one."""

    place: int
    record: Record
    step_ids: tuple[str, ...]  # of a workflow, in order


class Noted(NamedTuple):
    """What is to be written next, the oldest first."""

    rows: Sequence[NotedRow]
    deleted: Mapping[str, int]  # the places of the jobs whose rows are to be deleted, by id
    damaged: Mapping[str, int]  # likewise, of those whose records cannot be read


class NotedRows:
    """The calls of a writer of rows. Redis errors are raised as they are."""

    def __init__(self, ledger: Ledger, *, owner: str) -> None:
        """Take the ledger, and a name of this writer that no other has."""
        self._ledger = ledger
        self._owner = owner

    def take(self, limit: int = _LIMIT) -> Noted | None:
        """Return at most `limit` rows, and be the writer for `LOCK_S`; None if another one is."""
        reply = self._ledger.call(
            "rows",
            {
                "owner": self._owner,
                "lock_ms": int(LOCK_S * 1000),
                "wanted_ms": int(WANTED_S * 1000),
                "limit": limit,
                "most_bytes": _MOST_BYTES,
            },
        )
        if not reply:
            return None
        deleted, found = reply
        rows, damaged = [], {}
        for job_id, place, fields in found:
            try:
                rows.append(_noted(int(place), fields))
            except (DamagedRecord, ValueError):
                damaged[job_id] = int(place)
        places = dict(zip(deleted[::2], map(int, deleted[1::2]), strict=True))
        return Noted(rows, places, damaged)

    def written(self, places: Mapping[str, int], deleted: Mapping[str, int], *, refused: int = 0) -> None:
        """Forget these, unless they were noted again: they are committed or, as `refused` of them, never will be."""
        self._ledger.call(
            "rows_written",
            {
                "ids": list(places),
                "places": [str(place) for place in places.values()],
                "deleted": list(deleted),
                "deleted_places": [str(place) for place in deleted.values()],
                "refused": refused,
            },
        )


def want_rows(call: Any) -> Any:
    """Have rows noted from now on; `call` runs a transition, as `Ledger.call` and `AsyncLedger.call` do."""
    return call("want_rows", {"wanted_ms": int(WANTED_S * 1000)})


def _noted(place: int, fields: Sequence[str]) -> NotedRow:
    record = parse_record(fields)
    texts = dict(zip(fields[::2], fields[1::2], strict=True))
    return NotedRow(place, record, tuple(json.loads(texts.get("steps", "[]"))))
