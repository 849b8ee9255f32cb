"""The end of a job in a real PostgreSQL, where two callbacks at once are two transactions at once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.up import ROOT

pytestmark = pytest.mark.integration

_TOLD_AT_ONCE = """
import json, sys, threading, time
from datetime import UTC, datetime

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections

from tests.shared.rows.django_admin import database_at

databases = {"default": database_at(sys.argv[1])}
settings.configure(INSTALLED_APPS=["celeriac.django"], DATABASES=databases, USE_TZ=True)
django.setup()
call_command("migrate", verbosity=0)

from celeriac.django import outcomes
from celeriac.django.models import Job
from celeriac.django.signals import job_succeeded

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
heard = []

def hear(job, **_):
    first = not heard
    heard.append(job.state)
    until = time.monotonic() + 30
    with connection.cursor() as cursor:
        while first and time.monotonic() < until:
            cursor.execute(WAITING)
            if cursor.fetchone()[0]:
                break
    if first and fails:
        raise RuntimeError("the first receiver failed")

def note(answers):
    try:
        told = {"id": "1", "state": "succeeded", "result": {"count": 1}}
        answers.append(outcomes.note(Job.objects.get(job_id="1"), told, at=datetime.now(UTC)))
    except RuntimeError as failure:
        answers.append(str(failure))
    finally:
        connections.close_all()

job_succeeded.connect(hear)
said = []
for fails in (False, True):
    heard.clear()
    Job.objects.all().delete()
    Job.objects.create(kind="a.b", job_id="1", state="running")
    answers = []
    threads = [threading.Thread(target=note, args=(answers,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said.append([sorted(map(str, answers)), len(heard), Job.objects.get().state])
print(json.dumps(said))
"""


def test_two_callbacks_at_once_are_one_end(postgres_url: str) -> None:
    """The second waits for the first transaction: it changes nothing then, or all if the first was rolled back."""
    command = [sys.executable, "-c", _TOLD_AT_ONCE, postgres_url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        [["False", "True"], 1, "succeeded"],
        [["True", "the first receiver failed"], 2, "succeeded"],
    ]
