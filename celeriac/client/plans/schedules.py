"""Schedules: create, replace, read, list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from celeriac.client.answers import Schedule
from celeriac.client.gateway import Gateway, segment
from celeriac.client.plans.asking import asked_document, paged, posted, read, with_body
from celeriac.client.plans.jobs import submission
from celeriac.client.wire import Items, Plan, Request

if TYPE_CHECKING:
    from celeriac.client.plans.jobs import AnyJob

    AnySchedule: TypeAlias = Schedule | str

_CRONTAB = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")


def create(gateway: Gateway, job: AnyJob, params: Mapping[str, Any] | None, terms: Mapping[str, Any]) -> Plan[Schedule]:
    """Create a schedule. After a lost answer it is not repeated: there might be two then."""
    return (yield from _answered(gateway, posted("/schedules", _body(job, params, terms))))


def replace(
    gateway: Gateway, schedule: AnySchedule, job: AnyJob, params: Mapping[str, Any] | None, terms: Mapping[str, Any]
) -> Plan[Schedule]:
    """Replace all terms of a schedule."""
    request = Request("PUT", path_of(schedule), is_repeatable=True)
    return (yield from _answered(gateway, with_body(request, _body(job, params, terms))))


def get(gateway: Gateway, schedule: AnySchedule) -> Plan[Schedule]:
    """Read a schedule."""
    return (yield from _answered(gateway, read(path_of(schedule))))


def change(gateway: Gateway, schedule: AnySchedule, how: str) -> Plan[Schedule]:
    """Pause or resume a schedule."""
    return (yield from _answered(gateway, posted(f"{path_of(schedule)}/{how}", repeatable=True)))


def listed(gateway: Gateway) -> Items:
    """Give every schedule."""
    return paged(gateway, "/schedules", {}, lambda document: Schedule(document, ""))


def path_of(schedule: AnySchedule) -> str:
    """Return the path of a schedule."""
    return f"/schedules/{segment(schedule if isinstance(schedule, str) else schedule.id)}"


def crontab_of(text: str) -> dict[str, str]:
    """Return the fields of a crontab such as `0 9 * * mon-fri`. Raises `ValueError`."""
    fields = text.split()
    if len(fields) != len(_CRONTAB):
        raise ValueError(f"{text!r}: use five fields (minute, hour, day, month, weekday), such as '0 9 * * *'.")
    return dict(zip(_CRONTAB, fields, strict=True))


def _body(job: AnyJob, params: Mapping[str, Any] | None, terms: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in terms.items() if value is not None}
    if isinstance(crontab := given.get("crontab"), str):
        given["crontab"] = crontab_of(crontab)
    return submission(job, params, {}) | given


def _answered(gateway: Gateway, request: Request) -> Plan[Schedule]:
    answer = yield from asked_document(gateway, request)
    return Schedule(answer.document, answer.text)
