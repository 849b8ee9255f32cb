"""The default schedules. Beat creates them at its first start; after that they belong to the user."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from shared.contract.catalogue import catalogue
from shared.ledger.ids import uuid7
from shared.schedules.crontabs import Crontab
from shared.schedules.terms import Missed, Schedule

_NEEDS_CONNECTIONS = "It is paused until you set the connections to copy between: edit its params, then resume it."


@dataclass(frozen=True, slots=True)
class _Default:
    name: str
    kind: str
    crontab: Crontab
    params: Mapping[str, Any] | None = field(default_factory=lambda: MappingProxyType({}))  # None: the kind's example
    note: str | None = None  # why it is paused at first
    missed: Missed = "run_once"  # a late report or clean-up is better than none


_DEFAULTS = (
    _Default("Daily report", "report.generate_daily_report", Crontab(minute="0", hour="9")),
    _Default(
        "Hourly sync",
        "maintenance.sync_data",
        Crontab(minute="0"),
        params=None,
        note=_NEEDS_CONNECTIONS,
        missed="skip",  # the next job copies the same rows
    ),
    _Default("Weekly clean-up", "maintenance.cleanup_old_data", Crontab(minute="0", hour="2", day_of_week="sun")),
)


def default_schedules(now_ms: int) -> list[Schedule]:
    """Return the default schedules whose kinds are in the catalogue, as of now (milliseconds since 1970)."""
    known = catalogue()
    return [_schedule(default, now_ms) for default in _DEFAULTS if default.kind in known]


def _schedule(default: _Default, now_ms: int) -> Schedule:
    contract = catalogue()[default.kind]
    params = contract.spec.examples[0] if default.params is None else default.params
    checked = contract.model_validate_json(json.dumps(dict(params)))
    return Schedule(
        id=uuid7(),
        name=default.name,
        kind=default.kind,
        params=checked.model_dump(mode="json", exclude_unset=True),
        crontab=default.crontab,
        time_zone="UTC",
        missed=default.missed,
        paused=default.note is not None,
        note=default.note,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        starts_at_ms=now_ms,
    )
