"""The commands against a real service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from cli.app import app
from tests.support.command_line import Celeriac
from tests.support.servers.services import free_port, wait_for
from tests.support.up import Up, running_up, write_own_kind

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

SHOUT = ("submit", "acme.shout_text", "--set", "text=hello")
SECRETS = {
    "SHOP_URL": "postgresql://me:hunter2@db/shop",
    "CELERIAC_WEBHOOK_SECRET": f"whsec_{'A' * 43}=",
    "CELERIAC_API_KEY": "ck_hunter2",
}
UNKNOWN_ID = "01900000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Run a whole service, one for all tests of this module."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "connections.toml").write_text('[shop]\nkind = "postgresql"\nurl_env = "SHOP_URL"\n')
    more = {"CELERIAC_QUEUES": "acme,loud", "CELERIAC_CONNECTIONS_FILE": str(folder / "connections.toml"), **SECRETS}
    own_kind = write_own_kind(folder / "own", among="shared.jobs.etl,shared.jobs.workflow")
    with running_up(folder / "data", own_kind | more) as up:
        yield up


@pytest.fixture(scope="module")
def url(service: Up) -> str:
    """Return the URL of its gateway."""
    return service.url


@pytest.fixture
def celeriac(url: str) -> Celeriac:
    """Return the command line of this service."""
    return Celeriac(url)


def submitted(celeriac: Celeriac, *options: str) -> str:
    """Submit a job and return its id."""
    return celeriac.ok(*SHOUT, *options)


def test_submit_prints_the_id(celeriac: Celeriac) -> None:
    """Standard output has the id and nothing else, for a script to take."""
    job_id = submitted(celeriac)
    assert celeriac.json("get", job_id)["id"] == job_id


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("uvicorn", {"CELERIAC_WEBHOOK_SECRET"}),
        ("worker.app beat", set()),
        ("valkey", set()),
        ("worker.app worker", {"SHOP_URL"}),  # none of them signs callbacks
    ],
)
def test_each_program_has_only_the_secrets_that_it_needs(service: Up, program: str, expected: set[str]) -> None:
    """As the kernel shows the environment of what `up` has started."""
    found = [pid for pid, command in service.pids().items() if program in command]
    assert found
    for pid in found:
        names = {pair.partition("=")[0] for pair in Path(f"/proc/{pid}/environ").read_text("utf-8").split("\0")}
        assert names & SECRETS.keys() == expected, service.pids()[pid]


def test_open_shows_the_page_of_operations(
    celeriac: Celeriac, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The browser gets the address that is printed; without a gateway there, the command says so instead."""
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o700)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    assert celeriac.ok("open", "--print") == f"{url}/docs"
    assert not (tmp_path / "opened").exists()
    celeriac.ok("open")
    assert (tmp_path / "opened").read_text("utf-8").strip() == f"{url}/docs"
    assert CliRunner().invoke(app, ["open", "--url", f"http://127.0.0.1:{free_port()}"]).exit_code == 3


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete_commands(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """README names the option; what it prints asks `celeriac` itself."""
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    shown = CliRunner().invoke(app, ["--show-completion", shell], prog_name="celeriac")
    assert shown.exit_code == 0, shown.output
    assert "_CELERIAC_COMPLETE" in shown.output


def test_limit_is_the_most_jobs_of_a_list(celeriac: Celeriac) -> None:
    """`--page-size`, the name of the API, goes on working."""
    for _ in range(2):
        submitted(celeriac)
    assert len(celeriac.json("list", "--limit", "1")["jobs"]) == 1
    assert len(celeriac.json("list", "--page-size", "1")["jobs"]) == 1


def test_wait_follows_a_job_to_its_end(celeriac: Celeriac) -> None:
    """The way there goes to standard error, the job to standard output; exit code 0 for success."""
    waited = celeriac("wait", submitted(celeriac))
    assert waited.exit_code == 0
    assert "acme.shout_text  succeeded" in waited.stderr
    assert '"text": "HELLO"' in waited.stdout


def test_submit_and_wait_in_one(celeriac: Celeriac) -> None:
    """`--wait --json` prints the ended job and nothing else."""
    answered = celeriac(*SHOUT, "--wait", "--json")
    job = json.loads(answered.stdout)
    assert (answered.exit_code, job["state"], job["result"]) == (0, "succeeded", {"text": "HELLO"})


def test_a_job_that_did_not_succeed_is_exit_code_1(celeriac: Celeriac) -> None:
    """A cancelled job's wait ends at once with exit code 1."""
    job_id = submitted(celeriac, "--delay-s", "3600")
    cancelled = celeriac("cancel", job_id)
    waited = celeriac("wait", job_id)
    assert (cancelled.stdout, waited.exit_code) == ("cancelled\n", 1)
    assert "cancelled" in waited.stdout


def test_waiting_has_an_end(celeriac: Celeriac) -> None:
    """`--timeout-s` ends the wait for a job that goes on, with exit code 1."""
    job_id = submitted(celeriac, "--delay-s", "3600")
    waited = celeriac("wait", job_id, "--timeout-s", "0.1")
    assert (waited.exit_code, "did not end within 0.1 s" in waited.stderr) == (1, True)


def test_a_workflow_of_many_steps_is_followed_as_a_whole(celeriac: Celeriac) -> None:
    """Of many steps `wait` tells how many are in which state, to the end; `get` shows what they came to."""
    steps = [{"kind": "acme.shout_text", "params": {"text": "a"}}] * 25
    waited = celeriac("submit", "workflow.group", "--params", json.dumps({"steps": steps}), "--wait")
    assert waited.exit_code == 0, waited.output
    followed = waited.stderr.splitlines()
    assert {line.split()[0] for line in followed} == {"workflow.group"}
    assert followed[-1] == "workflow.group  succeeded  100 % of 25 steps, 25 succeeded"
    assert "5 more" in waited.stdout


def test_options_reach_the_job(celeriac: Celeriac) -> None:
    """Every option is sent as the gateway calls it."""
    options = ("--priority", "9", "--tag", "a", "--tag", "b", "--expires-in-s", "60", "--max-retries", "1")
    job = celeriac.json("get", submitted(celeriac, *options, "--time-limit-s", "30", "--queue", "loud"))
    expected = {
        "priority": 9,
        "tags": ["a", "b"],
        "expires_in_s": 60,
        "max_retries": 1,
        "time_limit_s": 30,
        "queue": "loud",
    }
    assert {name: job["options"][name] for name in expected} == expected


def test_the_same_key_is_the_same_job(celeriac: Celeriac) -> None:
    """An idempotency key makes one job of two submissions."""
    first = submitted(celeriac, "--idempotency-key", "monday")
    assert submitted(celeriac, "--idempotency-key", "monday") == first


def test_validate_only_submits_nothing(celeriac: Celeriac) -> None:
    """A request can be checked without a job coming of it."""
    before = [job["id"] for job in celeriac.json("list")["jobs"]]
    checked = celeriac(*SHOUT, "--validate-only")
    assert (checked.exit_code, checked.stdout) == (0, "The request is valid and was not submitted.\n")
    assert [job["id"] for job in celeriac.json("list")["jobs"]] == before


def test_list_filters_and_pages(celeriac: Celeriac) -> None:
    """The filters are those of the gateway; a page ends with the token of the next."""
    ids = [submitted(celeriac, "--tag", "listed") for _ in range(3)]
    page = celeriac("list", "--tag", "listed", "--page-size", "2")
    rows = [line.split()[0] for line in page.stdout.splitlines()[1:]]
    token = page.stderr.split("--page-token ")[1].strip()
    rest = celeriac.json("list", "--tag", "listed", "--page-token", token)
    assert rows == ids[:0:-1]
    assert [job["id"] for job in rest["jobs"]] == ids[:1]


def test_logs_of_a_job(celeriac: Celeriac) -> None:
    """`logs` shows the lines; `--follow` the same as they come, one JSON object a line with --json."""
    job_id = submitted(celeriac)
    followed = celeriac("logs", job_id, "--follow", "--json")
    lines = [json.loads(line) for line in followed.stdout.splitlines()]
    assert [line["message"] for line in lines] == ["shouting"]
    assert "info shouting length=5" in celeriac("logs", job_id).stdout
    assert [line["message"] for line in celeriac.json("logs", job_id)["lines"]] == ["shouting"]


def test_kinds_show_parameters_and_an_example_that_works(celeriac: Celeriac) -> None:
    """The example of a kind can be pasted."""
    assert "acme.shout_text" in celeriac("kinds").stdout
    page = celeriac("kinds", "acme.shout_text").stdout
    assert "required. What to shout." in page
    assert 'celeriac submit acme.shout_text --params \'{"text": "hello"}\'' in page
    assert "one of" not in celeriac("kinds", "etl.run_pipeline").stderr


def test_a_refused_request_is_explained(celeriac: Celeriac) -> None:
    """A problem document becomes text with the field that is wrong; exit code 2; --json gives the document."""
    words = ("submit", "acme.shout_text", "--set", "texxt=x")
    refused = celeriac(*words)
    problem = celeriac.json(*words)
    assert (refused.exit_code, refused.stdout, problem["code"]) == (2, "", "invalid_request")
    assert "/params/texxt: " in refused.stderr


def test_an_unknown_job_is_said(celeriac: Celeriac) -> None:
    """A job that never existed is exit code 2, with every command."""
    for words in (("get",), ("wait",), ("cancel",), ("logs",), ("logs", "--follow")):
        answered = celeriac(*words, UNKNOWN_ID)
        assert (answered.exit_code, "unknown_job" in answered.stderr) == (2, True), words


def test_a_gateway_that_is_away() -> None:
    """Without a gateway the exit code is 3, and what to do is said."""
    away = CliRunner().invoke(app, ["list", "--url", f"http://127.0.0.1:{free_port()}"])
    assert (away.exit_code, away.stdout) == (3, "")
    assert "celeriac up" in away.stderr
    for url in ("http://[", "http://a b", "localhost:8000", "http://host:port"):
        mistyped = CliRunner().invoke(app, ["list", "--url", url])
        assert (mistyped.exit_code, f"{url} is not a URL" in mistyped.stderr) == (3, True), mistyped.stderr


def test_mistyped_parameters_are_usage_errors(celeriac: Celeriac) -> None:
    """What cannot be read is refused before anything is sent."""
    refused = celeriac("submit", "acme.shout_text", "--params", "{")
    assert (refused.exit_code, "is not JSON" in refused.output) == (2, True)


def test_a_cancelled_job_stays_in_the_list(celeriac: Celeriac) -> None:
    """State filters see a cancellation at once."""
    job_id = submitted(celeriac, "--delay-s", "3600", "--tag", "stopped")
    celeriac("cancel", job_id)
    found = wait_for(lambda: celeriac.json("list", "--tag", "stopped", "--state", "cancelled")["jobs"], "the list")
    assert [job["id"] for job in found] == [job_id]
