"""What an operator types, against a real gateway without workers: everything that is submitted stays where it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import redis
from celery import Celery

from shared.ledger.client import Ledger
from shared.ledger.operations import AboutWorker, Presence
from tests.support.command_line import Celeriac
from tests.support.servers.cuts import cutter_to
from tests.support.servers.services import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

EXTRACT = ("etl.extract_data", "--set", "source.kind=http", "--set", "source.url=https://example.com/sales.csv")
UNKNOWN_ID = "01900000-0000-7000-8000-000000000000"


@pytest.fixture
def celeriac(gateway: Server, empty_valkey: Server) -> Celeriac:  # noqa: ARG001 - other modules' workers are forgotten
    """Return the command line of a gateway that has no workers, on an empty ledger."""
    return Celeriac(gateway.url)


def submitted(celeriac: Celeriac, *options: str) -> str:
    """Submit a job and return its id."""
    return celeriac.ok("submit", *EXTRACT, *options)


def cancelled(celeriac: Celeriac, *options: str) -> str:
    """Submit a job, cancel it, and return its id."""
    job_id = submitted(celeriac, *options)
    celeriac.ok("cancel", job_id)
    return job_id


def test_new_options_reach_the_gateway(celeriac: Celeriac) -> None:
    """The concurrency key is the job's; a callback is refused by its name where nothing could sign it."""
    job_id = submitted(celeriac, "--concurrency-key", "shop-1", "--concurrency-limit", "2")
    refused = celeriac("submit", *EXTRACT, "--callback-url", "https://example.com/hook")
    assert celeriac.json("get", job_id)["options"] == {"concurrency_key": "shop-1", "concurrency_limit": 2}
    assert (refused.exit_code, "/options/callback_url: " in refused.stderr) == (2, True)


def test_a_lost_answer_makes_no_second_job(gateway: Server, celeriac: Celeriac) -> None:
    """The gateway has accepted, and the connection is cut: the command asks again with its key."""
    with cutter_to(gateway.port) as cutter:
        cutter.cuts_after.append(0)
        job_id = submitted(Celeriac(cutter.url), "--tag", "cut")
    assert [job["id"] for job in celeriac.json("list", "--tag", "cut")["jobs"]] == [job_id]


def test_a_queue_with_work_and_no_consumer_stands_out(celeriac: Celeriac) -> None:
    """`queues` says that nobody works on it, and `get` of the job says why it waits; --json is the gateway's answer."""
    job_id = submitted(celeriac)
    etl = next(line for line in celeriac.ok("queues").splitlines() if line.startswith("etl "))
    queue = next(queue for queue in celeriac.json("queues")["queues"] if queue["name"] == "etl")
    assert "jobs wait, but no worker consumes the queue" in etl
    assert int(etl.split()[1]) == queue["depth"] > 0
    assert "no worker takes jobs from queue etl" in celeriac.ok("get", job_id)


def test_a_queue_is_paused_and_resumed(celeriac: Celeriac) -> None:
    """Each answer shows the queue as it then is; a queue that there is not is exit code 2."""
    assert "paused since 20" in celeriac.ok("queues", "pause", "etl")
    assert "queue etl is paused" in celeriac.ok("get", submitted(celeriac))
    assert "paused" not in celeriac.ok("queues", "resume", "etl")
    unknown = celeriac("queues", "pause", "elt")
    assert (unknown.exit_code, "unknown_queue" in unknown.stderr) == (2, True)


ODD_IDS = ("a/b c", "../x", "..", "ä 🧀?#&%2F", "-x", "--help", "x" * 255, "a\nb", "it's $HOME")


@pytest.mark.parametrize("job_id", ODD_IDS)
def test_a_job_of_another_celery_client_is_found_by_its_id(
    celeriac: Celeriac, empty_valkey: Server, job_id: str
) -> None:
    """Whatever that is; after `--` it is never an option."""
    params = {"source": {"kind": "http", "url": "https://example.com/sales.csv"}}
    with Celery("somebody", broker=empty_valkey.redis_url) as app:
        app.send_task(EXTRACT[0], kwargs=params, task_id=job_id, queue="etl")
    job = json.loads(celeriac.ok("get", "--json", "--", job_id))
    assert (job["id"], job["params"], job["state"]) == (job_id, params, "queued")
    assert celeriac("logs", "--", job_id).exit_code == 0
    waited = celeriac("wait", "--timeout-s", "0.1", "--", job_id)
    assert (waited.exit_code, "did not end within" in waited.stderr) == (1, True)
    assert celeriac.ok("cancel", "--dry-run", "--", job_id) == f"{job_id}  would be cancelled"
    assert celeriac.ok("cancel", "--", job_id) == "cancelled"
    again = celeriac.ok("rerun", "--", job_id)
    assert celeriac.json("get", again)["retried_from"] == job_id
    many = celeriac("cancel", "--", again, job_id)
    assert (many.exit_code, f"{job_id}  refused: The job has already ended" in many.stdout) == (1, True)
    celeriac.ok("delete", again)
    assert celeriac.ok("delete", "--", job_id) == "forgotten"


def test_an_id_that_no_job_can_have_is_refused_in_words(celeriac: Celeriac) -> None:
    for job_id in ("x" * 1_000, "\udcff", ""):  # the second as Python has the byte FF of an argument
        for command in ("get", "logs", "cancel", "rerun", "delete"):
            refused = celeriac(command, job_id)
            assert (refused.exit_code, refused.exception.__class__) == (2, SystemExit), (command, job_id)
            assert refused.stderr.strip()
    submitted_id = submitted(celeriac)
    many = celeriac("cancel", submitted_id, "x" * 1_000)
    assert (many.exit_code, "/ids/1: " in many.stderr) == (2, True)
    assert celeriac.json("get", submitted_id)["state"] == "queued"


def test_several_jobs_are_cancelled(celeriac: Celeriac) -> None:
    """Each job is told by itself; one that cannot be cancelled is refused with the reason, and makes exit code 1."""
    first, second, ended = submitted(celeriac), submitted(celeriac), cancelled(celeriac)
    done = celeriac("cancel", first, second, ended)
    assert done.exit_code == 1
    expected = [
        f"{first}  cancelled",
        f"{second}  cancelled",
        f"{ended}  refused: The job has already ended: cancelled.",
    ]
    assert done.stdout.splitlines() == expected


def test_a_dry_run_only_tells(celeriac: Celeriac) -> None:
    """What a filter chooses is named and left alone; without --dry-run the same words cancel it."""
    chosen = {submitted(celeriac, "--tag", "autumn") for _ in range(3)}
    words = ("cancel", "--tag", "autumn", "--state", "queued", "--kind", "etl.extract_data")
    told = celeriac.ok(*words, "--dry-run").splitlines()
    assert {line.split()[0] for line in told} == chosen
    assert all(line.endswith("would be cancelled") for line in told)
    assert set(celeriac.json(*words, "--dry-run")["cancelled"]) == chosen
    assert {line.split()[0] for line in celeriac.ok(*words).splitlines()} == chosen
    assert celeriac.ok(*words) == ""


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("cancel",), "Give either job ids"),
        (("cancel", UNKNOWN_ID, "--tag", "a"), "either job ids or options that choose"),
        (("rerun", UNKNOWN_ID, UNKNOWN_ID, "--only-failed"), "need exactly one job id"),
        (("rerun", "--tag", "a", "--set", "x=1"), "need exactly one job id"),
    ],
)
def test_unclear_words_are_usage_errors(words: tuple[str, ...], named: str, celeriac: Celeriac) -> None:
    """Nothing is sent when it is not clear which jobs are meant, or when options do not go together."""
    refused = celeriac(*words)
    assert (refused.exit_code, named in " ".join(refused.output.split())) == (2, True)


def test_a_job_is_rerun_with_other_parameters(celeriac: Celeriac) -> None:
    """`--set` changes the job's own parameters; the new job's id is printed, and each job names the other."""
    first = cancelled(celeriac)
    second = celeriac.ok("rerun", first, "--set", "source.url=https://example.com/fixed.csv")
    job = celeriac.json("get", second)
    assert (job["retried_from"], job["params"]["source"]["url"]) == (first, "https://example.com/fixed.csv")
    assert f"rerun as {second}" in celeriac.ok("get", first)


def test_jobs_are_rerun_by_a_filter(celeriac: Celeriac) -> None:
    """Each old job is printed with its new one; a second call repeats none again."""
    old = {cancelled(celeriac, "--tag", "winter") for _ in range(2)}
    would = celeriac.ok("rerun", "--tag", "winter", "--dry-run").splitlines()
    pairs = dict(line.split("  rerun as ") for line in celeriac.ok("rerun", "--tag", "winter").splitlines())
    assert {line.split()[0] for line in would} == old == set(pairs)
    assert {celeriac.json("get", new)["retried_from"] for new in pairs.values()} == old
    celeriac.ok("cancel", "--tag", "winter", "--state", "queued")


def test_the_old_name_of_rerun_is_hidden_and_does_the_same(celeriac: Celeriac) -> None:
    """Scripts that say `celeriac retry` go on; the help shows one name."""
    first = cancelled(celeriac)
    assert celeriac.json("get", celeriac.ok("retry", first))["retried_from"] == first
    commands = [line.split()[0] for line in celeriac.ok("--help").splitlines() if line.strip()]
    assert ("rerun" in commands, "retry" in commands) == (True, False)


def test_only_the_failed_steps_are_rerun(celeriac: Celeriac) -> None:
    """`--only-failed` goes to the gateway, which refuses it for a job without steps."""
    refused = celeriac("rerun", cancelled(celeriac), "--only-failed")
    assert (refused.exit_code, "only_failed" in refused.stderr) == (2, True)


def test_a_deleted_job_is_gone(celeriac: Celeriac) -> None:
    """A job that has ended is forgotten; one that goes on is refused."""
    job_id = cancelled(celeriac)
    assert celeriac.ok("delete", job_id) == "forgotten"
    again, live = celeriac("get", job_id), celeriac("delete", submitted(celeriac))
    assert (again.exit_code, "expired_job" in again.stderr) == (2, True)
    assert (live.exit_code, "job_live" in live.stderr) == (2, True)


@pytest.fixture
def presence(valkey: Server) -> Iterator[Presence]:
    """Return the heartbeats of a worker that says that it is there; it leaves at the end."""
    about = AboutWorker(
        name="ml@host",
        host="host",
        pid=7,
        families=("ml",),
        concurrency=2,
        started_at=0,
        versions={"celeriac": "0.1.0", "celery": "5.7.0", "python": "3.13.1"},
    )
    with redis.Redis(port=valkey.port, decode_responses=True) as client:
        present = Presence(Ledger(client), owner="9" * 8, lease_s=30)
        present.heartbeat(about, queues=["ml"], jobs=[])
        yield present
        present.leave()


def test_workers_are_listed(celeriac: Celeriac, presence: Presence) -> None:
    """A worker is a line with its state, its queues and how many of its places are taken, until it leaves."""
    row = celeriac.ok("workers").splitlines()[1].split()
    assert row[:6] == ["ml@host", "online", "0", "of", "2", "ml"]
    assert row[-1] == "0.1.0"
    presence.leave()
    assert celeriac.json("workers") == {"workers": []}


NIGHTLY = ("--name", "Nightly sales", "--cron", "30 2 * * mon-fri", "--time-zone", "Europe/Berlin")


def test_a_schedule_lives(celeriac: Celeriac) -> None:
    """It is made, found by name or id, edited in part, paused, resumed, run and deleted."""
    made = celeriac.json("schedules", "create", *EXTRACT, *NIGHTLY, "--missed", "run_once", "--tag", "nightly")
    assert made["crontab"]["day_of_week"] == "mon-fri"
    listed = celeriac.ok("schedules").splitlines()[1]
    assert listed.split()[0] == made["id"]
    assert "30 2 * * mon-fri Europe/Berlin" in listed
    assert celeriac.json("schedules", "get", "Nightly sales")["id"] == made["id"]

    edits = ("--every-s", "600", "--overlap", "buffer_one", "--set", "source.url=https://example.com/b.csv")
    edited = celeriac.json("schedules", "update", made["id"], *edits, "--priority", "7")
    changed = ("interval_s", "crontab", "overlap", "missed", "name")
    assert [edited[name] for name in changed] == [600, None, "buffer_one", "run_once", "Nightly sales"]
    assert (edited["params"]["source"]["url"], edited["options"]) == (
        "https://example.com/b.csv",
        {"tags": ["nightly"], "priority": 7},
    )

    assert "paused" in celeriac.ok("schedules", "pause", "Nightly sales").splitlines()[0]
    assert "paused" not in celeriac.ok("schedules", "resume", "Nightly sales").splitlines()[0]
    job_id = celeriac.ok("schedules", "run", "Nightly sales")
    assert celeriac.json("get", job_id)["schedule"] == made["id"]
    assert [job["id"] for job in celeriac.json("list", "--schedule", made["id"])["jobs"]] == [job_id]
    assert celeriac.ok("schedules", "delete", "Nightly sales") == "deleted"
    gone = celeriac("schedules", "get", "Nightly sales")
    assert (gone.exit_code, "No schedule is called 'Nightly sales'" in " ".join(gone.output.split())) == (2, True)


@pytest.mark.parametrize(
    ("rhythm", "named"),
    [
        ((), "either --cron or --every-s"),
        (("--cron", "0 9 * *"), "use five fields"),
        (("--cron", "0 9 * * *", "--every-s", "5"), "either --cron or --every-s"),
        (("--cron", "0 99 * * *"), "/crontab/hour"),
    ],
)
def test_a_schedule_says_when(rhythm: tuple[str, ...], named: str, celeriac: Celeriac) -> None:
    """A rhythm that is missing, double or unreadable is refused with exit code 2."""
    refused = celeriac("schedules", "create", *EXTRACT, "--name", "x", *rhythm)
    assert (refused.exit_code, named in " ".join(refused.output.split())) == (2, True)


def test_a_large_workflow_is_shown_in_short(celeriac: Celeriac) -> None:
    """Of 200 steps `get` shows some and counts the rest; `wait` shows one line for the whole."""
    extract = {"kind": "etl.extract_data", "params": {"source": {"kind": "http", "url": "https://example.com/a.csv"}}}
    params = json.dumps({"steps": [extract] * 200})
    job_id = celeriac.ok("submit", "workflow.group", "--params", params)
    shown = celeriac.ok("get", job_id).splitlines()
    waited = celeriac("wait", job_id, "--timeout-s", "0.1").stderr.splitlines()
    assert "  180 more" in next(line for line in shown if " more " in line)
    assert len(shown) < 30
    assert waited[0].startswith("workflow.group  queued  ")
    assert len(waited) <= 4
    celeriac.ok("cancel", job_id)
