"""The Django shop with its real server, a gateway and a worker: orders, callbacks, admin, command, checks."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.examples.shops import EXAMPLES, SECRET, ShopService, forged, needs, ran, shop_service, signed
from tests.support.servers.services import Server, answers, http_client, running, wait_for

pytestmark = pytest.mark.integration
FOLDER = EXAMPLES / "django_shop"
_SET_UP = """
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django.contrib.auth.models import Permission, User
User.objects.create_superuser("boss", password="secret")
staff = User.objects.create_user("staff", password="secret", is_staff=True)
staff.user_permissions.add(Permission.objects.get(codename="view_job"))
"""
_OLD_ANSWERS = """
from datetime import timedelta
from celeriac.django import outcomes
from celeriac.django.models import Job
for job_id in {ids}:
    job = Job.objects.get(job_id=job_id)
    outcomes.note(job, {{"id": job_id, "state": "running"}}, at=job.looked_at - timedelta(seconds=1))
"""

_CALLS = """
import io, json
from django.core.management import CommandError, call_command
def call(words):
    out, error = io.StringIO(), io.StringIO()
    try:
        call_command(*words, stdout=out, stderr=error)
    except CommandError as failure:
        error.write(str(failure))
    return out.getvalue().strip(), error.getvalue().strip()
print(json.dumps([call(words) for words in {commands}]))
"""
_RAISES = """
from celeriac.django.signals import job_succeeded
def raises(job, **_):
    if job.job_id == "{id}":
        raise RuntimeError("a receiver failed")
job_succeeded.connect(raises)
"""
_CHECK = """
import json
from django.core.checks import run_checks
from django.core.management import call_command
from django.test import override_settings
def ids(settings, deploy):
    with override_settings(**settings):
        found = run_checks(tags=["celeriac"], include_deployment_checks=deploy)
        return [one.id for one in found], [one.msg + one.hint for one in found]
call_command("makemigrations", check_changes=True, dry_run=True, verbosity=0)  # it exits if one is missing
print(json.dumps([ids(settings, deploy) for settings, deploy, _ in {cases}]))
"""


@dataclass(frozen=True)
class Shop:
    """The running shop."""

    service: ShopService
    environment: dict[str, str]

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.service.port}"

    def order(self, *prices_cents: int) -> dict[str, Any]:
        """Order, and return the order."""
        answer = http_client.post(f"{self.url}/orders", json={"prices_cents": prices_cents})
        assert answer.status_code == 201, answer.text
        return self.ordered(answer.json()["order"])

    def ordered(self, number: int) -> dict[str, Any]:
        """Return an order."""
        return dict(http_client.get(f"{self.url}/orders/{number}").json())

    def ended(self, order: dict[str, Any], state: str) -> dict[str, Any]:
        """Return the order when its job has this state."""

        def there() -> dict[str, Any] | None:
            now = self.ordered(order["order"])
            return now if now["job"]["state"] in ("failed", "succeeded") else None

        now = wait_for(there, f"the end of order {order['order']}")
        assert now["job"]["state"] == state, self.row_of(now)
        return now

    def told(self, key: str, body: bytes, headers: dict[str, str]) -> int:
        """Send a callback; return the status of the answer."""
        return http_client.post(f"{self.url}/celeriac/callbacks/{key}/", content=body, headers=headers).status_code

    def rows(self, where: str = "1 = 1") -> list[dict[str, Any]]:
        """Return rows of jobs, oldest first."""
        with closing(sqlite3.connect(self.environment["SHOP_DATABASE"], timeout=20)) as database:
            database.row_factory = sqlite3.Row
            found = database.execute(f"SELECT * FROM celeriac_job WHERE {where} ORDER BY created_at")  # noqa: S608
            return [{**row, "key": str(uuid.UUID(row["key"]))} for row in map(dict, found)]

    def row_of(self, order: dict[str, Any]) -> dict[str, Any]:
        """Return the row of the job of an order."""
        (row,) = self.rows(f"job_id = '{order['job']['id']}'")
        return row

    def manage(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `manage.py`."""
        return ran([sys.executable, "manage.py", *words], FOLDER, {**self.environment, **environment})

    def calls(self, *commands: Sequence[str], before: str = "", **environment: str) -> list[tuple[str, str]]:
        """Return what each of these commands, run in one process, printed, and with what error it ended."""
        script = before + _CALLS.format(commands=[("celeriac", *words) for words in commands])
        return [(out, error) for out, error in json.loads(self.python(script, **environment))]

    def python(self, script: str, **environment: str) -> str:
        """Run Python in the project, and return what it printed."""
        done = self.manage("shell", "--verbosity", "0", "-c", script, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def shop(own_valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    needs("django")
    folder = tmp_path_factory.mktemp("django_shop")
    with shop_service(folder, own_valkey) as service:
        made = Shop(service, {**service.environment, "SHOP_DATABASE": str(folder / "shop.sqlite3")})
        made.python(_SET_UP)
        command = [sys.executable, str(FOLDER / "manage.py"), "runserver", "--noreload", f"127.0.0.1:{service.port}"]
        ready = answers(f"{made.url}/admin/login/")
        with running(command, folder, port=service.port, ready=ready, env=made.environment):
            yield made


@pytest.fixture
def boss(shop: Shop) -> Iterator[httpx.Client]:
    with logged_in(shop, "boss") as client:
        yield client


@contextmanager
def logged_in(shop: Shop, name: str) -> Iterator[httpx.Client]:
    """Yield a client that is logged in, in the admin."""
    with httpx.Client(base_url=shop.url, trust_env=False, timeout=60) as client:
        client.get("/admin/login/")
        form = {"username": name, "password": "secret", "csrfmiddlewaretoken": client.cookies["csrftoken"]}
        assert client.post("/admin/login/?next=/admin/", data=form).status_code == 302
        yield client


def act(client: httpx.Client, action: str, *rows: dict[str, Any]) -> str:
    """Choose rows in the admin's list and do this; return the page that follows."""
    form = {
        "action": action,
        "_selected_action": [str(row["key"]) for row in rows],
        "csrfmiddlewaretoken": client.cookies["csrftoken"],
    }
    answer = client.post("/admin/celeriac/job/", data=form, follow_redirects=True)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_an_order_gets_its_invoice_from_a_job(shop: Shop) -> None:
    """It is submitted when the order commits; the callback writes its end, and the signal the invoice."""
    order = shop.ended(shop.order(1200, 350), "succeeded")
    assert order["invoice"].startswith("artifact://")
    assert order["told"] == 1
    row = shop.row_of(order)
    assert json.loads(row["result"])["total_cents"] == 1550
    assert row["started_at"] <= row["finished_at"]


def test_a_job_that_fails_says_why(shop: Shop, boss: httpx.Client) -> None:
    """In the row, by its signal, and in the admin's list and page."""
    order = shop.ended(shop.order(), "failed")
    assert (order["told"], order["invoice"]) == (1, "")
    row = shop.row_of(order)
    assert json.loads(row["error"])["code"] == "empty_order"
    assert "has no items" in boss.get("/admin/celeriac/job/").text
    page = boss.get(f"/admin/celeriac/job/{row['key']}/change/").text
    assert "empty_order" in page
    assert row["job_id"] in page
    assert 'name="_save"' not in page


def test_a_transaction_that_is_rolled_back_submits_nothing(shop: Shop) -> None:
    """Neither a row nor a job of the gateway is left."""
    rows, jobs = len(shop.rows()), len(shop.service.all_jobs())
    answer = http_client.post(f"{shop.url}/orders", json={"prices_cents": [100_001]})
    assert answer.status_code == 409
    assert (len(shop.rows()), len(shop.service.all_jobs())) == (rows, jobs)


def test_callbacks_in_any_order_and_again_are_noted_once(shop: Shop) -> None:
    """Two jobs end in the same state, told in reverse order; another end and an older answer change nothing."""
    with shop.service.paused():
        orders = [shop.order(100), shop.order(200)]
        rows = [shop.row_of(order) for order in orders]
        assert [row["state"] for row in rows] == ["queued", "queued"]
        ends = [signed(told(row, {"total_cents": 1, "uri": f"file:{row['job_id']}"})) for row in rows]
        assert [shop.told(str(row["key"]), *end) for row, end in reversed([*zip(rows, ends, strict=True)])] == [
            204,
            204,
        ]
        assert [shop.told(str(row["key"]), *end) for row, end in zip(rows, ends, strict=True)] == [204, 204]
        other = {**told(rows[0], None), "state": "failed", "error": {"code": "late"}}
        assert shop.told(str(rows[0]["key"]), *signed(other)) == 204
        live = shop.row_of(shop.order(300))
        shop.python(_OLD_ANSWERS.format(ids=[rows[1]["job_id"], live["job_id"]]))
        assert shop.rows(f"job_id = '{live['job_id']}'")[0]["state"] == "queued"
        for order, row in zip(orders, rows, strict=True):
            now = shop.ordered(order["order"])
            assert now["job"]["state"] == "succeeded"
            assert (now["told"], now["invoice"]) == (1, f"file:{row['job_id']}")
    wait_for(lambda: all(shop.service.jobs.get(row["job_id"])["state"] == "succeeded" for row in rows), "their ends")


def told(row: dict[str, Any], result: Any) -> dict[str, Any]:
    """Return what a callback says of a job that has succeeded."""
    at = "2026-11-27T09:07:49.120+00:00"
    return {
        "id": row["job_id"], "kind": row["kind"], "state": "succeeded", "tags": [], "created_at": at, "started_at": at,
        "finished_at": at, "error": None, "result": result, "is_result_omitted": False,
    }  # fmt: skip


def test_a_forged_callback_is_refused(shop: Shop) -> None:
    """Another secret, another body, an old one, no signature, and what does not even look like one: 401, no change."""
    with shop.service.paused():
        row = shop.row_of(shop.order(100))
        wrong = forged(told(row, None))
        assert [shop.told(str(row["key"]), *one) for one in wrong] == [401] * len(wrong)
        assert http_client.get(f"{shop.url}/celeriac/callbacks/{row['key']}/").status_code == 405
        assert shop.rows(f"job_id = '{row['job_id']}'")[0]["state"] == "queued"


def test_the_callback_of_a_deleted_row_is_declined(shop: Shop) -> None:
    """With 410, after which the gateway does not send it again."""
    body, headers = signed(told({"job_id": "01a2", "kind": "shop.write_invoice"}, None))
    assert shop.told("00000000-0000-4000-8000-000000000000", body, headers) == 410


def test_the_admin_cancels_and_reruns(shop: Shop, boss: httpx.Client) -> None:
    """A waiting job is cancelled, then run again as a new row, whose end comes by its own callback."""
    with shop.service.paused():
        order = shop.order(300)
        row = shop.row_of(order)
        assert "is queued; only a job that has ended" in act(boss, "rerun", row)
        assert "1 job cancelled." in act(boss, "cancel", row)
        assert shop.ordered(order["order"])["job"]["state"] == "cancelled"
        assert "is cancelled; there is nothing to cancel." in act(boss, "cancel", row)
    assert "1 job submitted again." in act(boss, "rerun", row)
    (rerun,) = wait_for(
        lambda: shop.rows(f"retried_from_id = '{uuid.UUID(row['key']).hex}' AND state = 'succeeded'"), "the rerun"
    )
    assert shop.service.jobs.get(rerun["job_id"])["retried_from"] == row["job_id"]


def test_the_admin_wants_a_token_and_the_permission(shop: Shop, boss: httpx.Client) -> None:
    """Without the CSRF token 403; staff who may only look are offered neither action, and cannot send it."""
    with shop.service.paused():
        row = shop.row_of(shop.order(400))
        form = {"action": "cancel", "_selected_action": [row["key"]]}
        assert boss.post("/admin/celeriac/job/", data=form).status_code == 403
        with logged_in(shop, "staff") as staff:
            page = staff.get("/admin/celeriac/job/").text
            assert re.findall(r'<option value="(\w+)"', page) == ["refresh"]
            for action in ("cancel", "rerun"):
                assert "No action selected." in act(staff, action, row)
            assert staff.get("/admin/celeriac/job/add/").status_code == 403
        assert shop.rows(f"job_id = '{row['job_id']}'")[0]["state"] == "queued"


def test_what_the_gateway_did_not_answer_is_sent_later_and_once(shop: Shop) -> None:
    """The row waits as unsent while the gateway is away; two refreshes at once make one job of it."""
    params = json.dumps({"order": 77, "prices_cents": [5]})
    submit, refresh = ("submit", "shop.write_invoice", "--params", params), ("refresh", "--older-than-s", "0")
    (said, _), (_, failed) = shop.calls(submit, refresh, CELERIAC_URL="http://127.0.0.1:1")
    key, _, why = said.partition(" ")
    assert why == "(unsent: the gateway does not answer)"
    assert failed.endswith(
        "does not respond: [Errno 111] Connection refused. 0 jobs were looked at; run it again later."
    )
    before = len(shop.service.all_jobs())
    both = [
        subprocess.Popen([sys.executable, "manage.py", "celeriac", *refresh], cwd=FOLDER, env=shop.environment)
        for _ in range(2)
    ]
    assert [one.wait(120) for one in both] == [0, 0]
    assert len(shop.service.all_jobs()) == before + 1
    wait_for(lambda: shop.rows(f"key = '{uuid.UUID(key).hex}' AND state = 'succeeded'"), "its callback")


def test_the_command_says_what_it_did(shop: Shop) -> None:
    """It submits, shows, and says in a sentence what is wrong."""
    submit = ("submit", "shop.write_invoice", "--params")
    with shop.service.paused():
        done = shop.calls(
            (*submit, '{"order": 9, "prices_cents": [5]}', "--options", '{"priority": 9}'),
            (*submit, '{"order": 0, "prices_cents": []}'),
            (*submit, "[]"),
            (*submit, "{"),
            ("status", "nobody"),
            ("status", shop.order(5)["job"]["id"]),
        )
        job_id = done[0][0]
        assert shop.service.jobs.get(job_id)["priority"] == 9
        assert [error for _, error in done[1:5]] == [
            "The body is invalid. /params/order: Input should be greater than or equal to 1",
            "--params is not a JSON object.",
            "--params is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
            "There is no job 'nobody' in this database.",
        ]
        assert done[5][0].endswith("  shop.write_invoice  queued")
        assert shop.rows("state = 'refused'")


def test_a_missed_callback_is_made_up_for(shop: Shop) -> None:
    """A job whose outcome never came has its end after a refresh, with the signal; and a result that had no room."""
    orders = [shop.ended(shop.order(price), "succeeded") for price in (10, 20, 30)]
    missed, omitted, poisoned = (order["job"]["id"] for order in orders)
    with closing(sqlite3.connect(shop.environment["SHOP_DATABASE"], timeout=20)) as database, database:
        forget = "UPDATE celeriac_job SET state = 'running', result = NULL WHERE job_id = ?"
        database.executemany(forget, [(missed,), (poisoned,)])
        database.execute("UPDATE celeriac_job SET result = NULL, is_result_omitted = 1 WHERE job_id = ?", (omitted,))
    ((said, error),) = shop.calls(("refresh", "--older-than-s", "0"), before=_RAISES.format(id=poisoned))
    assert said.endswith("looked at, 1 changed")
    assert error.endswith("1 failed; they are tried again next time.")
    assert [shop.ordered(order["order"])["told"] for order in orders] == [2, 1, 1]
    results = [json.loads(shop.row_of(order)["result"] or "null") for order in orders]
    assert [result and result["total_cents"] for result in results] == [10, 20, None]
    assert shop.row_of(orders[2])["state"] == "running"  # nothing of it is written, so it is tried again


def test_what_cannot_be_sent_is_not_written(shop: Shop) -> None:
    """It fails where it is submitted, and not after the commit, or for ever in each refresh."""
    rows = len(shop.rows())
    script = "from celeriac.django import jobs; jobs.submit('a.b', {'x': 1e999})"
    done = shop.manage("shell", "--verbosity", "0", "-c", script)
    assert "Out of range float values are not JSON compliant" in done.stderr
    assert len(shop.rows()) == rows


def test_the_system_check_says_what_is_wrong(shop: Shop) -> None:
    """Of the settings always, of the gateway only with --deploy; no migration is missing in the package."""
    cases: list[tuple[dict[str, str], bool, list[str]]] = [
        ({"CELERIAC_URL": "gateway:8000"}, False, ["celeriac.E001"]),
        ({"CELERIAC_URL": "http://["}, False, ["celeriac.E001"]),
        ({"CELERIAC_CALLBACK_URL": ""}, False, ["celeriac.W001"]),
        ({"CELERIAC_CALLBACK_URL": "shop.example.com"}, False, ["celeriac.E002"]),
        ({"CELERIAC_CALLBACK_URL": "https://shop.example.com/hooks/"}, False, ["celeriac.E003"]),
        ({"CELERIAC_WEBHOOK_SECRET": "hunter2"}, False, ["celeriac.E004"]),
        ({"CELERIAC_WEBHOOK_SECRET": f"{SECRET} whsec_"}, False, ["celeriac.E004"]),
        ({"CELERIAC_WEBHOOK_SECRET": "whsec_c2hvcnQ="}, False, ["celeriac.E004"]),  # the gateway refuses it, too
        ({"CELERIAC_WEBHOOK_SECRET": ""}, False, ["celeriac.W002"]),
        ({"CELERIAC_URL": "http://127.0.0.1:1"}, True, ["celeriac.E005"]),
        ({"CELERIAC_URL": "http://127.0.0.1:1"}, False, []),
        ({}, True, []),
    ]
    said = json.loads(shop.python(_CHECK.format(cases=cases)))
    assert [ids for ids, _ in said] == [wanted for _, _, wanted in cases]
    assert "hunter2" not in str([texts for _, texts in said])
