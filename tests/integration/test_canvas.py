"""Every canvas primitive, and nested ones, over REST on real workers: success, failure, cancel, partial rerun."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from shared.ledger.keys import key
from shared.workflows.nodes import MOST_NESTED
from tests.support.servers.services import Server, gateway_server, http_client, wait_for
from tests.support.servers.workers import ACME, ACME_ALONE, Jobs, crew

pytestmark = pytest.mark.integration

Element = dict[str, Any]


@pytest.fixture(scope="module")
def jobs(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """One gateway and one worker of two processes for all the tests here."""
    env = {
        **ACME,
        "CELERY_BROKER_URL": valkey.redis_url,
        "CELERIAC_STORE_URL": str(tmp_path_factory.mktemp("store")),
        "CELERIAC_LOST_MESSAGE_GRACE_S": "2",
    }
    with crew(tmp_path_factory.mktemp("workers"), **env | ACME_ALONE) as workers:
        workers.start(concurrency=2)
        with gateway_server(tmp_path_factory.mktemp("gateway"), **env) as gateway:
            yield Jobs(gateway)


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return tmp_path / "notes.txt"


def note(notebook: Path, **params: Any) -> Element:
    return {"kind": "acme.take_note", "params": {"notebook": str(notebook), **params}}


def copy(notebook: Path, **params: Any) -> Element:
    return {"kind": "acme.copy_note", "params": {"notebook": str(notebook), **params}}


def bind(notebook: Path, **params: Any) -> Element:
    return {"kind": "acme.bind_notes", "params": {"notebook": str(notebook), **params}}


def named(name: str, element: Element, **more: Any) -> Element:
    return {**element, "name": name, **more}


def within(primitive: str, **params: Any) -> Element:
    return {"kind": f"workflow.{primitive}", "params": params}


def states(job: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["state"] for step in job["steps"]}


def lines(notebook: Path) -> list[str]:
    return notebook.read_text().splitlines() if notebook.exists() else []


def test_a_chain_feeds_each_step_with_the_one_before(jobs: Jobs, notebook: Path, tmp_path: Path) -> None:
    """The copy is of the line that the first step wrote; the job's result is the last step's."""
    copied = tmp_path / "copied.txt"
    job_id = jobs.submit("workflow.chain", {"steps": [note(notebook), copy(copied), copy(copied)]})
    job = jobs.ended(job_id)
    assert states(job) == {"take_note": "succeeded", "copy_note": "succeeded", "copy_note_2": "succeeded"}
    assert lines(copied) == lines(notebook) * 2
    assert job["result"] == job["steps"][2]["result"]
    assert [step["after"] for step in job["steps"]] == [[], [job["steps"][0]["id"]], [job["steps"][1]["id"]]]
    assert (job["steps_done"], job["steps_total"], job["progress"]["ratio"]) == (3, 3, 1.0)


def test_a_step_that_takes_nothing_follows_nevertheless(jobs: Jobs, notebook: Path) -> None:
    """A chain is an order, too: a step without a parameter to feed runs when the one before it has ended."""
    job = jobs.ended(jobs.submit("workflow.chain", {"steps": [note(notebook, lasts_s=0.5), note(notebook)]}))
    assert [line.split()[0] for line in lines(notebook)] == [step["id"] for step in job["steps"]]


def test_a_group_runs_in_parallel_and_counts_its_steps(jobs: Jobs, notebook: Path) -> None:
    """Two steps that each wait for the other's start can only end if they run at once; the result says how many."""
    job = jobs.ended(jobs.submit("workflow.group", {"steps": [note(notebook, lasts_s=1), note(notebook, lasts_s=1)]}))
    first, second = job["steps"]
    assert first["started_at"] < second["finished_at"]
    assert second["started_at"] < first["finished_at"]
    assert job["result"] == {"succeeded_count": 2, "failed_count": 0}


def test_a_chord_gives_its_body_all_results_in_order(jobs: Jobs, notebook: Path, tmp_path: Path) -> None:
    """The body gets one result of each header step, in the header's order whoever ended first."""
    bound = tmp_path / "bound.txt"
    header = [note(notebook, lasts_s=0.6), note(notebook), note(notebook)]
    job = jobs.ended(jobs.submit("workflow.chord", {"header": header, "body": bind(bound)}))
    assert [line.split()[0] for line in lines(bound)] == [step["id"] for step in job["steps"][:3]]
    assert states(job)["body"] == "succeeded"


def test_a_map_runs_one_kind_on_every_item_in_one_message(jobs: Jobs, tmp_path: Path) -> None:
    """One step, one process, one result an item in order, with a file of its own for each."""
    notebooks = [str(tmp_path / f"{number}.txt") for number in range(4)]
    params = {"kind": "acme.take_note", "params": {"behave": "well"}, "parameter": "notebook", "items": notebooks}
    job = jobs.ended(jobs.submit("workflow.map", params))
    assert states(job) == {"map": "succeeded"}
    assert [item["line_count"] for item in job["result"]["results"]] == [1, 1, 1, 1]
    names = [item["note"]["name"] for item in job["result"]["results"]]
    assert names == ["0000-note.txt", "0001-note.txt", "0002-note.txt", "0003-note.txt"]
    assert len({Path(name).read_text().split()[2] for name in notebooks}) == 1


def test_a_starmap_gives_every_item_several_parameters(jobs: Jobs, tmp_path: Path) -> None:
    """The values of an item go to the named parameters; a following step takes all their results."""
    items = [[str(tmp_path / "a.txt"), 0.1], [str(tmp_path / "b.txt"), 0]]
    starmap = within("starmap", kind="acme.take_note", parameters=["notebook", "lasts_s"], items=items)
    bound = tmp_path / "bound.txt"
    job = jobs.ended(jobs.submit("workflow.chain", {"steps": [starmap, bind(bound)]}))
    assert job["state"] == "succeeded", job["error"]
    assert lines(bound) == lines(tmp_path / "a.txt") + lines(tmp_path / "b.txt")


def test_a_failed_item_is_named(jobs: Jobs, notebook: Path) -> None:
    """The items before it have run, those after it have not; the failure says which item it was."""
    items = [[str(notebook), "well"], [str(notebook), "badly"], [str(notebook), "well"]]
    params = {"kind": "acme.take_note", "parameters": ["notebook", "behave"], "items": items}
    job = jobs.ended(jobs.submit("workflow.starmap", params))
    assert (job["state"], job["error"]["step"], job["error"]["details"]["item"]) == ("failed", "starmap", 1)
    assert job["error"]["message"] == "item 1: It will not pass."
    assert len(lines(notebook)) == 2


def test_chunks_split_the_items_into_parallel_steps(jobs: Jobs, notebook: Path) -> None:
    """Five items in chunks of two are three steps; each item runs once."""
    items = [[str(notebook), 0.01 * number] for number in range(5)]
    params = {"kind": "acme.take_note", "parameters": ["notebook", "lasts_s"], "items": items, "chunk_size": 2}
    job = jobs.ended(jobs.submit("workflow.chunks", params))
    assert states(job) == {"chunk_0": "succeeded", "chunk_1": "succeeded", "chunk_2": "succeeded"}
    assert [len(step["result"]["results"]) for step in job["steps"]] == [2, 2, 1]
    assert len(lines(notebook)) == 5


def test_workflows_nest(jobs: Jobs, notebook: Path, tmp_path: Path) -> None:
    """A chain of a step, a group whose parts are a chain, a chord and chunks, then one that binds all of them."""
    copied, bound = tmp_path / "copied.txt", tmp_path / "bound.txt"
    chunks = within("chunks", kind="acme.take_note", parameters=["notebook"], items=[[str(notebook)]] * 3, chunk_size=2)
    parts = [
        named("line", within("chain", steps=[copy(copied), copy(copied)])),
        named("fan", within("chord", header=[copy(copied), copy(copied)], body=bind(copied))),
        named("bulk", chunks),
    ]
    job_id = jobs.submit("workflow.chain", {"steps": [note(notebook), within("group", steps=parts), bind(bound)]})
    job = jobs.ended(job_id)
    assert job["state"] == "succeeded", job["error"]
    assert list(states(job)) == [
        "take_note",
        "group/line/copy_note",
        "group/line/copy_note_2",
        "group/fan/copy_note",
        "group/fan/copy_note_2",
        "group/fan/body",
        "group/bulk_0",
        "group/bulk_1",
        "bind_notes",
    ]
    first = lines(notebook)[0]
    assert lines(copied) == [first] * 6  # four copies, and a binding of two
    assert lines(bound)[:3] == [first] * 3
    assert sorted(lines(bound)[3:]) == sorted(lines(notebook)[1:])
    assert len(job["steps"][-1]["after"]) == 4


def test_groups_one_after_another_and_at_the_end(jobs: Jobs, notebook: Path, tmp_path: Path) -> None:
    """A group may follow a group and end a chain: every step of the second waits for all of the first."""
    copied = tmp_path / "copied.txt"
    groups = [within("group", steps=[note(notebook)] * 2), within("group", steps=[note(copied)] * 2)]
    job = jobs.ended(jobs.submit("workflow.chain", {"steps": groups}))
    assert job["state"] == "succeeded", job["error"]
    ended = max(step["finished_at"] for step in job["steps"][:2])
    assert all(step["started_at"] >= ended for step in job["steps"][2:])
    assert job["result"] == {"succeeded_count": 4, "failed_count": 0}


def test_groups_one_after_another_in_a_chords_body(jobs: Jobs, notebook: Path, tmp_path: Path) -> None:
    """A worker gets the chords of which such a body consists laid out."""
    line = within("chain", steps=[within("group", steps=[note(notebook)] * 2)] * 3 + [bind(tmp_path / "bound.txt")])
    job = jobs.ended(jobs.submit("workflow.chord", {"header": [note(notebook)] * 2, "body": line}))
    assert job["state"] == "succeeded", job["error"]
    assert len(lines(notebook)) == 8


def test_as_many_groups_in_a_row_as_are_accepted_can_be_read(jobs: Jobs, notebook: Path) -> None:
    """Each is a chord within the one before: the worker goes on after the first of them; one more is refused."""
    two = within("group", steps=[note(notebook)] * 2)
    job_id = jobs.submit("workflow.chain", {"steps": [two] * (MOST_NESTED + 1)})
    wait_for(lambda: len(lines(notebook)) > 2, "the second group")
    assert jobs.cancel(job_id) == 200
    body = {"kind": "workflow.chain", "params": {"steps": [two] * (MOST_NESTED + 2)}}
    refused = http_client.post(f"{jobs.gateway.url}/jobs", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "workflow_too_large")
    assert refused.json()["errors"][0]["message"].startswith(f"It has more than {MOST_NESTED} groups")


def test_one_part_has_the_result_of_two(jobs: Jobs, notebook: Path, tmp_path: Path) -> None:
    """A group, chunks, a group at the end of a chain and in a group; a chord and a chain end with one step's result."""
    one = within("group", steps=[note(notebook)])
    items = {"kind": "acme.take_note", "parameters": ["notebook"], "items": [[str(notebook)]], "chunk_size": 5}
    counting = [
        one,
        within("chunks", **items),
        within("chain", steps=[note(notebook), one]),
        within("group", steps=[one]),
    ]
    single = [
        within("chord", header=[note(notebook)], body=bind(tmp_path / "bound.txt")),
        within("chain", steps=[one, copy(tmp_path / "copied.txt")]),
    ]
    ids = [jobs.submit(each["kind"], each["params"]) for each in (*counting, *single)]
    ended = [jobs.ended(job_id) for job_id in ids]
    assert {job["state"] for job in ended} == {"succeeded"}
    assert [job["result"] for job in ended[:4]] == [
        {"succeeded_count": len(job["steps"]), "failed_count": 0} for job in ended[:4]
    ]
    assert all("succeeded_count" not in job["result"] for job in ended[4:])


def test_a_failed_header_step_ends_the_chord_at_once(jobs: Jobs, notebook: Path) -> None:
    """The job fails with the step's reason while another part still runs; the body is skipped, the rest stopped."""
    header = [named("bad", note(notebook, behave="badly")), named("long", note(notebook, lasts_s=60))]
    job_id = jobs.submit("workflow.chord", {"header": header, "body": bind(notebook)})
    job = jobs.ended(job_id)
    assert (job["state"], job["error"]["step"], job["error"]["code"]) == ("failed", "bad", "bad_note")
    assert states(job)["body"] == "skipped"
    wait_for(lambda: states(jobs.get(job_id))["long"] in {"cancelled", "skipped"}, "stop of the other part")


def test_a_step_that_may_fail_leaves_the_job_alone(jobs: Jobs, notebook: Path, tmp_path: Path) -> None:
    """The body gets the results there are; the step shows its failure, the job succeeds. It may kill its worker."""
    bound = tmp_path / "bound.txt"
    header = [
        named("good", note(notebook)),
        named("bad", note(notebook, behave="badly"), may_fail=True),
        named("deadly", note(notebook, behave="suicidal"), may_fail=True),
    ]
    job = jobs.ended(jobs.submit("workflow.chord", {"header": header, "body": bind(bound)}))
    assert job["state"] == "succeeded", job["error"]
    assert states(job) == {"good": "succeeded", "bad": "failed", "deadly": "quarantined", "body": "succeeded"}
    assert job["steps"][1]["error"]["code"] == "bad_note"
    assert [line.split()[0] for line in lines(bound)] == [job["steps"][0]["id"]]


def test_cancel_reaches_every_step_of_a_nested_workflow(jobs: Jobs, notebook: Path) -> None:
    """Running, queued and waiting steps end as cancelled; nothing runs afterwards."""
    inner = within("chain", steps=[note(notebook, lasts_s=60), copy(notebook)])
    job_id = jobs.submit("workflow.chord", {"header": [inner, inner, inner], "body": bind(notebook)})
    wait_for(lambda: list(states(jobs.get(job_id)).values()).count("running") == 2, "two running steps")
    assert jobs.cancel(job_id) == 200
    wait_for(lambda: set(states(jobs.get(job_id)).values()) == {"cancelled"}, "end of every step")
    assert jobs.get(job_id)["state"] == "cancelled"


def rerun(jobs: Jobs, job_id: str, **body: Any) -> dict[str, Any]:
    answer = http_client.post(f"{jobs.gateway.url}/jobs/{job_id}/rerun", json=body)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def test_a_partial_rerun_runs_only_what_failed_or_was_skipped(jobs: Jobs, notebook: Path, tmp_path: Path) -> None:
    """The steps that succeeded keep their results in the new job, and feed the ones that run again."""
    bound, needed = tmp_path / "bound.txt", tmp_path / "folder" / "notes.txt"
    header = [named("good", note(notebook)), named("fixed", note(needed))]
    params = {"steps": [within("chord", header=header, body=bind(bound)), copy(bound)]}
    needed.parent.mkdir()
    os.mkfifo(needed)  # a part that opens it waits for a reader, so it does not fail while the good part may be stopped
    first_id = jobs.submit("workflow.chain", params, tags=["rerun"])
    wait_for(lambda: states(jobs.get(first_id))["chord/good"] == "succeeded", "the good part's end")
    moved = needed.parent.rename(tmp_path / "moved")
    with (moved / needed.name).open("r+b", buffering=0):
        first = jobs.ended(first_id)
    assert (first["state"], first["error"]["step"]) == ("failed", "chord/fixed")
    needed.parent.mkdir()

    second_id = rerun(jobs, first["id"], only_failed=True)["id"]
    second = jobs.ended(second_id)
    assert second["state"] == "succeeded", second["error"]
    assert (second["retried_from"], second["tags"], second["steps_total"]) == (first["id"], ["rerun"], 4)
    good, mended, body, _ = second["steps"]
    before = {step["name"]: step for step in jobs.get(first["id"])["steps"]}
    assert (good["reused_from"], good["result"]) == (before["chord/good"]["id"], before["chord/good"]["result"])
    assert mended["reused_from"] is None
    assert len(lines(notebook)) == 1
    assert [line.split()[0] for line in lines(bound)[:2]] == [before["chord/good"]["id"], mended["id"]]
    assert body["after"] == [good["id"], mended["id"]]


def test_only_a_workflow_has_steps_to_use_again(jobs: Jobs, notebook: Path) -> None:
    """Of a single job, or together with other parameters, a partial rerun is refused, with the field's name."""
    single = jobs.ended(jobs.submit("acme.take_note", {"notebook": str(notebook), "behave": "badly"}))
    chain = jobs.ended(jobs.submit("workflow.chain", {"steps": [note(notebook, behave="badly")]}))
    for job, body in ((single, {}), (chain, {"params": {"steps": [note(notebook)]}})):
        url = f"{jobs.gateway.url}/jobs/{job['id']}/rerun"
        answer = http_client.post(url, json={"only_failed": True, **body})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/only_failed")


def test_a_group_of_a_thousand_elements_passes(jobs: Jobs, valkey: Server, notebook: Path) -> None:
    """It is accepted at once and gives its steps ids; nothing in Redis for it is large; cancel reaches all of it."""
    steps = [note(notebook, lasts_s=600)] * 1_000
    job_id = jobs.submit("workflow.group", {"steps": steps})
    job = jobs.in_state(job_id, "queued", "running")
    assert (len(job["steps"]), len({step["id"] for step in job["steps"]})) == (1_000, 1_000)
    with redis.Redis.from_url(valkey.redis_url) as client:
        sizes = [client.memory_usage(key) or 0 for key in client.scan_iter(key("job", "*"), count=1_000)]
    assert max(sizes) < 1024 * 1024  # the record of the job: what was submitted, and the ids
    assert jobs.cancel(job_id) == 200
    wait_for(lambda: set(states(jobs.get(job_id)).values()) == {"cancelled"}, "end of every step")


@pytest.mark.parametrize(
    ("params", "pointer", "message"),
    [
        ([{"kind": "acme.copy_note", "params": {"notebook": "n"}}], "/params/steps/0/params/note", "Field required"),
        (
            [
                {
                    "kind": "etl.extract_data",
                    "params": {"source": {"kind": "http", "url": "https://example.com/a.csv"}},
                },
                {"kind": "acme.copy_note", "params": {"notebook": "n"}},
            ],
            "/params/steps/1",
            "takes a file for 'note'; before it, 'extract_data' (etl.extract_data) gives dataset",
        ),
        ([{"kind": "acme.take_not", "params": {}}], "/params/steps/0/kind", "Did you mean 'acme.take_note'?"),
    ],
)
def test_a_workflow_that_does_not_fit_is_refused(jobs: Jobs, params: list[Element], pointer: str, message: str) -> None:
    """A 422 names the step, and both types where a neighbour does not fit."""
    body = json.dumps({"kind": "workflow.chain", "params": {"steps": params}})
    answer = http_client.post(f"{jobs.gateway.url}/jobs", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    assert message in answer.json()["errors"][0]["message"]
