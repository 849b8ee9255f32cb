"""`manage.py celeriac submit|status|refresh`."""

from __future__ import annotations

import json
import logging
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db.models import Q

from celeriac.client import ClientFailure, Unreachable
from celeriac.django import jobs
from celeriac.django.models import REFUSED, Job

_log = logging.getLogger(__name__)


class Command(BaseCommand):
    """Submit a job, show one, or refresh what has not been heard of for a while."""

    help = "Submits jobs to Celeriac, shows their states, and refreshes what has not been heard of."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the three subcommands."""
        commands = parser.add_subparsers(required=True, metavar="submit | status | refresh")
        submit = commands.add_parser("submit", help="submit a job")
        submit.add_argument("kind", help="such as report.generate_report")
        submit.add_argument("--params", default="{}", help="its parameters, a JSON object")
        submit.add_argument("--options", default="{}", help='its options, a JSON object, such as {"priority": 9}')
        submit.set_defaults(run=self.submit)
        status = commands.add_parser("status", help="show what is known of a job")
        status.add_argument("id", help="its id, or its key in the database")
        status.add_argument("--wait-s", type=float, help="wait this long for its end, at most 60")
        status.set_defaults(run=self.status)
        refresh = commands.add_parser("refresh", help="send unsent jobs, and ask for the states of those not heard of")
        refresh.add_argument("--older-than-s", type=float, default=60.0, help="not heard of for this long (default 60)")
        refresh.set_defaults(run=self.refresh)

    def run_subcommand(self, *_: Any, run: Any, **options: Any) -> None:
        """Run what `add_arguments` has chosen."""
        run(**options)

    handle = run_subcommand  # the name that Django calls

    def submit(self, *, kind: str, params: str, options: str, **_: Any) -> None:
        """Submit a job and print its id."""
        job = jobs.submit(kind, _object("--params", params), **_object("--options", options))
        if job.state == REFUSED:
            raise CommandError(job.error["detail"])
        self.stdout.write(job.job_id or f"{job.key} (unsent: the gateway does not answer)")

    def status(self, *, id: str, wait_s: float | None = None, **_: Any) -> None:  # noqa: A002 - the name of the argument
        """Print what the database knows of a job, refreshed."""
        job = _job(id)
        try:
            jobs.refresh(job, wait_s=wait_s)
        except ClientFailure as why:
            self.stderr.write(f"{why}\nThe state below is the last that was heard.")
        job.refresh_from_db()
        self.stdout.write(f"{job.job_id or job.key}  {job.kind}  {job.state}")
        for name in ("result", "error"):
            if value := getattr(job, name):
                self.stdout.write(f"{name}: {json.dumps(value)}")

    def refresh(self, *, older_than_s: float, **_: Any) -> None:
        """Send and ask; stop if the gateway is away, but not for a job whose receivers fail."""
        looked = changed = failed = 0
        for job in jobs.stale(older_than_s):
            try:
                changed += jobs.refresh(job)
            except Unreachable as away:
                raise CommandError(f"{away} {looked} jobs were looked at; run it again later.") from None
            except Exception as why:  # noqa: BLE001 - of a receiver, or a refusal: the others go on
                _log.exception("the refresh of %s failed", job)
                self.stderr.write(f"{job}: {why}")
                failed += 1
            looked += 1
        self.stdout.write(f"{looked} jobs looked at, {changed} changed")
        if failed:
            raise CommandError(f"{failed} failed; they are tried again next time.")


def _object(option: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as wrong:
        raise CommandError(f"{option} is not JSON: {wrong}") from None
    if not isinstance(value, dict):
        raise CommandError(f"{option} is not a JSON object.")
    return value


def _job(name: str) -> Job:
    try:
        found = Job.objects.filter(Q(job_id=name) | Q(pk=name)).first()
    except ValidationError:  # it does not look like a key
        found = Job.objects.filter(job_id=name).first()
    if found is None:
        raise CommandError(f"There is no job {name!r} in this database.")
    return found
