"""What a state needs beside its place in the enumeration: a colour, a line for people, and an index to be found by."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cli.pages.output import STATE_STYLES
from shared.ledger.aclient import AsyncLedger
from shared.ledger.calling.filters import Filter
from shared.ledger.keys import Keys, key
from shared.ledger.states import STEP_STATES, State
from tests.support.ledgers import entry, with_async
from tests.support.servers.services import Server

ROOT = Path(__file__).resolve().parents[3]
README = ROOT / "README.md"
SOURCES = ("api", "bench", "celeriac", "cli", "deploy", "examples", "shared", "worker")
OTHER_STATES = (
    "worker/ml/",  # those of a trial of a search
    "shared/jobs/ml/",
    "examples/acme_images/",  # a package of another team, which reads states in JSON like any client
)


def test_every_state_has_a_colour_on_the_command_line() -> None:
    """An empty one is a choice, too."""
    assert STATE_STYLES.keys() == set(STEP_STATES)


def test_every_state_has_a_line_for_people() -> None:
    """In README's table, or, for those of steps only, in the sentence below it."""
    section = README.read_text(encoding="utf-8").partition("## States")[2].partition("\n## ")[0]
    table, _, below = section.partition("\n\nA step can also be ")
    named = [
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    ]
    assert named == list(State)
    assert set(re.findall(r"`(\w+)`", below)) == set(map(str, STEP_STATES)) - set(map(str, State))


def test_jobs_are_found_by_their_state(accept: Callable[..., Any], empty_valkey: Server) -> None:
    """Each state has an index of its own: jobs in other states are not looked at."""
    job = entry()
    accept(job)

    async def found(ledger: AsyncLedger) -> dict[State, list[str]]:
        lists = {state: await ledger.list(Filter(states=(state,)), limit=10) for state in State}
        return {state: [record.id for record in records] for state, (records, _) in lists.items()}

    assert with_async(empty_valkey.redis_url, found) == {state: [] for state in State} | {State.QUEUED: [job.id]}
    for state in State:
        assert Filter(states=(state,)).arguments(1, 1, Keys())["indexes"] == [[key("state", state)]]


def _quoted_states(tree: ast.AST) -> Iterator[int]:
    """Yield the lines where something called `state` is compared with, given or declared as a quoted state."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            named, values = "state" in ast.unparse(node.left), list(node.comparators)
        elif isinstance(node, ast.keyword):
            named, values = node.arg == "state", [node.value]
        elif isinstance(node, ast.AnnAssign):
            named, values = ast.unparse(node.target) == "state", [node.annotation]
        else:
            continue
        constants = (each.value for value in values for each in ast.walk(value) if isinstance(each, ast.Constant))
        if named and not set(STEP_STATES).isdisjoint(constants):
            yield node.lineno


def test_no_code_quotes_a_state() -> None:
    """Code takes states from the enumeration, so that mypy finds each place of one that changes."""
    files = [path for source in SOURCES for path in sorted((ROOT / source).rglob("*.py"))]
    read = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in files}
    quoting = re.compile("|".join(f"[\"']{state}[\"']" for state in STEP_STATES))
    assert [
        f"{name}:{line}"
        for name, text in read.items()
        if not name.startswith(OTHER_STATES) and quoting.search(text)  # parsing all files takes seconds
        for line in _quoted_states(ast.parse(text))
    ] == []


def test_a_quoted_state_would_be_found() -> None:
    """In a comparison, an argument and a declaration."""
    quoted = 'job["state"] == "running"\njob.state in {"failed", x}\nend(state="failed" if f else y)\n'
    assert sorted(_quoted_states(ast.parse(f'{quoted}class Job:\n    state: Literal["queued"]\n'))) == [1, 2, 3, 5]
    assert list(_quoted_states(ast.parse('event == "state"\nreason == "scheduled"'))) == []
