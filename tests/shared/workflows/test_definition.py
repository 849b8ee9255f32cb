"""The plan of a workflow is tried when it is defined, and what it does later is never an error of the service."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from pydantic import Field

from shared.contract import definition
from shared.contract.catalogue import Catalogue
from shared.contract.definition import Limits
from shared.contract.options import RunOptions
from shared.errors import DefinitionError
from shared.workflows.definition import WorkflowContract
from shared.workflows.nodes import Chain, Group, Node, step
from shared.workflows.planning import prepare
from tests.acme.contracts import Noted, TakeNote

LATER = """
from pydantic import Field
from shared.contract.definition import Limits
from shared.workflows import Node, WorkflowContract, step
from tests.acme.contracts import Noted, TakeNote

class NoteLater(WorkflowContract[Noted], kind="acme.note_later", queue="etl", limits=Limits(soft_s=50, hard_s=60),
                examples=[{"notebook": "notes.txt"}]):
    '''Take a note.'''

    notebook: str = Field(description="Where.")

    def plan(self) -> Node:
        return the_only_step(self.notebook)
"""


@pytest.fixture(autouse=True)
def _kinds_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definition, "_kinds", dict(definition._kinds))


def _module(code: str, monkeypatch: pytest.MonkeyPatch) -> str:
    module = ModuleType("acme_later")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, "acme_later.py", "exec", dont_inherit=True), vars(module))  # noqa: S102 - the text above
    return module.__name__


def test_a_plan_may_use_what_its_module_defines_further_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is then tried when the catalogue is loaded."""
    name = _module(
        f"{LATER}\ndef the_only_step(notebook):\n    return step('note', TakeNote(notebook=notebook))", monkeypatch
    )
    assert set(Catalogue.load([name])) == {"acme.note_later"}


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ("", "raises NameError: name 'the_only_step' is not defined"),
        ("def the_only_step(notebook):\n    return None", "makes plan() give None in place of steps"),
    ],
)
def test_a_plan_that_never_works_is_refused_at_start(more: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be tried when the class was defined is not forgotten."""
    name = _module(f"{LATER}\n{more}", monkeypatch)
    with pytest.raises(DefinitionError) as refused:
        Catalogue.load([name])
    assert f"acme_later.NoteLater: example 0 {what}" in str(refused.value)


def _moody() -> Any:
    class NoteMoodily(
        WorkflowContract[Noted],
        kind="acme.note_moodily",
        queue="etl",
        limits=Limits(soft_s=50, hard_s=60),
        examples=[{"mood": "good"}],
    ):
        """Take a note, or not."""

        mood: str = Field(description="How the plan behaves.")

        def plan(self) -> Node:
            note = step("note", TakeNote(notebook="notes.txt"))
            plans = {"good": note, "empty": Chain(note, Group()), "twice": Group(note, note), "none": None}
            return plans[self.mood]  # type: ignore[return-value]  # what it does wrong

    return NoteMoodily


@pytest.mark.parametrize(
    ("mood", "what"),
    [
        ("bad", "plan() of acme.note_moodily fails for these parameters."),
        ("none", "plan() of acme.note_moodily gives None in place of steps for these parameters."),
        ("empty", "plan() of acme.note_moodily gives a group without steps for these parameters."),
        ("twice", "plan() of acme.note_moodily gives 2 steps the name 'note'. Give each another name."),
    ],
)
def test_a_plan_that_fails_for_some_parameters_is_a_refusal(mood: str, what: str) -> None:
    """The gateway answers 422 at /params, not 500, whatever the plan raises or returns."""
    contract = _moody()
    assert prepare(contract(mood="good"), RunOptions()).problems == ()
    ((path, message),) = prepare(contract(mood=mood), RunOptions()).problems
    assert path == ()
    assert message.startswith(what)
