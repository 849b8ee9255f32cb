"""The calls of schedules for `AsyncClient`; `schedules.py` is made of this module."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

from celeriac.client.acaller import AsyncCaller
from celeriac.client.answers import Schedule, Submitted
from celeriac.client.plans import jobs as job_plans
from celeriac.client.plans import schedules as plans

if TYPE_CHECKING:
    from celeriac.client.plans.jobs import AnyJob
    from celeriac.client.plans.schedules import AnySchedule


class AsyncSchedules(AsyncCaller):
    """Schedules are named by their ids, or by what other calls returned."""

    async def create_schedule(
        self,
        job: AnyJob,
        params: Mapping[str, Any] | None = None,
        *,
        name: str,
        crontab: Mapping[str, str] | str | None = None,
        interval_s: float | None = None,
        **terms: Any,
    ) -> Schedule:
        """Create a schedule of a contract's instance, or of a kind and its parameters.

        `crontab` is text like `0 9 * * mon-fri` or its fields; `terms` are the others of `POST /schedules`: time_zone,
        missed, overlap, paused, options. After a lost answer it is not repeated, as there might be two then.
        """
        terms |= {"name": name, "crontab": crontab, "interval_s": interval_s}
        return await self._run(plans.create(self.gateway, job, params, terms))

    async def replace_schedule(
        self,
        schedule: AnySchedule,
        job: AnyJob,
        params: Mapping[str, Any] | None = None,
        *,
        name: str,
        crontab: Mapping[str, str] | str | None = None,
        interval_s: float | None = None,
        **terms: Any,
    ) -> Schedule:
        """Replace all terms of a schedule; see `create_schedule`."""
        terms |= {"name": name, "crontab": crontab, "interval_s": interval_s}
        return await self._run(plans.replace(self.gateway, schedule, job, params, terms))

    def schedules(self) -> AsyncGenerator[Schedule, None]:
        """Yield all schedules, newest first."""
        return self._items(plans.listed(self.gateway))

    async def get_schedule(self, schedule: AnySchedule) -> Schedule:
        """Return a schedule."""
        return await self._run(plans.get(self.gateway, schedule))

    async def pause_schedule(self, schedule: AnySchedule) -> Schedule:
        """Submit no jobs of it until it is resumed."""
        return await self._run(plans.change(self.gateway, schedule, "pause"))

    async def resume_schedule(self, schedule: AnySchedule) -> Schedule:
        """Resume it from its next time."""
        return await self._run(plans.change(self.gateway, schedule, "resume"))

    async def run_schedule(
        self, schedule: AnySchedule, *, idempotency_key: str | None = None
    ) -> Submitted[dict[str, Any]]:
        """Submit a job of it now, even if it is paused."""
        return await self._run(job_plans.run_now(self.gateway, plans.path_of(schedule), idempotency_key))

    async def delete_schedule(self, schedule: AnySchedule) -> None:
        """Delete a schedule but not its jobs."""
        await self._run(job_plans.delete(self.gateway, plans.path_of(schedule)))
