"""Find the files of stores that jobs read which have not ended: what they name must stay."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from shared.ledger.ids import id_listed
from shared.ledger.states import State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from shared.ledger.client import Ledger

logger = logging.getLogger(__name__)
_BATCH = 200


def named_by_live_jobs(ledger: Ledger, connection: str, paths: Collection[str]) -> set[str]:
    """Return those of `paths` of a store that a job which has not ended names, or a step of it."""
    return {path for params in _live_params(ledger) for path in _paths_in(params, connection) if path in paths}


def _live_params(ledger: Ledger) -> Iterator[Any]:
    for state in State:
        if state.is_final:
            continue
        for job_id, _ in ledger.client.zscan_iter(ledger.keys("state", state), count=_BATCH):
            text = ledger.client.hget(ledger.keys("job", id_listed(job_id)), "params")
            try:
                yield json.loads(text or "null")
            except ValueError as damage:
                logger.warning("the record of %s is damaged: %r", job_id, damage)


def _paths_in(value: Any, connection: str) -> Iterator[str]:
    if isinstance(value, dict):
        if value.get("connection") == connection and isinstance(value.get("path"), str):
            yield value["path"]
        for one in value.values():
            yield from _paths_in(one, connection)
    elif isinstance(value, list):
        for one in value:
            yield from _paths_in(one, connection)
