"""Each call of both forms against a real gateway and a worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from celeriac.client import Client, JobFailed, NotEnded, Refused
from shared.ledger.states import State
from tests.acme.contracts import Noted, TakeNote

pytestmark = pytest.mark.integration

LATER = {"delay_s": 3_600}
UNKNOWN = "01900000-0000-7000-8000-000000000000"


def test_a_contract_has_a_typed_result(client: Any, notebook: str) -> None:
    """It is submitted as an instance, and its result is one of its result's type, whoever asks."""
    submitted = client.submit(TakeNote(notebook=notebook), tags=["typed"])
    job = client.wait(submitted)
    assert (submitted.kind, submitted.existed, submitted.replayed) == ("acme.take_note", False, False)
    assert (job.id, job.state, job.has_ended) == (submitted.id, State.SUCCEEDED, True)
    assert isinstance(job.result, Noted)
    assert job.result.line_count == 1
    assert [artifact.uri for artifact in job.artifacts] == [job.result.note.uri]
    assert client.get(submitted.id, TakeNote).result == client.wait(submitted.id, TakeNote).result == job.result
    criteria = {"tag": "typed", "state": ["succeeded"], "created_after": datetime.now(UTC) - timedelta(hours=1)}
    assert [found.id for found in client.list(**criteria)][:1] == [job.id]


def test_a_kind_and_a_dict_do_as_well(client: Any, notebook: str) -> None:
    """Where the contract cannot be imported."""
    job = client.wait(client.submit("acme.take_note", {"notebook": notebook}), timeout_s=60)
    assert job.result["line_count"] == 1
    assert client.get(job.id).result == job.result


def test_a_job_that_fails_is_an_exception(client: Any, notebook: str) -> None:
    """With the error's code, message and remedy; or a job, for who asks for that."""
    submitted = client.submit(TakeNote(notebook=notebook, behave="badly"))
    with pytest.raises(JobFailed, match=r"is failed: bad_note: It will not pass. Behave.") as raised:
        client.wait(submitted)
    failed = raised.value
    assert (failed.code, failed.message, failed.remedy) == ("bad_note", "It will not pass.", "Behave.")
    assert (failed.job_id, failed.state) == (submitted.id, "failed")
    job = client.wait(submitted, raise_on_failure=False)
    assert job.state is State.FAILED
    with pytest.raises(JobFailed):
        _ = job.result
    again = client.rerun(job, params={"notebook": notebook})
    assert isinstance(client.wait(again).result, Noted)
    assert client.get(again).document["retried_from"] == job.id


def test_a_wait_has_an_end(client: Any, notebook: str) -> None:
    """With a time limit; the job goes on, and is cancelled here."""
    submitted = client.submit(TakeNote(notebook=notebook), **LATER)
    with pytest.raises(NotEnded, match=r"did not end within 0.1 s; it is scheduled"):
        client.wait(submitted, timeout_s=0.1)
    with pytest.raises(TimeoutError):
        _ = client.get(submitted, wait_s=0.1).result
    assert (client.cancel(submitted).state, client.get(submitted).state) == ("cancelled", State.CANCELLED)
    with pytest.raises(Refused) as refused:
        client.cancel(submitted)
    assert (refused.value.status, refused.value.code) == (409, "job_ended")
    client.delete(submitted)
    with pytest.raises(Refused) as gone:
        client.get(submitted)
    assert gone.value.status == 410


def test_a_refusal_says_where(client: Any) -> None:
    """The pointers, the code and the request's id in the gateway's logs."""
    for call in (client.submit, client.validate):
        with pytest.raises(Refused) as raised:
            call("acme.take_note", {"notebook": "x", "behave": "well", "pages": 3}, priority=99)
        refused = raised.value
        assert (refused.status, refused.code) == (422, "invalid_request")
        assert set(refused.pointers) == {"/params/pages", "/options/priority"}
        assert refused.errors[0].message
        assert len(refused.request_id) > 8
    with pytest.raises(Refused) as unknown:
        client.wait(UNKNOWN)
    assert unknown.value.code == "unknown_job"


def test_what_would_be_accepted_is_not_submitted(client: Any, notebook: str) -> None:
    """It says kind, queue and parameters."""
    valid = client.validate(TakeNote(notebook=notebook), tags=["validated"])
    assert (valid.kind, valid.queue, valid.params["notebook"]) == ("acme.take_note", "etl", notebook)
    assert list(client.list(tag="validated")) == []


def test_many_jobs_go_in_batches_that_the_gateway_takes(client: Any, form: str, notebook: str) -> None:
    """Its largest body is small here; each job is there once and in order, and a wrong one is named by its index."""
    tag = f"many-{form}"
    jobs = [TakeNote(notebook=f"{notebook}-{number}") for number in range(40)]
    submitted = client.submit_many(jobs, tags=[tag], **LATER)
    assert [client.get(job).document["params"]["notebook"] for job in submitted] == [job.notebook for job in jobs]
    assert [job.id for job in client.list(tag=tag, page_size=7)] == [job.id for job in submitted][::-1]
    wrong = [*({"kind": "acme.take_note", "params": {"notebook": "x"}} for _ in range(70)), {"kind": "acme.take_note"}]
    with pytest.raises(Refused) as refused:
        client.submit_many(wrong, tags=[f"wrong-{form}"], **LATER)
    assert refused.value.pointers == ("/jobs/70/params",)
    assert 0 < len(refused.value.accepted) < 70
    assert len(list(client.list(tag=f"wrong-{form}"))) == len(refused.value.accepted)


def test_events_and_log_of_a_job(client: Any, notebook: str) -> None:
    """From the first event to the final state; the log with and without following, and from an event on."""
    job = client.submit(TakeNote(notebook=notebook, behave="verbose"))
    events = list(client.stream(job))
    assert [event.document["state"] for event in events if event.name == "state"] == ["queued", "running", "succeeded"]
    assert events[-1].ends_job
    assert [event.id for event in client.stream(job, after=events[0].id)] == [event.id for event in events[1:]]
    assert list(client.stream(job, after=events[-1].id)) == []
    followed = list(client.logs(job, follow=True))
    assert [line.message for line in followed][:1] == ["by run.log"]
    assert [(line.at, line.level, line.message) for line in client.logs(job)] == [
        (line.at, line.level, line.message) for line in followed
    ]


def test_a_schedule_lives(client: Any, notebook: str) -> None:
    """Created, read, replaced, paused, resumed, run and deleted."""
    job = TakeNote(notebook=notebook)
    made = client.create_schedule(job, name="nightly", crontab="0 3 * * *", time_zone="Europe/Berlin", paused=True)
    assert (made.name, made.is_paused, made.document["crontab"]["hour"]) == ("nightly", True, "3")
    changed = client.replace_schedule(made, "acme.take_note", {"notebook": notebook}, name="hourly", interval_s=3_600)
    assert (changed.id, client.get_schedule(made.id).name) == (made.id, "hourly")
    assert client.resume_schedule(made).is_paused is False
    assert client.pause_schedule(made).is_paused is True
    assert made.id in {schedule.id for schedule in client.schedules()}
    assert client.wait(client.run_schedule(made)).document["schedule"] == made.id
    client.delete_schedule(made)
    with pytest.raises(Refused) as refused:
        client.get_schedule(made)
    assert refused.value.code == "unknown_schedule"
    with pytest.raises(ValueError, match="use five fields"):
        client.create_schedule(job, name="x", crontab="0 3")


def test_files_go_there_and_come_back(client: Any, notebook: str, tmp_path: Path) -> None:
    """An upload is what was sent; a download is what the job made, in a folder or at a path."""
    sales = tmp_path / "sales.csv"
    sales.write_bytes(b"a,b\n" * 300_000)
    seen: list[tuple[int, int]] = []
    uploaded = client.upload(sales, progress=lambda now, of: seen.append((now, of)))
    assert (uploaded.name, uploaded.media_type, uploaded.size_bytes) == ("sales.csv", "text/csv", 1_200_000)
    assert (seen[-1], len(seen) > 2) == ((1_200_000, 1_200_000), True)
    assert client.upload(b"", name="empty").size_bytes == 0
    job = client.wait(client.submit(TakeNote(notebook=notebook)))
    (file,) = client.artifacts(job)
    assert (file.name, file.step, file.artifact) == ("note.txt", None, job.result.note)
    assert client.download(job, file.name, tmp_path) == tmp_path / "note.txt"
    assert client.download(job, file.name, tmp_path / "copy.txt").read_text() == Path(notebook).read_text()
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(Refused) as refused:
        client.download(job, "other.txt", tmp_path)
    assert refused.value.code == "unknown_artifact"


def test_any_other_call_is_possible(client: Any) -> None:
    """With the answer as it is."""
    kinds = client.call("GET", "/job-kinds").document["kinds"]
    assert "acme.take_note" in {kind["kind"] for kind in kinds}
    with pytest.raises(Refused):
        client.call("POST", "/queues/nowhere/pause")


def test_url_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given goes first; credentials are not shown."""
    monkeypatch.setenv("CELERIAC_URL", "http://user:hunter2@celeriac.example/")
    monkeypatch.setenv("CELERIAC_API_KEY", "hunter2")
    with Client() as client, Client("http://127.0.0.1:9/") as given:
        assert (client.url, given.url) == ("http://user:hunter2@celeriac.example", "http://127.0.0.1:9")
        assert client.gateway.headers["Authorization"] == "Bearer hunter2"
        assert "hunter2" not in client.gateway.shown + repr(client.gateway).replace(client.url, "")


def test_a_key_that_no_header_can_have_is_not_shown() -> None:
    """A line end behind it, as files of secrets have one, does not belong to it."""
    with Client(api_key="hunter2\n") as client:
        assert client.gateway.headers["Authorization"] == "Bearer hunter2"
    for key in ("hunter2\nX-Admin: yes", "hünter2"):
        with pytest.raises(ValueError, match="API key has characters") as raised:
            Client(api_key=key)
        assert "nter2" not in str(raised.value)
