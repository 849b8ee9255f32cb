"""The commands against a real service."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

from cli.app import app
from tests.cli.service import running_up, write_own_kind
from tests.services import free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

SHOUT = ("submit", "acme.shout_text", "--set", "text=hello")
UNKNOWN_ID = "01900000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a whole service, one for all tests of this module; yield its gateway's URL."""
    folder = tmp_path_factory.mktemp("service")
    with running_up(folder / "data", write_own_kind(folder / "own")) as up:
        yield up.url


@pytest.fixture
def celeriac(url: str) -> CeleriacCommand:
    """Return the command line of this service."""
    return CeleriacCommand(url)


class CeleriacCommand:
    """Runs commands in this process."""

    def __init__(self, url: str) -> None:
        self._environment = {"CELERIAC_URL": url}

    def __call__(self, *words: str) -> Result:
        """Run a command and return what it wrote and its exit code."""
        return CliRunner(env=self._environment).invoke(app, words)

    def submit(self, *options: str) -> str:
        """Submit a job and return its id."""
        submitted = self(*SHOUT, *options)
        assert submitted.exit_code == 0, submitted.output
        return submitted.stdout.strip()

    def json(self, *words: str) -> Any:
        """Run a command with --json and return its document."""
        return json.loads(self(*words, "--json").stdout)


def test_submit_prints_the_id(celeriac: CeleriacCommand) -> None:
    """Standard output has the id and nothing else, for a script to take."""
    job_id = celeriac.submit()
    assert celeriac.json("get", job_id)["id"] == job_id


def test_wait_follows_a_job_to_its_end(celeriac: CeleriacCommand) -> None:
    """The way there goes to standard error, the job to standard output; exit code 0 for success."""
    waited = celeriac("wait", celeriac.submit())
    assert waited.exit_code == 0
    assert "acme.shout_text  succeeded" in waited.stderr
    assert '"text": "HELLO"' in waited.stdout


def test_submit_and_wait_in_one(celeriac: CeleriacCommand) -> None:
    """`--wait --json` prints the ended job and nothing else."""
    answered = celeriac(*SHOUT, "--wait", "--json")
    job = json.loads(answered.stdout)
    assert (answered.exit_code, job["state"], job["result"]) == (0, "succeeded", {"text": "HELLO"})


def test_a_job_that_did_not_succeed_is_exit_code_1(celeriac: CeleriacCommand) -> None:
    """A cancelled job's wait ends at once with exit code 1."""
    job_id = celeriac.submit("--delay-s", "3600")
    cancelled = celeriac("cancel", job_id)
    waited = celeriac("wait", job_id)
    assert (cancelled.stdout, waited.exit_code) == ("cancelled\n", 1)
    assert "cancelled" in waited.stdout


def test_waiting_has_an_end(celeriac: CeleriacCommand) -> None:
    """`--timeout-s` ends the wait for a job that goes on, with exit code 1."""
    job_id = celeriac.submit("--delay-s", "3600")
    waited = celeriac("wait", job_id, "--timeout-s", "0.1")
    assert (waited.exit_code, "not ended within 0.1 s" in waited.stderr) == (1, True)


def test_options_reach_the_job(celeriac: CeleriacCommand) -> None:
    """Every option is sent as the gateway calls it."""
    options = ("--priority", "9", "--tag", "a", "--tag", "b", "--expires-in-s", "60", "--max-retries", "1")
    job = celeriac.json("get", celeriac.submit(*options, "--time-limit-s", "30", "--queue", "etl"))
    expected = {
        "priority": 9,
        "tags": ["a", "b"],
        "expires_in_s": 60,
        "max_retries": 1,
        "time_limit_s": 30,
        "queue": "etl",
    }
    assert {name: job["options"][name] for name in expected} == expected


def test_the_same_key_is_the_same_job(celeriac: CeleriacCommand) -> None:
    """An idempotency key makes one job of two submissions."""
    first = celeriac.submit("--idempotency-key", "monday")
    assert celeriac.submit("--idempotency-key", "monday") == first


def test_validate_only_submits_nothing(celeriac: CeleriacCommand) -> None:
    """A request can be checked without a job coming of it."""
    before = celeriac.json("list")
    checked = celeriac(*SHOUT, "--validate-only")
    assert (checked.exit_code, checked.stdout) == (0, "The request is valid; nothing was submitted.\n")
    assert celeriac.json("list") == before


def test_list_filters_and_pages(celeriac: CeleriacCommand) -> None:
    """The filters are those of the gateway; a page ends with the token of the next."""
    ids = [celeriac.submit("--tag", "listed") for _ in range(3)]
    page = celeriac("list", "--tag", "listed", "--page-size", "2")
    rows = [line.split()[0] for line in page.stdout.splitlines()[1:]]
    token = page.stderr.split("--page-token ")[1].strip()
    rest = celeriac.json("list", "--tag", "listed", "--page-token", token)
    assert rows == ids[:0:-1]
    assert [job["id"] for job in rest["jobs"]] == ids[:1]


def test_logs_of_a_job(celeriac: CeleriacCommand) -> None:
    """`logs` shows the lines; `--follow` the same as they come, one JSON object a line with --json."""
    job_id = celeriac.submit()
    followed = celeriac("logs", job_id, "--follow", "--json")
    lines = [json.loads(line) for line in followed.stdout.splitlines()]
    assert [line["message"] for line in lines] == ["shouting"]
    assert "info shouting length=5" in celeriac("logs", job_id).stdout
    assert [line["message"] for line in celeriac.json("logs", job_id)["lines"]] == ["shouting"]


def test_kinds_show_parameters_and_an_example_that_works(celeriac: CeleriacCommand) -> None:
    """The example of a kind can be pasted."""
    assert "acme.shout_text" in celeriac("kinds").stdout
    page = celeriac("kinds", "acme.shout_text").stdout
    assert "required. What to shout." in page
    assert 'celeriac submit acme.shout_text --params \'{"text": "hello"}\'' in page
    assert "one of" not in celeriac("kinds", "etl.run_pipeline").stderr


def test_a_refused_request_is_explained(celeriac: CeleriacCommand) -> None:
    """A problem document becomes text with the field that is wrong; exit code 2; --json gives the document."""
    words = ("submit", "acme.shout_text", "--set", "texxt=x")
    refused = celeriac(*words)
    problem = celeriac.json(*words)
    assert (refused.exit_code, refused.stdout, problem["code"]) == (2, "", "invalid_request")
    assert "/params/texxt: " in refused.stderr


def test_an_unknown_job_is_said(celeriac: CeleriacCommand) -> None:
    """A job that never existed is exit code 2, with every command."""
    for words in (("get",), ("wait",), ("cancel",), ("logs",), ("logs", "--follow")):
        answered = celeriac(*words, UNKNOWN_ID)
        assert (answered.exit_code, "unknown_job" in answered.stderr) == (2, True), words


def test_a_gateway_that_is_away() -> None:
    """Without a gateway the exit code is 3, and what to do is said."""
    away = CliRunner().invoke(app, ["list", "--url", f"http://127.0.0.1:{free_port()}"])
    assert (away.exit_code, away.stdout) == (3, "")
    assert "celeriac up" in away.stderr


def test_mistyped_parameters_are_usage_errors(celeriac: CeleriacCommand) -> None:
    """What cannot be read is refused before anything is sent."""
    refused = celeriac("submit", "acme.shout_text", "--params", "{")
    assert (refused.exit_code, "is not JSON" in refused.output) == (2, True)


def test_a_cancelled_job_stays_in_the_list(celeriac: CeleriacCommand) -> None:
    """State filters see a cancellation at once."""
    job_id = celeriac.submit("--delay-s", "3600", "--tag", "stopped")
    celeriac("cancel", job_id)
    found = wait_for(lambda: celeriac.json("list", "--tag", "stopped", "--state", "cancelled")["jobs"], "the list")
    assert [job["id"] for job in found] == [job_id]
