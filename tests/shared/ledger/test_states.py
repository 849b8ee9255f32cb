"""What a state needs beside its place in the enumeration: a colour, a line for people, and an index to be found by."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli.pages.output import STATE_STYLES
from shared.ledger.aclient import AsyncLedger
from shared.ledger.calling.filters import Filter
from shared.ledger.keys import Keys, key
from shared.ledger.states import FINAL_STATES, State, StepState
from tests.support.ledgers import entry, with_async
from tests.support.servers.services import Server

README = Path(__file__).resolve().parents[3] / "README.md"


def test_a_step_has_the_states_of_a_job_and_two_more() -> None:
    """A step waits for those before it, and is skipped if they did not succeed."""
    assert {str(state) for state in StepState} - {str(state) for state in State} == {"waiting", "skipped"}
    assert {str(state) for state in State} <= {str(state) for state in StepState}
    assert {state for state in State if state.is_final} == FINAL_STATES


def test_every_state_has_a_colour_on_the_command_line() -> None:
    """An empty one is a choice, too."""
    assert STATE_STYLES.keys() == set(StepState)


def test_every_state_has_a_line_for_people() -> None:
    """In README's table, or, for those of steps only, in the sentence below it."""
    section = README.read_text(encoding="utf-8").partition("## States")[2].partition("\n## ")[0]
    table, _, below = section.partition("\n\nA step can also be ")
    named = [
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    ]
    assert named == list(State)
    assert set(re.findall(r"`(\w+)`", below)) == set(map(str, StepState)) - set(map(str, State))


def test_jobs_are_found_by_their_state(accept: Callable[..., Any], empty_valkey: Server) -> None:
    """Each state has an index of its own: jobs in other states are not looked at."""
    job = entry()
    accept(job)

    async def found(ledger: AsyncLedger) -> dict[State, list[str]]:
        lists = {state: await ledger.list(Filter(states=(state,)), limit=10) for state in State}
        return {state: [record.id for record in records] for state, (records, _) in lists.items()}

    assert with_async(empty_valkey.redis_url, found) == {state: [] for state in State} | {State.QUEUED: [job.id]}
    assert {Filter(states=(state,)).arguments(1, 1, Keys())["index"] for state in State} == {
        key("state", s) for s in State
    }
