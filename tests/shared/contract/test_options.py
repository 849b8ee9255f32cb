"""What an option of a job needs beside its field: somebody who follows it, and a line for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from shared.broker.messages import Composer
from shared.contract.options import RunOptions, SubmissionOptions
from shared.jobs.maintenance import CleanupOldData
from shared.schedules.terms import Terms
from shared.workflows.planning import Planner, prepare

if TYPE_CHECKING:
    from shared.broker.settings import BrokerSettings

OPERATE = Path(__file__).resolve().parents[3] / "docs" / "operate.md"
#: An example of every option, and where it leads to in what the ledger accepts.
EXAMPLES: dict[str, tuple[Any, str]] = {
    "priority": (9, "priority"),
    "expires_in_s": (60.0, "expires_at"),
    "time_limit_s": (30.0, "message"),
    "max_retries": (0, "max_retries"),
    "queue": ("slow", "queue"),
    "tags": (["nightly"], "tags"),
    "concurrency_key": ("crm", "concurrency_key"),
    "concurrency_limit": (7, "concurrency_limit"),
    "callback_url": ("https://example.com/hook", "options"),  # the keeper takes it from there at the job's end
    "run_at": ("2999-01-01T00:00:00Z", "due_at"),
    "delay_s": (60.0, "due_at"),
}


def record(options: RunOptions, broker: BrokerSettings) -> dict[str, Any]:
    """Return what the ledger is given for a job with these options; the ids in its message are left out."""
    job = CleanupOldData(dry_run=True)
    found = Planner(broker, Composer(broker)).entry(prepare(job, options), job_id="0").record()
    return found | {"message": json.loads(found["message"])["headers"]}


def test_every_option_has_an_example_here() -> None:
    """Whoever adds an option says where it leads to."""
    assert EXAMPLES.keys() == SubmissionOptions.model_fields.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_option_leads_to_what_the_ledger_accepts(name: str, broker: BrokerSettings) -> None:
    """It changes the field that follows it; the options themselves are kept as they were given."""
    value, place = EXAMPLES[name]
    given = SubmissionOptions.model_validate_json(json.dumps({name: value}))
    without, found = record(SubmissionOptions(), broker), record(given, broker)
    assert found[place] != without.get(place)
    assert json.loads(found["options"]).keys() == {name}


def test_a_schedule_takes_the_options_that_do_not_say_when() -> None:
    """The others are those of one submission: a repeated job does not keep them either."""
    assert Terms.model_fields["options"].annotation is RunOptions
    assert SubmissionOptions.model_fields.keys() - RunOptions.model_fields.keys() >= {"run_at", "delay_s"}


def test_every_option_has_a_line_for_people() -> None:
    """In the table of docs/operate.md; no line is about an option that there is not."""
    table = OPERATE.read_text(encoding="utf-8").partition("| option | effect |")[2].partition("\n\n")[0]
    named = {name.strip(" `") for row in table.splitlines()[2:] for name in row.split("|")[1].split(",")}
    assert named == SubmissionOptions.model_fields.keys()


@pytest.mark.parametrize("tag", ["two words", "-dash", "", "x" * 65, "line\n", "naïve"])
def test_a_refused_tag_says_in_words_what_a_tag_may_be(tag: str) -> None:
    """The pattern is for programs; a person reads a sentence."""
    with pytest.raises(ValidationError) as refused:
        SubmissionOptions.model_validate_json(json.dumps({"tags": [tag]}))
    (error,) = refused.value.errors()
    assert error["msg"].endswith(
        "it must be 1 to 64 letters, digits or any of . _ : @ / -, and begin with a letter or digit"
    )
