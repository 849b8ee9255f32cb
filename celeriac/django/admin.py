"""The admin page of jobs: it lists and shows them; its actions cancel, rerun and refresh."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from celeriac.client import ClientFailure
from celeriac.django import jobs
from celeriac.django.models import Job


@admin.register(Job)
class JobAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # it is generic for type checkers only
    """Nothing is edited: what is shown is what the gateway says, and jobs are submitted by code."""

    list_display = ("short_id", "kind", "state", "created_at", "finished_at", "why")
    list_filter = ("state", "kind")
    search_fields = ("job_id", "key", "kind")
    date_hierarchy = "created_at"
    actions = ("cancel", "rerun", "refresh")
    fields = (
        "state", "job_id", "key", "kind", "shown_params", "shown_options", "shown_result", "shown_error",
        "retried_from", "created_at", "sent_at", "started_at", "finished_at", "looked_at",
    )  # fmt: skip

    @admin.action(description="Cancel the selected jobs", permissions=["cancel"])
    def cancel(self, request: HttpRequest, chosen: QuerySet[Job]) -> None:
        """Cancel each that has not ended."""
        self._each(request, chosen, jobs.cancel, "cancelled")

    @admin.action(description="Rerun the selected jobs", permissions=["rerun"])
    def rerun(self, request: HttpRequest, chosen: QuerySet[Job]) -> None:
        """Rerun each that did not succeed."""
        self._each(request, chosen, jobs.rerun, "submitted again")

    @admin.action(description="Ask the gateway for the state", permissions=["view"])
    def refresh(self, request: HttpRequest, chosen: QuerySet[Job]) -> None:
        """Ask for each."""
        self._each(request, chosen, jobs.refresh, "looked at")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may cancel jobs."""
        return request.user.has_perm("celeriac.cancel_job")  # type: ignore[union-attr]

    def has_rerun_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may rerun jobs."""
        return request.user.has_perm("celeriac.rerun_job")  # type: ignore[union-attr]

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's
        return False

    def has_change_permission(self, request: HttpRequest, obj: Job | None = None) -> bool:  # noqa: ARG002 - Django's
        return False

    @admin.display(description="job", ordering="job_id")
    def short_id(self, job: Job) -> str:
        """Return its id, or that it has none yet."""
        return job.job_id or "unsent"

    @admin.display(description="why")
    def why(self, job: Job) -> str:
        """Return the message of its error."""
        error = job.error or {}
        return error.get("message") or error.get("detail") or ""

    @admin.display(description="parameters")
    def shown_params(self, job: Job) -> SafeString:
        """Return them as people read them."""
        return _shown(job.params)

    @admin.display(description="options")
    def shown_options(self, job: Job) -> SafeString:
        """Return them as people read them."""
        return _shown(job.options)

    @admin.display(description="result")
    def shown_result(self, job: Job) -> SafeString:
        """Return it as people read it."""
        return _shown(job.result)

    @admin.display(description="error")
    def shown_error(self, job: Job) -> SafeString:
        """Return it as people read it."""
        return _shown(job.error)

    def _each(self, request: HttpRequest, chosen: QuerySet[Job], do: Callable[[Job], Any], done: str) -> None:
        """Do it with each, and say for how many, and why not for the others."""
        count = 0
        for job in chosen:
            try:
                do(job)
                count += 1
            except (jobs.NotPossible, ClientFailure) as why:
                self.message_user(request, str(why), messages.ERROR)
        if count:
            self.message_user(request, f"{count} {'job' if count == 1 else 'jobs'} {done}.", messages.SUCCESS)


def _shown(value: Any) -> SafeString:
    return format_html("<pre>{}</pre>", "" if value is None else json.dumps(value, indent=2, ensure_ascii=False))
