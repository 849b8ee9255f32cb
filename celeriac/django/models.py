"""References to jobs, with what was last heard of each."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, ClassVar

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models, router
from django.utils.translation import gettext_lazy as _

from shared.ledger.states import State

UNSENT = "unsent"  # its transaction has not committed, or the gateway did not answer
REFUSED = "refused"  # the gateway did not accept it
FORGOTTEN = "forgotten"  # the gateway's retention has passed, and its end was not heard
ENDED = tuple(str(state) for state in State if state.is_final)
LIVE = tuple(str(state) for state in State if not state.is_final)
RERUNNABLE = (*(state for state in ENDED if state != State.SUCCEEDED), REFUSED, FORGOTTEN)


def state_choices() -> list[tuple[str, Any]]:
    """Return the states with what people read. A function, so that another state is not another migration."""
    ours: list[tuple[str, Any]] = [(UNSENT, _("unsent")), (REFUSED, _("refused")), (FORGOTTEN, _("forgotten"))]
    return [*ours, *((str(state), str(state)) for state in State)]


class Job(models.Model):
    """A job: it is written in the transaction that wants it, and sent when that commits.

    Its key is the `Idempotency-Key` with which it is submitted, so that it is accepted once, however often it is sent.
    """

    key: models.UUIDField[uuid.UUID, uuid.UUID] = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    job_id: models.CharField[str | None, str | None] = models.CharField(  # noqa: DJ001 - it has none yet
        max_length=255,
        db_index=True,  # not unique: two submissions of a unique kind are one job
        null=True,
        editable=False,
        help_text=_("Its id in the gateway; null while unsent."),
    )
    kind: models.CharField[str, str] = models.CharField(max_length=255, db_index=True)
    params = models.JSONField(default=dict, encoder=DjangoJSONEncoder)
    options = models.JSONField(default=dict, blank=True, encoder=DjangoJSONEncoder)
    state: models.CharField[str, str] = models.CharField(
        max_length=16, choices=state_choices, default=UNSENT, db_index=True
    )
    result = models.JSONField(null=True, blank=True)
    is_result_omitted: models.BooleanField[bool, bool] = models.BooleanField(
        default=False, help_text=_("The callback had no room for the result; a refresh fetches it.")
    )
    error = models.JSONField(null=True, blank=True)
    retried_from: models.ForeignKey[Job | None, Job | None] = models.ForeignKey(
        "self", null=True, on_delete=models.SET_NULL, related_name="reruns"
    )
    created_at: models.DateTimeField[datetime, datetime] = models.DateTimeField(auto_now_add=True, db_index=True)
    sent_at: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(
        null=True, help_text=_("When it was first sent to the gateway.")
    )
    looked_at: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(
        null=True, help_text=_("When its state was last heard.")
    )
    started_at: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(null=True)
    finished_at: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(null=True)

    class Meta:
        """Of the model."""

        ordering: ClassVar = ["-created_at"]
        default_permissions: ClassVar = ("view", "delete")
        permissions: ClassVar = [("cancel_job", _("Can cancel jobs")), ("rerun_job", _("Can rerun jobs"))]

    def __str__(self) -> str:
        return f"{self.kind} {self.job_id or self.key}"

    @property
    def has_ended(self) -> bool:
        """Whether its state no longer changes."""
        return self.state in ENDED


def database() -> str:
    """Return the alias of the database that jobs are written to: transactions are a database's."""
    return router.db_for_write(Job)
